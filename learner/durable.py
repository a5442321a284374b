"""Files that are on the disk, whole, or not there at all, whatever happens while they are written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from protocol.wire import descriptors


def put(folder: Path, files: dict[str, bytes]) -> None:
    """Writes all of the files before any gets its name; then each, in order, gets it and is on the disk."""
    for name, content in files.items():
        with _written(folder / (name + ".tmp")) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    for name in files:
        (folder / (name + ".tmp")).replace(folder / name)
        sync(folder)


def _written(path: Path) -> BinaryIO:
    """Makes a new file, and opens it to be written."""
    return descriptors.opened(lambda: path.open("wb"))


def sync(folder: Path) -> None:
    """Puts the names in a folder on the disk."""
    opened = descriptors.opened(lambda: os.open(folder, os.O_RDONLY))
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
