"""Says in one sentence what failed in a module of the user's own, which a config names: clew has no part in it."""

from __future__ import annotations

import importlib
import traceback
from pathlib import Path

from deploy.process.settings import shortened
from protocol import own
from protocol.learning import credit
from protocol.world import walls

CALLERS = {  # what imports, or calls, functions of the user's own
    (module.__file__, function.__name__)
    for module, function in ((own, own.function), (walls, walls.of_ones_own), (credit, credit.of_ones_own))
}
IMPORTERS = ("<frozen importlib", importlib.__file__)  # files that stand between, where a module is imported


def fault_of(error: Exception) -> str | None:
    """Says what failed, and where; None where it was not a function of the user's own, or its module."""
    frames = traceback.extract_tb(error.__traceback__)
    calls = [at for at, frame in enumerate(frames) if (frame.filename, frame.name) in CALLERS]
    if not calls:
        return None
    theirs = [frame for frame in frames[calls[-1] + 1 :] if not frame.filename.startswith(IMPORTERS)]
    inner = [frame for frame in theirs if frame.filename == theirs[0].filename][-1:]  # not what it calls elsewhere
    where = "".join(f" ({Path(frame.filename).name}, line {frame.lineno}, {frame.name})" for frame in inner)
    return (
        f"a function of your own, or its module, failed{where} with {type(error).__name__}: {shortened(str(error))}; "
        "mend it"
    )
