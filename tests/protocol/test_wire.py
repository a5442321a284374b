"""Messages survive the wire; nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.config import Config
from protocol.wire.frames import ACTOR_LIMITS, HEADER_BYTES, Limits, WireError, decode, encode
from protocol.wire.messages import (
    Attempts,
    Bye,
    Fetch,
    Hello,
    Lease,
    Message,
    Ping,
    Rollouts,
    Theta,
    Welcome,
)
from protocol.world.maze import Mazes

LIMITS = Limits.of(Config())
counts = st.integers(0, 2**63 - 1)
texts = st.text(max_size=200)
seconds = st.floats(0, 1e9)


def rollouts(lengths: tuple[int, ...] = (1, 2, 2, 1), side: int = 5) -> Rollouts:
    """Two stages of two attempts at each of two mazes."""
    steps = sum(lengths)
    attempts = Attempts(
        np.array(lengths, np.int32),
        (np.arange(steps) % 4).astype(np.uint8),
        np.linspace(-2, 0, steps, dtype=np.float32),
    )
    cells = (np.arange(2 * side**2) % 4).astype(np.uint8)
    mazes = Mazes(np.full((2, 2), side, np.int32), np.array([1, 2], np.int32), cells)
    return Rollouts(3, 1, 2**62, 2, {"sampling": 0.25}, mazes, (attempts, attempts))


def packed(*header: object) -> bytes:
    return bytes(msgpack.packb(header))


def packed_rollouts(change: Callable[[list[Any]], list[Any]]) -> list[bytes]:
    """Rollouts whose header declares other arrays than there are."""
    header, body = encode(rollouts())
    kind, fields, declared = msgpack.unpackb(header)
    return [packed(kind, fields, change(declared)), body]


scalar_messages = st.one_of(
    st.builds(Hello, texts, texts, st.integers(0, 16), st.sampled_from(["", ":80", "host-1.x:9", "[::1]:1"])),
    st.builds(Welcome, texts, texts, texts, st.integers(0, 65_535), counts, st.floats(0, 1e12)),
    st.builds(Lease, counts, counts, counts, counts, st.tuples(counts, counts, counts), seconds),
    st.builds(Fetch, counts),
    st.builds(Bye, st.sampled_from(["over", "refused", "retry"]), texts),
    st.just(Ping()),
)


@given(scalar_messages)
def test_a_message_without_arrays_comes_back_as_it_was(message: Message) -> None:
    assert decode(encode(message), ACTOR_LIMITS) == message


@given(counts, st.lists(st.floats(width=32, allow_nan=False), min_size=1))
def test_theta_comes_back_bit_for_bit(version: int, values: list[float]) -> None:
    vector = np.array(values, np.float32)
    theta = decode(encode(Theta(version, vector)), ACTOR_LIMITS)
    assert isinstance(theta, Theta)
    assert theta.version == version
    assert theta.vector.tobytes() == vector.tobytes()


def test_rollouts_come_back_bit_for_bit_and_read_only() -> None:
    sent = rollouts()
    received = decode(encode(sent), LIMITS)
    assert isinstance(received, Rollouts)
    assert received.seconds == sent.seconds
    assert encode(received) == encode(sent)
    for record in (received.mazes, *received.stages):
        for array in vars(record).values():
            assert array.flags.aligned
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


def test_a_sender_of_the_other_byte_order_says_the_same() -> None:
    sent = rollouts()
    stages = tuple(
        replace(
            stage,
            length=stage.length.astype(stage.length.dtype.newbyteorder()),
            log_prob=stage.log_prob.astype(stage.log_prob.dtype.newbyteorder()),
        )
        for stage in sent.stages
    )
    assert stages[0].length.tobytes() != sent.stages[0].length.tobytes()
    assert encode(replace(sent, stages=stages)) == encode(sent)


@given(st.lists(st.binary(max_size=200), max_size=12))
def test_noise_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        decode(frames, LIMITS)


@given(st.data())
def test_a_flipped_bit_is_refused_or_gives_another_message(data: st.DataObject) -> None:
    frames = encode(rollouts())
    index = data.draw(st.integers(0, len(frames) - 1))
    frame = bytearray(frames[index])
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    frames[index] = bytes(frame)
    with suppress(WireError):
        assert encode(decode(frames, LIMITS))


@given(st.data())
def test_a_frame_cut_short_is_refused(data: st.DataObject) -> None:
    frames = encode(rollouts())
    index = data.draw(st.integers(0, len(frames) - 1))
    frames[index] = frames[index][: data.draw(st.integers(0, len(frames[index]) - 1))]
    with pytest.raises(WireError):
        decode(frames, LIMITS)


@pytest.mark.parametrize(
    ("reason", "frames"),
    [
        ("frames", []),
        ("frames", [b""] * 3),
        ("frames", [*encode(Ping()), b"more"]),
        ("frames", encode(rollouts())[:-1]),
        ("header", [b"\xc1"]),
        ("header", [b"\0" * (HEADER_BYTES + 1)]),
        ("header", [b"\x91" * 5_000]),
        ("size", [packed("Theta", {"version": 0}, [("float32", (1,))]), b"x" * (LIMITS.frame_bytes + 1)]),
        ("header", [packed("Ping", {}, [], "more")]),
        ("header", [packed("Ping", {}, [("object", (1,))]), b"x"]),
        ("header", [packed("Ping", {}, [("float64", (1,))]), b"x" * 8]),
        ("header", [packed("Ping", {}, [("float32", (-1,))]), b"x" * 4]),
        ("header", [packed("Ping", {}, [("float32", (1,) * 9)]), b"x" * 4]),
        ("header", [packed("Ping", {}, [("float32", (0,))]), b""]),
        ("header", [packed("Ping", {"a": msgpack.ExtType(1, b"x")}, [])]),
        ("header", [packed("Rollouts", {}, [("uint8", (1,))] * 7_000), b"x" * 8 * 7_000]),
        ("header", [packed("Rollouts", {}, [("uint8", (1,))] * (LIMITS.arrays + 1))]),
        ("header", [packed("Rollouts", {str(number): 0 for number in range(17)}, [])]),
        ("kind", [packed("os.system", {}, [])]),
        ("fields", [packed("Ping", {"more": 1}, [])]),
        ("fields", [packed("Fetch", {}, [])]),
        ("fields", [packed("Fetch", {"version": -1}, [])]),
        ("fields", [packed("Fetch", {"version": True}, [])]),
        ("fields", [packed("Fetch", {"version": "1"}, [])]),
        ("fields", [packed("Bye", {"verdict": "never", "reason": ""}, [])]),
        ("fields", [packed("Bye", {"verdict": "over", "reason": "x" * 201}, [])]),
        ("length", [packed("Theta", {"version": 0}, [("float32", (2,))]), b"x" * 4]),
        ("length", [packed("Theta", {"version": 0}, [("float32", (2**31 - 1,))]), b"x" * 4]),
        ("layout", [packed("Theta", {"version": 0}, [("float32", (2**31 - 1,) * 3)]), b"x" * 4]),
        ("layout", [packed("Theta", {"version": 0}, [("int32", (1,))]), b"x" * 8]),
        ("layout", [packed("Theta", {"version": 0}, [("float32", (1, 1))]), b"x" * 8]),
        ("layout", [packed("Theta", {"version": 0}, [])]),
        ("layout", [packed("Ping", {}, [("float32", (1,))]), b"x" * 8]),
        ("layout", packed_rollouts(lambda arrays: arrays[:-1])),
        ("layout", packed_rollouts(lambda arrays: arrays[:2])),
        ("layout", packed_rollouts(lambda arrays: arrays[::-1])),
        ("layout", packed_rollouts(lambda arrays: [*arrays, ("uint8", (1,))])),
        ("length", packed_rollouts(lambda arrays: arrays[:-3])),
        ("length", packed_rollouts(lambda arrays: [*arrays[:-1], ("float32", (7,))])),
    ],
)
def test_a_malformed_message_is_refused_with_its_reason(reason: str, frames: list[bytes]) -> None:
    with pytest.raises(WireError) as refused:
        decode(frames, LIMITS)
    assert refused.value.reason == reason


@pytest.mark.parametrize("timeout_s", [float("nan"), float("inf"), -1.0])
def test_times_that_are_not_finite_are_refused(timeout_s: float) -> None:
    fields = {"batch": 0, "chunk": 0, "issue": 0, "version": 0, "seed": [1], "timeout_s": timeout_s}
    with pytest.raises(WireError, match="fields"):
        decode([packed("Lease", fields, [])], LIMITS)


@pytest.mark.parametrize("stages", [2, 101])
def test_the_limits_of_a_config_hold_its_largest_rollouts_and_no_larger_ones(stages: int) -> None:
    config = Config.model_validate(
        {
            "run": {"mazes_per_lease": 2, "mazes": 2, "horizon_per_cell": 10.01},
            "maze": {"side": [9, 33]},
            "inner": {"steps": stages - 1, "attempts": 2},
        }
    )
    limits, horizon = Limits.of(config), 10_901  # the smallest whole number that is at least 10.01 * 33 * 33
    largest = rollouts((horizon,) * 4, side=33)
    frames = encode(replace(largest, stages=largest.stages[:1] * stages))
    assert len(frames) == 2
    assert max(map(len, frames)) == limits.frame_bytes
    assert isinstance(decode(frames, limits), Rollouts)
    longer = rollouts((horizon, horizon, horizon, horizon + 8), side=33)
    with pytest.raises(WireError, match="size"):
        decode(encode(replace(longer, stages=longer.stages[:1] * stages)), limits)
