"""Says which code is installed here, and on what kind of machine."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from importlib.util import find_spec

from protocol.config import ClewError
from protocol.wire.messages import CONTRACT


def version_of(package: str) -> str:
    """Returns the version of a package. An image holds only the sources of clew: there the contract names them."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def context() -> dict[str, str | int]:
    """Returns what figures depend on beside the settings."""
    return {
        "clew": version_of("clew"),
        "contract": CONTRACT,
        "python": platform.python_version(),
        "numpy": version_of("numpy"),
        "torch": version_of("torch"),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
    }


def require(*packages: str, extra: str = "learner") -> None:
    """Raises ClewError where a package is missing that an extra of clew brings and an actor does not need."""
    missing = [name for name in packages if not find_spec(name)]
    if missing:
        why = "this machine has only what an actor needs; " if extra == "learner" else ""
        raise ClewError(f"{' and '.join(missing)} not found: {why}run pip install 'clew[{extra}]'")
