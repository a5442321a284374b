"""Open files: as many as the system allows, and some of them not for the network.

Every connection takes one, also that of a stranger who says nothing. So the limit (`ulimit -n`) stays below what it
could be, except for the moment in which something else is opened: strangers who take all that there is keep nobody from
writing a checkpoint, reading who may connect, or answering whether all is well.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock

MOST = 65_536  # more are never asked for: each is memory, too
SPARE = 128  # not for the network
FEWEST = 4 * SPARE  # where there are no more than this, none are kept

_lock = Lock()
_lent = 0  # how many `spare` are under way
_usual = _largest = resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_the_limit() -> None:
    """To what the system allows this process, less what `spare` keeps."""
    global _usual, _largest
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with _lock:
        most = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
        _largest = max(most, _largest, soft)
        _usual = _largest - SPARE if _largest > FEWEST else _largest
        _limit(_largest if _lent else _usual)


@contextmanager
def spare() -> Iterator[None]:
    """Around what opens something that is not the network's: in here there is room for it."""
    global _lent
    with _lock:
        _lent += 1
        _limit(_largest)
    try:
        yield
    finally:
        with _lock:
            _lent -= 1
            if not _lent:
                _limit(_usual)


def _limit(soft: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(ValueError, OSError):  # a system that does not let it stays as it is
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
