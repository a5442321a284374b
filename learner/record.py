"""The record of an update, which is its line in RUN_DIR/updates.jsonl."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter


@dataclass(frozen=True)
class Record:
    """One update. A figure that is not finite is None."""

    update: int  # counts from 1
    theta_sha256: str  # of theta after it
    objective: float | None  # that the meta-gradient is of; this and the next six as in `learner.outer.Figures`
    gradient_norm: float | None
    success_before: float | None
    success_after: float | None
    adaptation_gain: float | None
    ratio_before: float | None
    ratio_after: float | None
    steps: int  # in all attempts of the meta-batch
    attempts: int
    seconds: float  # since the update before
    lag: int  # updates that the meta-batch was behind theta
    actors: int
    phase_s: Mapping[str, float]  # what the learner did since the update before
    decoding_s: float  # what its clerk spent on messages meanwhile
    actor_s: Mapping[str, float | None]  # what the meta-batch cost the actors, all together
    leases: int  # handed out; this and what follows: since the learner's start
    expired: int  # leases whose deadline has passed
    refusals: Mapping[str, int]  # by reason

    @property
    def line(self) -> bytes:
        """Returns the record as a line of JSON."""
        return json.dumps(vars(self), allow_nan=False).encode() + b"\n"

    @staticmethod
    def of(line: str | bytes) -> Record:
        """Reads a line; raises ValueError if it is no record. Fields that this version does not know are left out."""
        return _LINE.validate_json(line, strict=True)


_LINE = TypeAdapter(Record)


def finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Returns the figures, with None for every number that JSON cannot hold."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}
