"""Machine code of `learning/exact.py`, and of the random numbers of `learning/play.py`."""

from __future__ import annotations

import math

import numpy as np

from protocol.compiled import Numbers, machine_code
from protocol.learning.exact import ATANH, LEAST, LN2_HIGH, LN2_LOW, LOG2_E, MOST, ROOT_HALF, TAYLOR

MOST_POWER = 1020
POWER_OF_2 = 2.0 ** np.arange(-MOST_POWER, MOST_POWER + 1)


@machine_code
def exp_of(x: float) -> float:
    """Computes e^x of one number."""
    if math.isnan(x):
        return x  # what follows would look it up beyond all memory
    x = min(max(x, LEAST), MOST)
    power = np.floor(x * LOG2_E + 0.5)
    rest = (x - power * LN2_HIGH) - power * LN2_LOW
    result = TAYLOR[0] * rest + TAYLOR[1]
    result = result * rest + TAYLOR[2]
    result = result * rest + TAYLOR[3]
    result = result * rest + TAYLOR[4]
    result = result * rest + TAYLOR[5]
    result = result * rest + TAYLOR[6]
    result = result * rest + TAYLOR[7]
    result = result * rest + TAYLOR[8]
    result = result * rest + TAYLOR[9]
    result = result * rest + TAYLOR[10]
    result = result * rest + TAYLOR[11]
    result = result * rest + TAYLOR[12]
    result = result * rest + TAYLOR[13]
    return result * POWER_OF_2[int(power) + MOST_POWER]  # type: ignore[no-any-return]


@machine_code
def exp_all(x: Numbers, result: Numbers) -> None:
    """Fills `result` with e^x of `x`, which is as long."""
    for row in range(len(x)):
        result[row] = exp_of(float(x[row]))


@machine_code
def log_of(x: float) -> float:
    """Computes the logarithm of one number."""
    share, power = math.frexp(x)
    if share < ROOT_HALF:
        share, power = 2 * share, power - 1
    ratio = (share - 1) / (share + 1)
    square = ratio * ratio
    each = ATANH[0]
    for term in ATANH[1:]:
        each = each * square + term
    each = each * ratio
    return power * LN2_HIGH + (each + power * LN2_LOW)


@machine_code
def log_all(x: Numbers, result: Numbers) -> None:
    """Fills `result` with the logarithms of `x`, which is as long."""
    for row in range(len(x)):
        result[row] = log_of(float(x[row]))


@machine_code
def product(left: Numbers, right: Numbers, result: Numbers) -> None:
    """Fills `result` [rows, columns] with the product of [rows, terms] and [terms, columns]."""
    for row in range(left.shape[0]):
        for column in range(right.shape[1]):
            result[row, column] = left[row, 0] * right[0, column]
        for term in range(1, left.shape[1]):
            value = left[row, term]
            for column in range(right.shape[1]):
                result[row, column] += value * right[term, column]


@machine_code
def uniform(key: np.uint64, time: int) -> float:
    """Computes the random number of one attempt at one time."""
    x = key + np.uint64(time) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return float((x ^ (x >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
