"""Squared Euclidean distance to the nearest voxel outside, in whole numbers, one axis after the other.

    x:  g(x) = distance to the nearest outside voxel of the row, squared
    y:  h(y) = min over k of  g(y + k) + k²          k = 0, ±1, ±2, … until k² is below nothing in the row
    z:  the same of h

The search over k costs as many steps as the largest distance, which is some ten voxels in neuropil; whole rows are
compared at once. The sum of two squares is exact, so the result is that of every other exact method.

16 bits are enough up to 181 voxels, and twice as fast as 32: what is farther is cut, and cut values win nowhere but
where the result is cut as well, so that it shows.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

_FAR = 2**29
_NEAR = 2**15 - 1
"""What 16 bits hold with as much again on top."""


def squared_distance(inside: NDArray[np.bool_]) -> NDArray[Any]:
    """Squared distance, in voxels, to the nearest voxel that is not inside; the volume's border is not one.

    Args:
        inside: `(z, y, x)`, up to 16,000 voxels along each axis.

    Returns:
        `(z, y, x)`, uint16 or uint32; 1 everywhere if there is no voxel to measure from.

    Example:
        >>> squared_distance(np.array([[[True, True, False, True]]]))
        array([[[4, 1, 0, 1]]], dtype=uint16)
    """
    if inside.size == 0 or inside.all():
        return np.ones(inside.shape, dtype=np.uint16)
    squared = _measured(inside, np.empty(inside.shape, dtype=np.uint16), _NEAR)
    if squared.max() < _NEAR:
        return squared
    squared = _measured(inside, np.empty(inside.shape, dtype=np.int32), _FAR)
    return squared.astype(np.uint16 if squared.max() < 2**16 else np.uint32)


def _measured(inside: NDArray[np.bool_], result: NDArray[Any], far: int) -> NDArray[Any]:
    """Squared distances, those from `far` on cut; `result` is written over."""
    depth, height, width = inside.shape
    _along_rows(np.ascontiguousarray(inside), result, far)
    squared = _across_rows(result.reshape(depth, height, 1, width))
    return _across_rows(squared.reshape(1, depth, height, width)).reshape(inside.shape)


@numba.njit(cache=True)
def _along_rows(inside: Any, result: Any, far: int) -> None:
    length = inside.shape[2]
    nearest = np.empty(length, dtype=np.int64)
    longest = np.int64(np.sqrt(far)) + 1
    for z in range(inside.shape[0]):
        for y in range(inside.shape[1]):
            steps: Any = longest
            for x in range(length):
                steps = min(steps + 1, longest) if inside[z, y, x] else 0
                nearest[x] = steps
            steps = longest
            for x in range(length - 1, -1, -1):
                steps = min(steps + 1, longest) if inside[z, y, x] else 0
                either = min(steps, nearest[x])
                result[z, y, x] = min(either * either, far)


@numba.njit(cache=True)
def _across_rows(values: Any) -> Any:
    """Lower envelope along the second of four axes; rows along the last."""
    result = np.empty_like(values)
    before, rows, between, length = values.shape
    line = np.empty(length, dtype=values.dtype)
    for i in range(before):
        for row in range(rows):
            for j in range(between):
                line[:] = values[i, row, j]
                k = 1
                while k * k < _largest(line) and (row >= k or row + k < rows):
                    if row >= k:
                        _lower(line, values[i, row - k, j], values.dtype.type(k * k))
                    if row + k < rows:
                        _lower(line, values[i, row + k, j], values.dtype.type(k * k))
                    k += 1
                result[i, row, j] = line
    return result


@numba.njit(cache=True)
def _lower(line: Any, other: Any, add: Any) -> None:
    for x in range(len(line)):
        line[x] = min(line[x], line.dtype.type(other[x] + add))


@numba.njit(cache=True)
def _largest(line: Any) -> Any:
    largest = line[0]
    for x in range(len(line)):
        largest = max(largest, line[x])
    return largest
