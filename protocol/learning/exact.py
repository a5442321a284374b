"""Exponentials, logarithms, powers and products that have the same bits on every processor.

numpy's own choose their instructions by the processor, and their last bits differ from one to the next. These use
additions, multiplications and divisions alone, in an order that is written down, and IEEE 754 fixes each of them. An
actor computes with nothing else what its rollouts depend on, and so does the learner that computes them again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.compiled import compiled, plain

Real = npt.NDArray[Any]  # float32 or float64

LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # their sum is ln 2 to 84 bits
TAYLOR = tuple(1 / math.factorial(n) for n in range(13, -1, -1))  # e^x; 4e-18 is left out where |x| < ln(2) / 2
ATANH = tuple(2 / (2 * n + 1) for n in range(11, -1, -1))  # log((1 + s) / (1 - s)) / s in s^2; |s| < 0.18
ROOT_HALF = math.sqrt(0.5)
LEAST, MOST = -700.0, 700.0  # exponents within which no result is 0, denormal or infinite


def exp(x: Real) -> Real:
    """Computes e^x, element by element, in the precision of `x`; x beyond LEAST or MOST counts as these."""
    if machine := compiled("exact"):
        return _each(machine.exp_all, x)
    wide: Real = np.minimum(np.maximum(x.astype(np.float64), LEAST), MOST)
    power = np.floor(wide * LOG2_E + 0.5)
    rest: Real = (wide - power * LN2_HIGH) - power * LN2_LOW
    result: Real = np.full_like(rest, TAYLOR[0])
    for term in TAYLOR[1:]:
        result *= rest
        result += term
    result = np.ldexp(result, power.astype(np.int32))
    return result.astype(x.dtype)


def log(x: Real) -> Real:
    """Computes the natural logarithm of positive numbers, element by element, in the precision of `x`."""
    if machine := compiled("exact"):
        return _each(machine.log_all, x)
    share, power = np.frexp(x.astype(np.float64))  # 0.5 <= share < 1
    low = share < ROOT_HALF
    share, power = np.where(low, 2 * share, share), power - low
    ratio = (share - 1) / (share + 1)
    square = ratio * ratio
    result: Real = np.full_like(square, ATANH[0])
    for term in ATANH[1:]:
        result *= square
        result += term
    result *= ratio
    result = power * LN2_HIGH + (result + power * LN2_LOW)
    return result.astype(x.dtype)


def powers(base: float, count: int) -> Real:
    """Computes the powers of `base` from the 0th on, [count] in float64, each from the one before."""
    factors = np.full(count, base)
    factors[0] = 1.0
    result: Real = np.multiply.accumulate(factors)
    return result


def product(left: Real, right: Real) -> Real:
    """Computes the matrix product of [..., rows, terms] and [..., terms, columns], one term after another."""
    if left.ndim == 2 and (machine := compiled("exact")):
        result = np.empty((len(left), right.shape[1]), left.dtype)
        machine.product(plain(left), plain(right), result)
        return result
    result = left[..., :, :1] * right[..., :1, :]
    for term in range(1, left.shape[-1]):
        result += left[..., :, term, None] * right[..., term, None, :]
    return result


def total(value: Real) -> Real:
    """Adds up the first axis, row after row."""
    result: Real = value[0].copy()
    for row in value[1:]:
        result += row
    return result


def _each(function: Callable[[Real, Real], None], x: Real) -> Real:
    """Applies a compiled function to each element."""
    result = np.empty(x.shape, x.dtype)
    function(plain(x).reshape(-1), result.reshape(-1))
    return result
