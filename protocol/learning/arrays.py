"""Operations that numpy arrays and torch tensors do not call by the same name. Actors have no torch, nor has this file.

Arrays have a row for each of a few things, for the most part moves, and a column for each of many.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from protocol.learning import exact

Array = Any  # a numpy array or a torch tensor


def is_torch(array: Array) -> bool:
    """Says whether an array is a tensor: only a process that has imported torch can have one."""
    return not isinstance(array, np.ndarray)


def like(array: np.ndarray[Any, Any], other: Array) -> Array:
    """Turns `array` into what `other` is, on the same device; real numbers get the same precision."""
    real = array.dtype.kind == "f"
    if not is_torch(other):
        return array.astype(other.dtype, copy=False) if real else array
    torch = sys.modules["torch"]
    return torch.as_tensor(array, device=other.device, dtype=other.dtype if real else None)


def take(table: Array, column: Array) -> Array:
    """Returns columns of a table [rows, columns], with a gradient that is as fast as that of a flat table."""
    if not is_torch(table):
        return table.take(column, axis=1)
    rows, columns = table.shape
    if rows == 1:
        return table[0].index_select(0, column)[None]
    torch = sys.modules["torch"]
    first = torch.arange(0, rows * columns, columns, device=column.device)[:, None]
    return table.flatten().index_select(0, (first + column).flatten()).view(rows, len(column))


def pick(table: Array, column: Array) -> Array:
    """Returns columns of a table that has few, each of which is wanted many times.

    Its gradient is a product: adding thousands of numbers in one place, one after another, is what a GPU is worst at.
    """
    if not is_torch(table):
        return table.take(column, axis=1)
    torch = sys.modules["torch"]
    each = torch.arange(table.shape[1], device=column.device)[:, None]
    return table @ (each == column).to(table.dtype)


def turned(array: Array) -> Array:
    """Turns rows into columns, and puts the values of each new row side by side in memory."""
    return array.T.contiguous() if is_torch(array) else np.ascontiguousarray(array.T)


def sum_by(value: Array, group: Array, groups: int) -> Array:
    """Adds up the values of each row by group: [rows, groups]. `group`: the group of each column."""
    rows = value.shape[0]
    if not is_torch(value):
        sums = [np.bincount(group, row, groups) for row in value]
        return np.stack(sums).astype(value.dtype)
    if rows == 1:
        return value.new_zeros(groups).index_add(0, group, value[0])[None]
    torch = sys.modules["torch"]
    place = torch.arange(0, rows * groups, groups, device=group.device)[:, None] + group
    return value.new_zeros(rows * groups).index_add(0, place.flatten(), value.flatten()).view(rows, groups)


def exp(array: Array) -> Array:
    """Computes e^x, element by element."""
    return array.exp() if is_torch(array) else exact.exp(array)


def product(left: Array, right: Array) -> Array:
    """Computes the matrix product of arrays whose last two dimensions are the rows and the columns."""
    return left @ right if is_torch(left) else exact.product(left, right)


def relu(array: Array) -> Array:
    """Computes max(x, 0), element by element."""
    return array.relu() if is_torch(array) else np.maximum(array, 0)


def thirds(array: Array) -> Array:
    """Cuts the columns of an array into three parts of one width, with a gradient that puts them together again."""
    return array.chunk(3, 1) if is_torch(array) else np.split(array, 3, axis=1)


def sigmoid(array: Array) -> Array:
    """Computes 1 / (1 + e^-x), element by element."""
    if is_torch(array):
        return array.sigmoid()
    small = exact.exp(-np.abs(array))  # no power of e that is beyond all numbers
    return np.where(array >= 0, 1, small) / (1 + small)


def tanh(array: Array) -> Array:
    """Computes the hyperbolic tangent, element by element."""
    return array.tanh() if is_torch(array) else 2 * sigmoid(2 * array) - 1


def least(array: Array) -> Array:
    """Returns the smallest value of each column."""
    return array.amin(0) if is_torch(array) else array.min(axis=0)


def log_softmax(logit: Array) -> Array:
    """Computes the logarithm of exp(logit) over its sum in each column."""
    if is_torch(logit):
        return logit.log_softmax(0)
    shifted = logit - logit.max(axis=0)
    shifted -= exact.log(exact.total(exact.exp(shifted)))
    return shifted


def fixed(array: Array) -> Array:
    """Returns the same values, through which no gradient flows."""
    return array.detach() if is_torch(array) else array
