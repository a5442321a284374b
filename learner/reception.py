"""The reception: decodes what came, looks closely at what a lease asked for, counts refusals and names senders.

It knows nothing of leases and of links, and believes nobody.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from learner.admission import Replay, admit_all
from protocol.config import Config
from protocol.wire.frames import Limits, decode
from protocol.wire.learner_links import Received
from protocol.wire.messages import Message, Rollouts

# Answers are walked again together up to so many mazes, since more gain nothing, measured; and up to so many cells,
# since every attempt needs a copy of those of its maze.
MAZES_AT_ONCE, CELLS_AT_ONCE = 160, 1 << 21
ROUTINE = ("late", "duplicate", "version", "stranger")  # refusals of who was slow, or had just gone
LINES_AT_ONCE = 100  # of the log that others cause, of one kind
LINE_EVERY_S = 5.0  # after that

log = logging.getLogger("clew")


class Damper:
    """Log lines of one kind that others cause: so many at once, then one now and then, so that nobody fills a disk."""

    def __init__(self) -> None:
        self._room = float(LINES_AT_ONCE)
        self._since = time.monotonic()
        self._left_out = 0

    def log(self, level: int, event: str, **fields: object) -> None:
        """Logs the line if there is room for it; the next one that is logged says how many were left out."""
        now = time.monotonic()
        self._room = min(LINES_AT_ONCE, self._room + (now - self._since) / LINE_EVERY_S)
        self._since = now
        if self._room < 1.0:
            self._left_out += 1
            return
        self._room -= 1.0
        told = {**fields, "left_out": self._left_out}
        log.log(level, event, extra={name: value for name, value in told.items() if value})
        self._left_out = 0


class Reception:
    """Decodes messages, keeps answers for a closer look, and counts refusals. The clerk's thread owns it."""

    def __init__(self, config: Config, observe: Callable[[str, float], None]) -> None:
        """Starts with no message. `observe` is told how many seconds each piece of work took."""
        self.refusals: Counter[str] = Counter()  # by reason, since the start
        self.seconds = 0.0  # spent on messages, since the start
        self._config, self._observe = config, observe
        self._limits = Limits.of(config)
        self._at_once = answers_at_once(config)  # answers that are looked at together
        self._unchecked: list[tuple[Received, Rollouts]] = []  # answers that may count, in order
        self._dampers: defaultdict[str, Damper] = defaultdict(Damper)  # by reason

    @contextmanager
    def working(self) -> Iterator[None]:
        """Measures the time that is spent on messages within the context."""
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self.seconds += seconds
        self._observe("decoding", seconds)

    def decode(self, received: Received) -> Message:
        """Decodes a message; raises WireError."""
        return decode(received.frames, self._limits)

    def keep(self, received: Received, rollouts: Rollouts) -> None:
        """Keeps an answer for a closer look, together with others that wait for one."""
        self._unchecked.append((received, rollouts))

    def is_full(self, missing: int) -> bool:
        """Says whether it is time for that look. `missing`: answers that the next update waits for."""
        return len(self._unchecked) >= min(self._at_once, missing or self._at_once)

    def looked_at(self) -> Iterator[tuple[Received, Rollouts, Replay | str]]:
        """Yields all that was kept, in order: walked again, or with the reason why it is refused."""
        unchecked, self._unchecked = self._unchecked, []
        verdicts = admit_all([rollouts for _, rollouts in unchecked], self._config)
        for (received, rollouts), verdict in zip(unchecked, verdicts, strict=True):
            yield received, rollouts, verdict if isinstance(verdict, Replay) else str(verdict)

    def refuse(self, reason: str, actor: str = "", key: str = "", host: str = "") -> None:
        """Counts a refusal, and says whose message it was; `actor` is the name in its Hello, where it said one."""
        self.refusals[reason] += 1
        level = logging.DEBUG if reason in ROUTINE else logging.WARNING
        if log.isEnabledFor(level):
            fields = {"reason": reason, "count": self.refusals[reason], "actor": actor, "key": key, "host": host}
            self._dampers[reason].log(level, "message refused", **fields)


def answers_at_once(config: Config) -> int:
    """Returns how many answers are walked again together."""
    walkers = max(config.inner.attempts, config.outer.attempts)
    mazes = min(MAZES_AT_ONCE, CELLS_AT_ONCE // (walkers * config.maze.most_cells))
    return max(1, mazes // config.run.mazes_per_lease)
