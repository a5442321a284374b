"""Messages as frames: one msgpack header and, where there are arrays, one body. Nothing is ever unpickled.

The header is (kind, fields, arrays): the record's name, its scalar fields, and (dtype, dimensions) of each array. The
body holds their bytes in that order, each with zeros up to a multiple of 8: a frame for every array would take both
sides twice the time. The number of arrays is checked while the header is read, and everything else before an array is
made, against the kind of message and its limits; arrays are read-only views of the body.
"""

# M mazes, C cells of all mazes

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgpack
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from protocol.config import Config
from protocol.wire.messages import Attempts, Hello, Message, Rollouts, Theta
from protocol.world.maze import Mazes

Array = npt.NDArray[Any]
Slot = tuple[str, int]  # dtype and number of dimensions that a place in a message wants
Dtype = Literal["uint8", "int32", "float32"]
Shape = Annotated[tuple[Annotated[int, Field(ge=1, lt=2**31)], ...], Field(min_length=1, max_length=3)]
Declared = tuple[tuple[Dtype, Shape], ...]
Header = tuple[str, dict[str, Any], Declared]

HEADER_BYTES = 65_536  # the most of any message's header; a Welcome with its config has the largest
REQUEST_BYTES = 8_192  # the most of the header of a message from an actor, without its list of arrays
ENTRIES = 16  # the most of a list or a table in a header, except the list of arrays
DTYPES = {name: np.dtype(name).newbyteorder("<") for name in get_args(Dtype)}  # the types as they travel
NAMES = {dtype.newbyteorder(order): name for name, dtype in DTYPES.items() for order in "<>"}  # dtype.name is slow
THETA: Slot = ("float32", 1)
MAZES: tuple[Slot, ...] = (("int32", 2), ("int32", 1), ("uint8", 1))
STAGE: tuple[Slot, ...] = (("int32", 1), ("uint8", 1), ("float32", 1))
SLOT_BYTES = 32  # the most of one array in the header


class WireError(Exception):
    """Raised for frames that are no message; `reason` is one word to count them under."""

    def __init__(self, reason: str) -> None:
        """Keeps the reason."""
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """The most that a message may cost its receiver."""

    frame_bytes: int  # the most of the header or the body
    header_bytes: int = HEADER_BYTES  # the most of the header
    arrays: int = ENTRIES  # the most arrays

    @staticmethod
    def of(config: Config) -> Limits:
        """Computes the limits of what the learner of `config` may receive: no honest Rollouts is larger."""
        mazes, cells = config.run.mazes_per_lease, config.maze.most_cells
        attempts = max(config.inner.attempts, config.outer.attempts)
        steps = mazes * attempts * math.ceil(config.run.horizon_per_cell * cells)
        maze_sizes = [mazes * 8, mazes * 4, mazes * cells]
        stage_sizes = [mazes * attempts * 4, steps, steps * 4]
        stages = config.inner.steps + 1
        body_bytes = sum(map(_padded, maze_sizes + stages * stage_sizes))
        arrays = len(MAZES) + stages * len(STAGE)
        header_bytes = REQUEST_BYTES + arrays * SLOT_BYTES
        return Limits(max(HEADER_BYTES, body_bytes), header_bytes, arrays)


ACTOR_LIMITS = Limits(frame_bytes=2**28)  # an actor has no config yet; Theta is the largest


def encode(message: Message) -> list[bytes]:
    """Writes a message as frames."""
    arrays = _arrays_of(message)
    scalars = {name: getattr(message, name) for name in FIELDS[type(message).__name__]}
    declared = [(NAMES[array.dtype], array.shape) for array in arrays]
    header = msgpack.packb((type(message).__name__, scalars, declared))
    if not arrays:
        return [header]
    parts = [array.astype(DTYPES[NAMES[array.dtype]]).tobytes() for array in arrays]
    return [header, b"".join([part.ljust(_padded(len(part)), b"\0") for part in parts])]


