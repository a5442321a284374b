"""Message <-> frames: one msgpack header, then one raw frame per array. Nothing is ever unpickled.

The header is (kind, fields, arrays): the record's name, its scalar fields, and (dtype, dimensions) of each frame that follows.
Everything is checked against whitelists and limits before an array is made, and arrays are read-only views of their frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgpack
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from protocol.config import Config
from protocol.maze import MOVES, Mazes
from protocol.messages import Attempts, Message, Rollouts, Theta

Array = npt.NDArray[Any]
Slot = tuple[str, int]  # dtype and number of dimensions that a place in a message wants

HEADER_BYTES = 65_536
DTYPES = {"bool": "|b1", "uint16": "<u2", "int32": "<i4", "float32": "<f4"}
THETA: tuple[Slot, ...] = (("float32", 1),)
MAZES: tuple[Slot, ...] = (("bool", 3), ("int32", 1), ("int32", 1))
STAGE: tuple[Slot, ...] = (("uint16", 2), ("uint16", 1), ("float32", 3))


class WireError(Exception):
    """Frames that are no message; `reason` is one word to count them under."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """What a message may cost its receiver."""

    frames: int  # header included
    frame_bytes: int  # of the largest frame

    @staticmethod
    def of(config: Config) -> Limits:
        """What the learner of `config` may receive: no honest Rollouts is larger."""
        mazes, cells = config.run.mazes_per_lease, config.maze.side**2
        attempts = max(config.inner.attempts, config.outer.attempts)
        log_prob_bytes = mazes * (cells * len(MOVES) + 1) * len(MOVES) * 4
        visits_bytes = mazes * attempts * config.run.horizon * 2
        stages = config.inner.steps + 1
        return Limits(
            frames=1 + len(MAZES) + stages * len(STAGE), frame_bytes=max(HEADER_BYTES, log_prob_bytes, visits_bytes)
        )


ACTOR_LIMITS = Limits(frames=2, frame_bytes=2**28)  # of what an actor receives before it has seen a config: Theta at most


def encode(message: Message) -> list[bytes]:
    """The frames of `message`."""
    arrays = _arrays_of(message)
    scalars = {field.name: getattr(message, field.name) for field in fields(message) if field.name not in ARRAYS}
    header = (type(message).__name__, scalars, [(array.dtype.name, array.shape) for array in arrays])
    return [msgpack.packb(header), *(array.astype(DTYPES[array.dtype.name]).tobytes() for array in arrays)]


def decode(frames: Sequence[bytes], limits: Limits) -> Message:
    """The message in `frames`, or WireError."""
    if not 1 <= len(frames) <= limits.frames:
        raise WireError("frames")
    name, given, declared = _header(frames[0])
    if name not in KINDS:
        raise WireError("kind")
    scalars = _validated(SCALARS[name].model_validate, given, "fields")
    if len(declared) != len(frames) - 1:
        raise WireError("frames")
    arrays = [_array(frame, *spec) for frame, spec in zip(frames[1:], declared, strict=True)]
    return KINDS[name](**dict(scalars), **_records(name, arrays))


def _arrays_of(message: Message) -> list[Array]:
    match message:
        case Theta():
            return [message.vector]
        case Rollouts():
            mazes, stages = message.mazes, message.stages
            parts = [part for stage in stages for part in (stage.length, stage.visits, stage.log_prob)]
            return [mazes.blocked, mazes.start, mazes.exit, *parts]
        case _:
            return []


def _records(name: str, arrays: list[Array]) -> dict[str, Any]:
    """The fields of a message that are made of arrays."""
    if name == Theta.__name__:
        _expect(arrays, THETA)
        return {"vector": arrays[0]}
    if name == Rollouts.__name__:
        stages = (len(arrays) - len(MAZES)) // len(STAGE)
        _expect(arrays, MAZES + STAGE * stages)
        parts = arrays[len(MAZES) :]
        triples = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
        return {"mazes": Mazes(*arrays[: len(MAZES)]), "stages": tuple(Attempts(*triple) for triple in triples)}
    _expect(arrays, ())
    return {}


def _expect(arrays: list[Array], slots: tuple[Slot, ...]) -> None:
    if [(array.dtype.name, array.ndim) for array in arrays] != list(slots):
        raise WireError("layout")


def _header(frame: bytes) -> tuple[str, dict[str, Any], tuple[tuple[str, tuple[int, ...]], ...]]:
    if len(frame) > HEADER_BYTES:
        raise WireError("header")
    try:
        header = msgpack.unpackb(frame, use_list=False, strict_map_key=True, max_ext_len=0)
    except (ValueError, msgpack.UnpackException, RecursionError):
        raise WireError("header") from None
    return _validated(HEADER.validate_python, header, "header")


def _array(frame: bytes, dtype: str, shape: tuple[int, ...]) -> Array:
    """A read-only view of `frame`, whose length must be exactly what dtype and shape say."""
    wanted = np.dtype(DTYPES[dtype])
    if math.prod(shape) * wanted.itemsize != len(frame):
        raise WireError("length")
    if dtype == "bool" and np.frombuffer(frame, np.uint8).max() > 1:
        raise WireError("value")
    return np.frombuffer(frame, wanted).reshape(shape)


def _validated(validate: Any, value: object, reason: str) -> Any:
    try:
        return validate(value)
    except ValidationError:
        raise WireError(reason) from None


STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
ARRAYS = {"vector", "mazes", "stages"}  # fields that travel as frames
KINDS = {kind.__name__: kind for kind in get_args(Message)}


def _scalars(kind: type) -> type[BaseModel]:
    """What the scalar fields of a record must be: read from the record itself."""
    hints = get_type_hints(kind, include_extras=True)
    wanted: dict[str, Any] = {name: (hint, ...) for name, hint in hints.items() if name not in ARRAYS}
    return create_model(kind.__name__, __config__=STRICT, **wanted)


SCALARS = {name: _scalars(kind) for name, kind in KINDS.items()}
Dtype = Literal["bool", "uint16", "int32", "float32"]
Shape = Annotated[tuple[Annotated[int, Field(ge=1, lt=2**31)], ...], Field(min_length=1, max_length=3)]
HEADER = TypeAdapter[Any](tuple[str, dict[str, Any], tuple[tuple[Dtype, Shape], ...]], config=ConfigDict(strict=True))
