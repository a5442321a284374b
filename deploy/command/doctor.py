"""`clew doctor`: examines whether this machine, and the way to the learner, are as an actor needs them.

Every wait has a limit.
"""

from __future__ import annotations

import platform
import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from deploy.command.options import Keys
from protocol.config import ClewError
from protocol.wire import descriptors
from protocol.wire.actor_links import ActorLinks
from protocol.wire.address import Address
from protocol.wire.frames import ACTOR_LIMITS, WireError, decode, encode
from protocol.wire.keys import ActorKeys
from protocol.wire.messages import CONTRACT, Bye, Fetch, Hello, Message, Theta, Welcome
from protocol.wire.reach import REMEDY, fault

HANDSHAKE_S = 8.0  # less than three tries of libzmq take: sockets.DEAD_AFTER_MS
ANSWER_S = 10.0  # for a message; a learner in the midst of a flood of others takes its time
ROUND_TRIPS = 5
CLOCK_S = 2.0  # the largest difference that still lets one read two logs side by side
FILES = 1_024  # open at once, at least
FILES_PER_ACTOR = 2


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    about: str  # what was examined, in a word or two
    is_fine: bool
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{'ok  ' if self.is_fine else 'FAIL'}  {self.about:<10}  {self.found}"
        return line if self.is_fine else f"{line}; {self.remedy}"


def doctor(
    connect: Annotated[str | None, typer.Option(help="A learner's address, as an actor would use it.")] = None,
    keys: Keys = None,
) -> None:
    """Examine this machine and the way to a learner, a line each; exit code 1 where anything fails."""
    failed = False
    for finding in examine(connect, keys):
        print(finding, flush=True)
        failed |= not finding.is_fine
    raise typer.Exit(int(failed))


def examine(connect: str | None, keys: Path | None) -> Iterator[Finding]:
    """Yields one finding after another; ends at the first that makes the rest impossible."""
    yield torch_device()
    yield open_files()
    if connect is None:
        return
    try:
        address = Address.of(connect)
        links = ActorLinks(connect, ActorKeys.of(keys) if keys else None)
    except ClewError as error:
        wrong, _, remedy = str(error).partition("; ")
        yield Finding("settings", False, wrong, remedy or "change --connect or --keys")
        return
    with closing(links):
        reached = reach("address", address)
        yield reached
        if reached.is_fine:
            yield from visit(links, address, bool(keys))


def torch_device() -> Finding:
    """Finds torch, which a learner needs and an actor does not."""
    if not find_spec("torch"):
        can = "this machine can run actors, and no learner (for one, pip install 'clew[learner]')"
        return Finding("torch", True, f"not installed: {can}")
    import torch

    from learner.device import find_device

    return Finding("torch", True, f"{torch.__version__}, device {find_device('auto').type}")


def open_files() -> Finding:
    """Finds how many files may be open at once: a learner needs a few for each actor."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)  # to which a learner raises what it may open
    limit = descriptors.MOST if limit == resource.RLIM_INFINITY else min(limit, descriptors.MOST)
    served = (limit - 50) // FILES_PER_ACTOR
    found = f"{limit} may be open: enough for a learner of {served} actors"
    return Finding("files", limit >= FILES, found, f"run `ulimit -n {FILES}` or more before starting clew")


def reach(about: str, address: Address) -> Finding:
    """Finds whether anybody listens at an address."""
    began = time.monotonic()
    if found := fault(address):
        return Finding(about, False, found, REMEDY)
    return Finding(about, True, f"{address} reached in {1e3 * (time.monotonic() - began):.1f} ms")


def visit(links: ActorLinks, address: Address, encrypted: bool) -> Iterator[Finding]:
    """Joins the learner as an actor that wants no work, and yields what its answers tell."""
    deadline = time.monotonic() + HANDSHAKE_S
    while not (links.connection or links.trouble) and time.monotonic() < deadline:
        links.receive(0.1)
    if not links.connection:
        trouble, _, remedy = (links.trouble or "no handshake in time; is it a learner?").partition("; ")
        yield Finding("handshake", False, trouble, remedy)
        return
    yield Finding("handshake", True, "encrypted, key accepted" if encrypted else "done, without encryption")
    trips: list[float] = []
    for _ in range(ROUND_TRIPS):
        sent_at, began = time.time(), time.monotonic()
        answer = ask(links, Hello(CONTRACT, f"doctor on {platform.node()}"[:200], 0, ""), (Welcome, Bye))
        trips.append(time.monotonic() - began)
        if not isinstance(answer, Welcome):
            said = answer.reason if isinstance(answer, Bye) else f"no answer in {ANSWER_S:.0f} s; see its log"
            wrong, _, remedy = said.partition("; ")
            yield Finding("contract", False, wrong, remedy)
            return
        welcome, ahead_s = answer, answer.time - (sent_at + trips[-1] / 2)
    yield Finding("contract", True, f"{CONTRACT[:12]}, the same on both sides; run {welcome.run}")
    yield theta(links, welcome, address)
    yield Finding("round trip", True, f"{1e3 * statistics.median(trips):.1f} ms, median of {ROUND_TRIPS}")
    yield clock(ahead_s, trips[-1] / 2)
    links.send(encode(Bye("retry", "the doctor leaves")))


def theta(links: ActorLinks, welcome: Welcome, address: Address) -> Finding:
    """Tries both ways on which theta comes."""
    published = reach("theta", address.theta(welcome.theta_port))
    if not published.is_fine:
        return published
    links.follow(welcome.theta_port)  # a quick learner publishes a newer one before it hears of this
    answer = ask(links, Fetch(welcome.version), (Theta,))
    if not isinstance(answer, Theta):
        return Finding("theta", False, f"version {welcome.version} did not come", "see the learner's log")
    size = f"version {answer.version} received, {answer.vector.nbytes / 1e3:.1f} kB"
    return Finding("theta", True, f"{size}; published at {address.theta(welcome.theta_port)}")


def clock(ahead_s: float, error_s: float) -> Finding:
    """Compares the clocks. No decision of clew depends on them, but people read two logs side by side."""
    way = "ahead" if ahead_s > 0 else "behind"
    found = f"the learner's is {abs(ahead_s):.3f} s {way}, to within {error_s:.3f} s"
    return Finding("clock", abs(ahead_s) < CLOCK_S + error_s, found, "set both clocks by NTP")


def ask(links: ActorLinks, question: Message, kinds: tuple[type[Message], ...]) -> Message | None:
    """Sends a question, and returns the first answer of one of these kinds, or None where none comes in time."""
    links.send(encode(question))
    deadline = time.monotonic() + ANSWER_S
    while time.monotonic() < deadline:
        for frames in links.receive(deadline - time.monotonic()):
            try:
                message = decode(frames, ACTOR_LIMITS)
            except WireError:
                continue
            if isinstance(message, kinds):
                return message
    return None
