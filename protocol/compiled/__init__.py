"""Some functions of `world` and `learning` once more, as machine code that numba makes: one element after another.

Every result has the same bits as that of the function of the same name there, which says what is computed and why;
tests compare the two. Without numba everything runs as well, several times slower.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[Any]


@lru_cache
def compiled(module: str) -> Any:
    """Returns a module of this package; None where numba is not installed, or switched off by NUMBA_DISABLE_JIT."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        return None
    try:
        import numba  # noqa: F401  # it may be missing, or refuse the numpy that is installed
    except ImportError:
        return None
    forget_former_code(Path(__file__).parents[1])
    return import_module(f"{__name__}.{module}")


@lru_cache
def forget_former_code(package: Path) -> None:
    """Removes machine code that was made of other sources than those of `package`, if this user may.

    numba looks at the file of a function alone: what is called in it, and the numbers that it takes from elsewhere,
    would stay as they were.
    """
    sources = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        sources.update(path.read_bytes())
    kept = package / "compiled" / "__pycache__"
    note = kept / "sources.sha256"
    with suppress(OSError):
        if note.exists() and note.read_text() == sources.hexdigest():
            return
        for code in (*kept.glob("*.nbi"), *kept.glob("*.nbc")):
            code.unlink(missing_ok=True)
        kept.mkdir(exist_ok=True)
        beside = note.with_suffix(f".{os.getpid()}")
        beside.write_text(sources.hexdigest())
        beside.replace(note)


def plain(array: Numbers) -> Numbers:
    """Returns the numbers in a writable array, row after row: for every other kind numba would compile once more."""
    return array if array.flags.carray else np.array(array, order="C")


def machine_code(function: Any) -> Any:
    """Decorates a function that numba shall compile when it is first called, and keep on disk from then on."""
    from numba import njit

    return njit(cache=True, nogil=True, error_model="numpy")(function)
