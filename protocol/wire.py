"""Message <-> frames: one msgpack header, then one raw frame per array. Nothing is ever unpickled.

The header is (kind, fields, arrays): the record's name, its scalar fields, and (dtype, dimensions) of each
frame that follows. All is checked against whitelists and limits before an array is made; arrays are read-only
views of their frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgpack
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from protocol.config import Config
from protocol.maze import MOVES, Mazes
from protocol.messages import Attempts, Hello, Message, Rollouts, Theta

Array = npt.NDArray[Any]
Slot = tuple[str, int]  # dtype and number of dimensions that a place in a message wants
Dtype = Literal["bool", "uint16", "int32", "float32"]
Shape = Annotated[tuple[Annotated[int, Field(ge=1, lt=2**31)], ...], Field(min_length=1, max_length=3)]
Header = tuple[str, dict[str, Any], tuple[tuple[Dtype, Shape], ...]]

HEADER_BYTES = 65_536
DTYPES = {name: np.dtype(name).newbyteorder("<") for name in get_args(Dtype)}  # as bytes travel
NAMES = {np.dtype(name): name for name in DTYPES}  # dtype.name, which is slow to read
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
            frames=1 + len(MAZES) + stages * len(STAGE),
            frame_bytes=max(HEADER_BYTES, log_prob_bytes, visits_bytes),
        )


ACTOR_LIMITS = Limits(frames=2, frame_bytes=2**28)  # an actor has no config yet; Theta is the largest


def encode(message: Message) -> list[bytes]:
    """The frames of `message`."""
    arrays = _arrays_of(message)
    scalars = {name: getattr(message, name) for name in FIELDS[type(message).__name__]}
    declared = [(NAMES[array.dtype], array.shape) for array in arrays]
    header = (type(message).__name__, scalars, declared)
    return [msgpack.packb(header), *(array.astype(DTYPES[NAMES[array.dtype]]).tobytes() for array in arrays)]


def decode(frames: Sequence[bytes], limits: Limits) -> Message:
    """The message in `frames`, or WireError."""
    if not 1 <= len(frames) <= limits.frames:
        raise WireError("frames")
    if max(map(len, frames[1:]), default=0) > limits.frame_bytes:
        raise WireError("size")
    name, given, declared = _header(frames[0])
    if name not in KINDS:
        raise WireError("kind")
    try:
        scalars = SCALARS[name].model_validate(given)
    except ValidationError:
        raise WireError("contract" if name == Hello.__name__ else "fields") from None
    if len(declared) != len(frames) - 1:
        raise WireError("frames")
    arrays = [_array(frame, *spec) for frame, spec in zip(frames[1:], declared, strict=True)]
    layout = tuple((dtype, len(shape)) for dtype, shape in declared)
    message: Message = KINDS[name](**vars(scalars), **_records(name, arrays, layout))
    return message


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


def _records(name: str, arrays: list[Array], layout: tuple[Slot, ...]) -> dict[str, Any]:
    """The fields of a message that are made of arrays."""
    if name == Theta.__name__:
        _expect(layout, THETA)
        return {"vector": arrays[0]}
    if name == Rollouts.__name__:
        stages = (len(arrays) - len(MAZES)) // len(STAGE)
        _expect(layout, MAZES + STAGE * stages)
        parts = arrays[len(MAZES) :]
        triples = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
        attempts = tuple(Attempts(*triple) for triple in triples)
        return {"mazes": Mazes(*arrays[: len(MAZES)]), "stages": attempts}
    _expect(layout, ())
    return {}


def _expect(layout: tuple[Slot, ...], slots: tuple[Slot, ...]) -> None:
    if layout != slots:
        raise WireError("layout")


def _header(frame: bytes) -> Header:
    if len(frame) > HEADER_BYTES:
        raise WireError("header")
    try:
        unpacked = msgpack.unpackb(frame, use_list=False, strict_map_key=True, max_ext_len=0)
        return HEADER.validate_python(unpacked)
    except (ValueError, msgpack.UnpackException):  # pydantic's ValidationError is a ValueError
        raise WireError("header") from None


def _array(frame: bytes, dtype: str, shape: tuple[int, ...]) -> Array:
    """A read-only view of `frame`, whose length must be exactly what dtype and shape say."""
    wanted = np.dtype(DTYPES[dtype])
    if math.prod(shape) * wanted.itemsize != len(frame):
        raise WireError("length")
    if dtype == "bool" and np.frombuffer(frame, np.uint8).max() > 1:
        raise WireError("value")
    return np.frombuffer(frame, wanted).reshape(shape)


STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
ARRAYS = {"vector", "mazes", "stages"}  # fields that travel as frames
KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Message)}


def _scalars(kind: type) -> type[BaseModel]:
    """What the scalar fields of a record must be: read from the record itself."""
    hints = get_type_hints(kind, include_extras=True)
    wanted: dict[str, Any] = {name: (hint, ...) for name, hint in hints.items() if name not in ARRAYS}
    return create_model(kind.__name__, __config__=STRICT, **wanted)


HEADER: TypeAdapter[Header] = TypeAdapter(Header, config=ConfigDict(strict=True))
SCALARS = {name: _scalars(kind) for name, kind in KINDS.items()}
FIELDS = {name: tuple(scalars.model_fields) for name, scalars in SCALARS.items()}
