"""Largest value in a cube around every voxel, in steps that do not depend on the cube's size.

    max over 8 = max of two over 4, 4 = of two over 2, …      and 10 = of two over 8 that overlap:   |-- 8 --|
                                                                                                        |-- 8 --|

One axis after the other, whole rows at a time; along x and y plane by plane, so that all steps of a plane find it in
the processor's cache.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray


def maximum_filter(values: NDArray[Any], size: int) -> NDArray[Any]:
    """Largest value in a cube around every voxel: size // 2 voxels before it to (size - 1) // 2 behind.

    Args:
        values: `(z, y, x)`, at least 0; the cube is cut at the border.
        size: Extent of the cube, voxels, at least 1.

    Returns:
        As `values`.
    """
    result = np.empty(values.shape, dtype=values.dtype)
    _in_planes(np.ascontiguousarray(values), size, result)
    if values.shape[0] > 1:
        _across_planes(result, size)
    return result


@numba.njit(cache=True)
def _in_planes(values: Any, size: int, result: Any) -> None:
    """Along x and y."""
    depth, height, width = values.shape
    lines = np.zeros((2, width + 2 * size), dtype=values.dtype)
    rows = np.zeros((height + size, width), dtype=values.dtype)
    for z in range(depth):
        for y in range(height):
            line, other = lines[0], lines[1]
            line[:] = 0
            line[size // 2 : size // 2 + width] = values[z, y]
            span = 1
            while 2 * span <= size:
                _larger(line[: width + size], line[span : span + width + size], other[: width + size])
                line, other = other, line
                span *= 2
            _larger(line[:width], line[size - span : size - span + width], rows[size // 2 + y])
        span = _widen(rows, size)
        # loops are written out: a row takes some ten nanoseconds, as long as making a slice
        for y in range(height):
            for x in range(width):
                result[z, y, x] = max(rows[y, x], rows[y + size - span, x])
        rows[:] = 0


@numba.njit(cache=True)
def _across_planes(values: Any, size: int) -> None:
    """Along z, in place."""
    depth, height, width = values.shape
    rows = np.zeros((depth + size, width), dtype=values.dtype)
    for y in range(height):
        for z in range(depth):
            for x in range(width):
                rows[size // 2 + z, x] = values[z, y, x]
        span = _widen(rows, size)
        for z in range(depth):
            for x in range(width):
                values[z, y, x] = max(rows[z, x], rows[z + size - span, x])
        rows[:] = 0


@numba.njit(cache=True)
def _widen(rows: Any, size: int) -> int:
    """Each row becomes the maximum of itself and those behind it; of how many, half of `size` at least."""
    span = 1
    while 2 * span <= size:
        for row in range(len(rows) - span):
            for x in range(rows.shape[1]):
                rows[row, x] = max(rows[row, x], rows[row + span, x])
        span *= 2
    return span


@numba.njit(cache=True)
def _larger(one: Any, other: Any, result: Any) -> None:
    for x in range(len(result)):
        result[x] = max(one[x], other[x])
