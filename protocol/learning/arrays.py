"""What numpy arrays and torch tensors do not call by the same name. Actors have no torch; none is imported here."""

# N rows, G groups, A moves

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from protocol.learning import exact

Array = Any  # a numpy array or a torch tensor


def is_torch(array: Array) -> bool:
    """Whether it is a tensor: only who has imported torch can have one."""
    return not isinstance(array, np.ndarray)


def like(array: np.ndarray[Any, Any], other: Array) -> Array:
    """`array` as what `other` is: a numpy array, or a tensor on the same device; real numbers in the same precision."""
    real = array.dtype.kind == "f"
    if not is_torch(other):
        return array.astype(other.dtype, copy=False) if real else array
    torch = sys.modules["torch"]
    return torch.as_tensor(array, device=other.device, dtype=other.dtype if real else None)


def take(table_AG: Array, row_N: Array) -> Array:
    """[A, N] the columns `row_N` of a table, with a gradient that is as fast as one of a flat table."""
    if not is_torch(table_AG):
        return table_AG.take(row_N, axis=1)
    moves, groups = table_AG.shape
    if moves == 1:
        return table_AG[0].index_select(0, row_N)[None]
    torch = sys.modules["torch"]
    first_A1 = torch.arange(0, moves * groups, groups, device=row_N.device)[:, None]
    return table_AG.flatten().index_select(0, (first_A1 + row_N).flatten()).view(moves, len(row_N))


def pick(table_DG: Array, column_N: Array) -> Array:
    """[D, N] columns of a table of few, each of which is wanted many times.

    Its gradient is a product: adding thousands of numbers in one place, one after another, is what a GPU is worst at.
    """
    if not is_torch(table_DG):
        return table_DG.take(column_N, axis=1)
    torch = sys.modules["torch"]
    each_G1 = torch.arange(table_DG.shape[1], device=column_N.device)[:, None]
    return table_DG @ (each_G1 == column_N).to(table_DG.dtype)


def turned(array_NA: Array) -> Array:
    """[A, N] with the values of each row side by side in memory."""
    return array_NA.T.contiguous() if is_torch(array_NA) else np.ascontiguousarray(array_NA.T)


def sum_by(value_AN: Array, group_N: Array, groups: int) -> Array:
    """[A, G] for each row the sum of its values over each group."""
    moves = value_AN.shape[0]
    if not is_torch(value_AN):
        sums = [np.bincount(group_N, value_N, groups) for value_N in value_AN]
        return np.stack(sums).astype(value_AN.dtype)
    if moves == 1:
        return value_AN.new_zeros(groups).index_add(0, group_N, value_AN[0])[None]
    torch = sys.modules["torch"]
    place_AN = torch.arange(0, moves * groups, groups, device=group_N.device)[:, None] + group_N
    return value_AN.new_zeros(moves * groups).index_add(0, place_AN.flatten(), value_AN.flatten()).view(moves, groups)


def exp(array: Array) -> Array:
    """e^x, element by element."""
    return array.exp() if is_torch(array) else exact.exp(array)


def product(left: Array, right: Array) -> Array:
    """[..., R, C] the matrix product of [..., R, F] and [..., F, C]."""
    return left @ right if is_torch(left) else exact.product(left, right)


def relu(array: Array) -> Array:
    """max(x, 0), element by element."""
    return array.relu() if is_torch(array) else np.maximum(array, 0)


def least(array_AN: Array) -> Array:
    """[N] the smallest value of each column."""
    return array_AN.amin(0) if is_torch(array_AN) else array_AN.min(axis=0)


def log_softmax(logit_AN: Array) -> Array:
    """[A, N] log of exp(logit) over its sum along the first axis."""
    if is_torch(logit_AN):
        return logit_AN.log_softmax(0)
    shifted = logit_AN - logit_AN.max(axis=0)
    shifted -= exact.log(exact.total(exact.exp(shifted)))
    return shifted


def fixed(array: Array) -> Array:
    """The same values, through which no gradient flows."""
    return array.detach() if is_torch(array) else array
