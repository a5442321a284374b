"""Open files: a process may have as many as the system allows, and some of them are kept from the network.

Every connection takes one file, also that of a stranger who says nothing. So the limit (`ulimit -n`) stays below what
it could be. Where it is reached and something else is to be opened, it rises for that moment, by no more than that one
file needs: strangers who take all files that there are keep nobody from writing a checkpoint, reading who may connect,
or answering whether all is well.
"""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import TypeVar

T = TypeVar("T")

MOST = 65_536  # more files are never asked for: each takes memory, too
SPARE = 128  # files that are kept from the network
FEWEST = 4 * SPARE  # where there are no more files than this, none are kept

_lock = Lock()
_usual = _largest = resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_the_limit() -> None:
    """Raises the limit to what the system allows this process, less the files that are kept for `opened`."""
    global _usual, _largest
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with _lock:
        most = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
        _largest = max(most, _largest, soft)
        _usual = _largest - SPARE if _largest > FEWEST else _largest
        _limit(_usual)


def opened(open_it: Callable[[], T]) -> T:
    """Returns what `open_it` returns, which opens one file or connection that is not the network's, and never waits.

    The network takes from the same numbers, and may be quicker: then the next number is tried, until none is left.
    Raises the OSError of `open_it` where it finds no file, or another fault.
    """
    try:
        return open_it()
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        refusal = error
    with _lock:
        try:
            for limit in range(_usual + 1, _largest + 1):
                _limit(limit)
                try:
                    return open_it()
                except OSError as error:
                    if error.errno != errno.EMFILE:
                        raise
            raise refusal
        finally:
            _limit(_usual)


def _limit(soft: int) -> None:
    """Sets the limit of open files, where the system lets it be set."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(ValueError, OSError):  # some systems do not let it be set
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
