"""Machine code of `learning/recurrent.py`."""

# W walkers, H hidden units, Z gates: three for each hidden unit

from __future__ import annotations

import numpy as np

from protocol.compiled import Numbers, machine_code
from protocol.compiled.exact import exp_of


@machine_code
def sigmoid_of(x: np.float32) -> np.float32:
    """Computes 1 / (1 + e^-x) of one number."""
    one = np.float32(1)
    small = np.float32(exp_of(float(-abs(x))))
    return (one if x >= 0 else small) / (one + small)


@machine_code
def advance(fed_WZ: Numbers, state_WH: Numbers, again_HZ: Numbers, next_WH: Numbers) -> None:
    """Fills `next_WH` with the state after `state_WH`."""
    walkers, units = state_WH.shape
    again_Z = np.empty(3 * units, np.float32)
    one, two = np.float32(1), np.float32(2)
    for walker in range(walkers):
        for gate in range(3 * units):
            again_Z[gate] = state_WH[walker, 0] * again_HZ[0, gate]
        for unit in range(1, units):
            state = state_WH[walker, unit]
            for gate in range(3 * units):
                again_Z[gate] += state * again_HZ[unit, gate]
        for unit in range(units):
            state = state_WH[walker, unit]
            reset = sigmoid_of(fed_WZ[walker, unit] + again_Z[unit])
            keep = sigmoid_of(fed_WZ[walker, units + unit] + again_Z[units + unit])
            new = fed_WZ[walker, 2 * units + unit] + reset * again_Z[2 * units + unit]
            new = two * sigmoid_of(two * new) - one
            next_WH[walker, unit] = new + keep * (state - new)
