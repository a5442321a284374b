"""The messages between the learner and its actors; `protocol.wire.frames` turns these records into frames and back.

The ranges that stand in a field are checked on receipt. Whether an array agrees with the config, the lease and the
rules of the maze is checked by the learner, in `learner.admission`.
"""

# M mazes of a lease, E attempts at each maze, W = M*E attempts, N steps of all attempts, K inner steps, P parameters

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from protocol.wire.contract import contract
from protocol.world.maze import Mazes

Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0.0)]
Text = Annotated[str, Field(max_length=200)]

MAX_CAPACITY = 16  # leases that one actor may hold at once
METRICS = r"^(([A-Za-z0-9._-]{1,200}|\[[0-9A-Fa-f:.]{2,45}\])?:[0-9]{1,5})?\z"


CONTRACT = contract()  # what this process computes and says; both sides must have the same


@dataclass(frozen=True)
class Attempts:
    """One stage of a lease: E attempts at each of its M mazes, under one policy per maze."""

    length: npt.NDArray[np.int32]  # [W] steps taken: until an exit or a trap, or the horizon without them
    move: npt.NDArray[np.uint8]  # [N] the moves of all steps, by maze, attempt, time
    log_prob: npt.NDArray[np.float32]  # [N] the log-probability that each move was drawn with


@dataclass(frozen=True)
class Hello:
    """Actor -> learner: I hold no lease and can work. It is sent at the start, and when the learner is silent."""

    contract: Text  # CONTRACT of the actor's code
    actor: Text  # the actor's name, for people
    capacity: Annotated[int, Field(ge=0, le=MAX_CAPACITY)]  # leases it may hold; 2: it never waits, 0: it only looks
    metrics: Annotated[str, Field(pattern=METRICS)]  # the address of its metrics: HOST:PORT, :PORT of its host, or ""


@dataclass(frozen=True)
class Welcome:
    """Learner -> actor: the answer to Hello."""

    run: Text  # the run's id, the same after a resume
    session: Text  # fresh at every start of a learner: when it changes, an actor drops all that it holds
    config: Annotated[str, Field(max_length=32_768)]  # the whole Config as JSON
    theta_port: Annotated[int, Field(ge=0, le=65_535)]  # the port of theta on the learner's host; 0 for ipc
    version: Count  # the newest theta's, in updates done
    time: Seconds  # the learner's clock, since 1970, UTC
    own: Text = ""  # the contract of the modules of the user's own that the config names; "" where it names none


@dataclass(frozen=True)
class Theta:
    """Learner -> actors: the parameters; published at every update, and the answer to Fetch."""

    version: Count  # updates done
    vector: npt.NDArray[np.float32]  # [P] all of theta, flat


@dataclass(frozen=True)
class Fetch:
    """Actor -> learner: a lease needs a theta that I have not seen."""

    version: Count  # updates done


@dataclass(frozen=True)
class Lease:
    """Learner -> actor: send me `collect(theta of this version, seed, config)`."""

    batch: Count  # the number of the meta-batch, which is also that of the update
    chunk: Count  # the number of the part of the batch, from 0
    issue: Count  # the number of this lease; no two leases of a learner's life share one
    version: Count  # the theta to work under, in updates done: max(0, batch - lag)
    seed: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)]  # decides everything random
    timeout_s: Seconds  # after which the work is given to someone else; the first rollouts count


@dataclass(frozen=True)
class Rollouts:
    """Actor -> learner: the work that a lease asked for."""

    batch: Count  # these four as in the lease
    chunk: Count
    issue: Count
    version: Count
    seconds: Annotated[dict[Text, Seconds], Field(max_length=8)]  # how long each part of the work took
    mazes: Mazes  # the M mazes that the seed stands for
    stages: tuple[Attempts, ...]  # [K + 1] before each inner step, and after the last


@dataclass(frozen=True)
class Bye:
    """Either way: I stop, or you should."""

    verdict: Literal["over", "refused", "retry"]  # the run is done; you are not wanted; start over with Hello
    reason: Text  # one sentence for people


@dataclass(frozen=True)
class Ping:
    """Learner -> actor: nothing. If it cannot be delivered, the actor is gone."""


Message = Hello | Welcome | Theta | Fetch | Lease | Rollouts | Bye | Ping
