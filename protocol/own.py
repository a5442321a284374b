"""Functions of the user's own, which a config names as "MODULE:FUNCTION", and the sources that they stand in.

A module is looked for where Python looks for it, and at last in the working directory. Nothing here asks whether it may
be imported: an actor, which gets its config from the learner, asks that first (`actors.actor`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from protocol.config import ClewError, Config


def module_of(name: str) -> str:
    """Returns the MODULE of a "MODULE:FUNCTION"."""
    return name.partition(":")[0]


def require(config: Config) -> None:
    """Raises ClewError where a function that the config names is not here."""
    for name in config.own:
        function(name)


@lru_cache
def function(name: str) -> Callable[..., Any]:
    """Imports the function of a "MODULE:FUNCTION"; raises ClewError where there is none."""
    module, _, attribute = name.partition(":")
    sources(module)  # a module that is not there, or cannot be compared, is not imported
    found = getattr(import_module(module), attribute, None)
    if not callable(found):
        raise ClewError(f"module '{module}' has no function '{attribute}', and the config names '{name}'; change one")
    made: Callable[..., Any] = found
    return made


@lru_cache
def sources(module: str) -> tuple[tuple[str, bytes], ...]:
    """Reads the name and the text of a module's file, or of all files of the package that it is in, in order.

    They are read once, before anything is imported: the files on the disk may change later. Raises ClewError where
    there are none.
    """
    top = module.partition(".")[0]
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    found = find_spec(top) if top != "__main__" else None  # every process has another one
    if found and found.submodule_search_locations:
        folders = [Path(folder) for folder in found.submodule_search_locations]
        files = [(path.relative_to(folder).as_posix(), path) for folder in folders for path in folder.rglob("*.py")]
    else:
        path = Path(found.origin if found and found.origin else "")
        files = [(path.name, path)] if path.suffix == ".py" else []
    if not files:
        raise ClewError(
            f"there is no Python source of module '{module}' here, whose functions the config names; "
            f"put {top}.py into the working directory or on PYTHONPATH"
        )
    return tuple((name, path.read_bytes()) for name, path in sorted(files))
