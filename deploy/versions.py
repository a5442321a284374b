"""Which code, and what kind of machine, a figure comes from."""

from __future__ import annotations

import os
import platform
from importlib import metadata

from protocol.wire.messages import CONTRACT


def version_of(package: str) -> str:
    """The version of an installed package. An image holds clew's sources alone: there the contract names them."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def context() -> dict[str, str | int]:
    """What figures depend on beside the settings."""
    return {
        "clew": version_of("clew"),
        "contract": CONTRACT,
        "python": platform.python_version(),
        "numpy": version_of("numpy"),
        "torch": version_of("torch"),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
    }
