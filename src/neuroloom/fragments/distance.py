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
_NOWHERE = np.int32(2**15)
"""Voxels; farther than anything in a row."""
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
    length = np.int32(inside.shape[2])
    most = np.int32(far)
    for z in range(inside.shape[0]):
        for y in range(inside.shape[1]):
            row, squared = inside[z, y], result[z, y]
            begin = np.int32(0)
            while begin < length:
                end = begin
                while end < length and row[end] == row[begin]:
                    end += np.int32(1)
                if not row[begin] or end - begin == length:
                    squared[begin:end] = most if row[begin] else 0
                else:
                    # to the voxel before the run and to the one behind it; beyond the volume there is none
                    before = begin - np.int32(1) if begin > 0 else -_NOWHERE
                    behind = end if end < length else _NOWHERE
                    for x in range(begin, end):
                        steps = min(x - before, behind - x)
                        squared[x] = min(steps * steps, most)
                begin = end


@numba.njit(cache=True)
def _across_rows(values: Any) -> Any:
    """Lower envelope along the second of four axes; rows along the last."""
    result = np.empty_like(values)
    before, rows, between, length = values.shape
    zero = values.dtype.type(0)
    # written out, without slices and functions: a row takes some ten nanoseconds, as long as making a slice
    for i in range(before):
        for row in range(rows):
            for j in range(between):
                largest = zero
                for x in range(length):
                    result[i, row, j, x] = values[i, row, j, x]
                    largest = max(largest, values[i, row, j, x])
                k = 1
                while k * k < largest and (row >= k or row + k < rows):
                    # beyond the volume there is nothing: the row on the other side counts twice
                    one = row - k if row >= k else row + k
                    other = row + k if row + k < rows else row - k
                    add = values.dtype.type(k * k)
                    largest = zero
                    for x in range(length):
                        lower = values.dtype.type(min(values[i, one, j, x], values[i, other, j, x]) + add)
                        lower = min(result[i, row, j, x], lower)
                        result[i, row, j, x] = lower
                        largest = max(largest, lower)
                    k += 1
    return result
