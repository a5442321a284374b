"""A learner of several processes under torchrun: each takes a share of a batch's mazes, and the gradients are added up.

Rank 0 is the learner. The others follow it: pure functions of theta and some parts of a batch, without socket, file or
memory. It speaks to them as to actors, in messages that are frames; nothing is unpickled. torch.distributed knows no
keys, though: the ranks trust each other, and whoever is on their network.
"""

# P parameters

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from datetime import timedelta
from itertools import pairwise
from types import TracebackType
from typing import Self

import msgpack
import torch
import torch.distributed as dist
from torch import Tensor

from learner.admission import Replay, admit_all
from learner.outer import Figures, Gradient, Totals, meta_gradient
from learner.stages import Batch
from protocol.config import ClewError, Config
from protocol.wire.frames import Limits, decode, encode
from protocol.wire.messages import Bye, Message, Ping, Rollouts, Theta, Welcome

BEAT_S = 10.0  # between two signs of life of a learner that waits for its actors
PATIENCE_S = 300.0  # after which whoever does not take part is given up
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")  # what torchrun sets
TRUSTED = Limits(frame_bytes=2**31)  # rank 0 sends what its clerk has admitted

log = logging.getLogger("clew")


class RankError(Exception):
    """A rank is gone; the text is one sentence that says so."""


@dataclass(frozen=True)
class Seat:
    """The place of a process among those that torchrun started."""

    rank: int
    ranks: int
    local_rank: int  # on its machine
    local_ranks: int

    @staticmethod
    def here() -> Seat | None:
        """Returns this process's seat, or None if there is but one process."""
        if os.environ.get("WORLD_SIZE", "1") == "1":
            return None
        try:
            return Seat(*(int(os.environ[name]) for name in VARIABLES))
        except (KeyError, ValueError):
            wanted = ", ".join(VARIABLES)
            raise ClewError(
                f"WORLD_SIZE is set, but not each of {wanted}; start it with torchrun, or unset WORLD_SIZE"
            ) from None

    def device(self, kind: torch.device) -> torch.device:
        """Returns the CPU, or the GPU that is this process's own."""
        if kind.type == "cpu":
            return kind
        if not dist.is_nccl_available():
            raise ClewError("this torch has no NCCL, which several GPUs need; use --device cpu")
        if self.local_ranks > (here := torch.cuda.device_count()):
            raise ClewError(
                f"{self.local_ranks} processes cannot share {here} GPUs; "
                f"set --nproc-per-node {here}, or use --device cpu"
            )
        return torch.device("cuda", self.local_rank)

    def meet(self, device: torch.device) -> None:
        """Returns when all are there."""
        if not dist.is_available():
            raise ClewError("this torch is built without torch.distributed; start the learner without torchrun")
        if self.ranks == self.local_ranks:  # nobody else needs to reach them
            loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
        backend = "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(device)
            backend = "cpu:gloo,cuda:nccl"
        patience = timedelta(seconds=PATIENCE_S)
        # torchrun keeps one store for all restarts: without a prefix, the addresses of the dead are found in it.
        attempt = "clew/" + os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        with _linked():
            store, rank, ranks = next(dist.rendezvous("env://", timeout=patience))  # type: ignore[attr-defined]
            store = dist.PrefixStore(attempt, store)  # type: ignore[attr-defined]
            dist.init_process_group(backend, timeout=patience, world_size=ranks, rank=rank, store=store)