def decode(frames: Sequence[bytes], limits: Limits) -> Message:
    """Reads the message in `frames`; raises WireError where there is none."""
    if not 1 <= len(frames) <= 2:
        raise WireError("frames")
    if len(frames[-1]) > limits.frame_bytes:
        raise WireError("size")
    name, given, declared = _header(frames[0], limits)
    if name not in KINDS:
        raise WireError("kind")
    try:
        scalars = SCALARS[name].model_validate(given)
    except ValidationError:
        raise WireError("contract" if name == Hello.__name__ else "fields") from None
    if not _has_layout(name, [(dtype, len(shape)) for dtype, shape in declared]):
        raise WireError("layout")
    if len(frames) != 1 + bool(declared):
        raise WireError("frames")
    arrays = _arrays_in(frames[1], declared) if declared else []
    message: Message = KINDS[name](**vars(scalars), **_records(name, arrays))
    return message


def _arrays_of(message: Message) -> list[Array]:
    """Lists the arrays of a message in the order in which they travel."""
    match message:
        case Theta():
            return [message.vector]
        case Rollouts():
            mazes, stages = message.mazes, message.stages
            parts = [part for stage in stages for part in (stage.length, stage.move, stage.log_prob)]
            return [mazes.shape_M2, mazes.start_M, mazes.cell_C, *parts]
        case _:
            return []


def _has_layout(name: str, slots: list[Slot]) -> bool:
    """Says whether a message of this kind may hold such arrays: Theta one, Rollouts those of mazes and stages."""
    if name == Theta.__name__:
        return slots == [THETA]
    if name == Rollouts.__name__:
        stages = (len(slots) - len(MAZES)) // len(STAGE)
        return slots == [*MAZES, *STAGE * stages]
    return not slots


def _records(name: str, arrays: list[Array]) -> dict[str, Any]:
    """Makes the fields of a message that are made of arrays."""
    if name == Theta.__name__:
        return {"vector": arrays[0]}
    if name == Rollouts.__name__:
        mazes, parts = arrays[: len(MAZES)], arrays[len(MAZES) :]
        stages = tuple(Attempts(*parts[at : at + len(STAGE)]) for at in range(0, len(parts), len(STAGE)))
        return {"mazes": Mazes(*mazes), "stages": stages}
    return {}


def _header(frame: bytes, limits: Limits) -> Header:
    """Reads a header; one that claims too much costs no more than an honest one, and raises WireError."""
    if len(frame) > limits.header_bytes:
        raise WireError("header")
    try:
        unpacked = msgpack.unpackb(
            frame,
            use_list=False,
            strict_map_key=True,
            max_array_len=max(limits.arrays, ENTRIES),
            max_map_len=ENTRIES,
            max_ext_len=0,
        )
        return HEADER.validate_python(unpacked)
    except (ValueError, msgpack.UnpackException):  # pydantic's ValidationError is a ValueError
        raise WireError("header") from None


def _arrays_in(body: bytes, declared: Declared) -> list[Array]:
    """Makes read-only views of `body`; raises WireError unless its length is what dtypes and shapes say."""
    counts = [math.prod(shape) for _, shape in declared]
    sizes = [count * DTYPES[dtype].itemsize for count, (dtype, _) in zip(counts, declared, strict=True)]
    begins = list(accumulate(map(_padded, sizes), initial=0))
    if begins.pop() != len(body):
        raise WireError("length")
    return [
        np.frombuffer(body, DTYPES[dtype], count, begin).reshape(shape)
        for (dtype, shape), count, begin in zip(declared, counts, begins, strict=True)
    ]


def _padded(size: int) -> int:
    """Rounds a size up, so that every array begins where its elements may."""
    return -(-size // 8) * 8


STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
ARRAYS = {"vector", "mazes", "stages"}  # fields that travel in the body
KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Message)}


def _scalars(kind: type) -> type[BaseModel]:
    """Makes a model of the scalar fields of a record, which checks their types and ranges."""
    hints = get_type_hints(kind, include_extras=True)
    wanted: dict[str, Any] = {name: (hint, ...) for name, hint in hints.items() if name not in ARRAYS}
    return create_model(kind.__name__, __config__=STRICT, **wanted)


HEADER: TypeAdapter[Header] = TypeAdapter(Header, config=ConfigDict(strict=True))
SCALARS = {name: _scalars(kind) for name, kind in KINDS.items()}
FIELDS = {name: tuple(scalars.model_fields) for name, scalars in SCALARS.items()}