class Team:
    """Rank 0's way to the others. `with Team(…) as team`; then `gradient(…)`, and `beat()` in between."""

    def __init__(self, seat: Seat, config: Config, device: torch.device) -> None:
        """Waits for all ranks."""
        if seat.ranks > config.run.leases:
            log.warning(
                "%d processes, but a batch has only %d leases: some will have nothing to do; "
                "set run.mazes_per_lease lower",
                seat.ranks,
                config.run.leases,
            )
        self._ranks, self._config, self._device = seat.ranks, config, device
        seat.meet(device)
        self._beat_due = time.monotonic()
        self._tell_all(Welcome("", "", config.model_dump_json(), 0, 0, time.time()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tells the others to go. After an error they may wait for something else; they go when this process ends."""
        if kind is None or issubclass(kind, ClewError):
            self._tell_all(Bye("over", "the learner stops"))
            dist.destroy_process_group()

    def beat(self) -> None:
        """Gives a sign of life, now and then."""
        if time.monotonic() >= self._beat_due:
            self._tell_all(Ping())

    def gradient(self, theta_P: Tensor, parts: Sequence[Rollouts], replays: Sequence[Replay]) -> Gradient:
        """Returns the gradient of the whole batch. The other ranks walk their parts again, as this one's clerk has."""
        own, *others = shares(len(parts), self._ranks)
        theta = Theta(parts[0].batch, theta_P.cpu().numpy())
        for rank, share in enumerate(others, start=1):
            _tell(rank, theta, *parts[share])
        return added_up(theta_P, replays[own], self._config, self._device)

    def _tell_all(self, message: Message) -> None:
        for rank in range(1, self._ranks):
            _tell(rank, message)
        self._beat_due = time.monotonic() + BEAT_S


def follow(seat: Seat, device: torch.device) -> None:
    """Lives the life of every other rank: until rank 0 says goodbye, or is gone. Nothing else stops it."""
    seat.meet(device)
    for number in (signal.SIGINT, signal.SIGTERM):  # rank 0 gets them too, and may still need its help
        signal.signal(number, signal.SIG_IGN)
    config: Config | None = None
    while True:
        match _hear():
            case [Welcome() as welcome]:
                config = Config.model_validate_json(welcome.config)
            case [Theta() as theta, *parts] if config:
                again = admit_all([part for part in parts if isinstance(part, Rollouts)], config)
                replays = [replay for replay in again if isinstance(replay, Replay)]  # rank 0 sends no others
                added_up(torch.from_numpy(theta.vector.copy()).to(device), replays, config, device)
            case [Ping()]:
                pass
            case [Bye()]:
                dist.destroy_process_group()
                return


def shares(parts: int, ranks: int) -> list[slice]:
    """Divides the parts among the ranks: each takes as many as the others or one more, rank 0 at least one."""
    each, more = divmod(parts, ranks)
    ends = [each * rank + min(rank, more) for rank in range(ranks + 1)]
    return [slice(begin, end) for begin, end in pairwise(ends)]


def added_up(theta_P: Tensor, replays: Sequence[Replay], config: Config, device: torch.device) -> Gradient:
    """Returns the gradient of a batch of which this rank has some leases or none. All ranks call it, and all get it."""
    batch = Batch.of(replays, config, device) if replays else None
    totals = Totals.of(batch, config) if batch else Totals.of_none(config, device)
    totals = Totals(*_sums(*vars(totals).values()))
    own = meta_gradient(theta_P, batch, config, totals) if batch else Gradient.of_none(theta_P)
    figures = torch.tensor(astuple(own.figures), dtype=torch.float64, device=device)
    vector_P, figures = _sums(own.vector, figures)
    return Gradient(vector_P, replace(Figures(*figures.tolist()), gradient_norm=vector_P.norm().item()))


# The links


def _sums(*tensors: Tensor) -> list[Tensor]:
    """Sums each of the tensors over all ranks, in float64."""
    flat = torch.cat([tensor.flatten().double() for tensor in tensors])
    with _linked():
        dist.all_reduce(flat)
    pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [piece.view_as(tensor).to(tensor) for piece, tensor in zip(pieces, tensors, strict=True)]


def _tell(rank: int, *messages: Message) -> None:
    packed = msgpack.packb([encode(message) for message in messages])
    parcel = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
    with _linked():
        dist.send(torch.tensor([len(parcel)]), rank)
        dist.send(parcel, rank)


def _hear() -> list[Message]:
    """Returns what rank 0 tells this rank."""
    size = torch.zeros(1, dtype=torch.int64)
    with _linked():
        dist.recv(size, 0)
        parcel = torch.empty(int(size), dtype=torch.uint8)
        dist.recv(parcel, 0)
    return [decode(frames, TRUSTED) for frames in msgpack.unpackb(parcel.numpy())]


@contextmanager
def _linked() -> Iterator[None]:
    """Turns any error of torch.distributed into RankError."""
    try:
        yield
    except RuntimeError as error:
        cause = re.sub(r"^\[[^]]*\]\s*", "", str(error).splitlines()[0]).partition(". ")[0]
        raise RankError(
            f"a process of the learner no longer answers ({cause}); start all of them again with --resume"
        ) from None
