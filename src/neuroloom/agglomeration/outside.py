"""Where regions end that touch no other: at voxels without region, and at the border of the volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from neuroloom.graph.tables import Outside


def outside_faces(
    ids: NDArray[np.uint64], numbers: NDArray[np.uint32], borders: Sequence[tuple[bool, bool]] = ((True, True),) * 3
) -> Outside:
    """How many faces each region has to voxels without region, and to the outside of its volume.

    Args:
        ids: `(n,)`, what regions 1 … n are called, ascending.
        numbers: `(z, y, x)`, regions, 0 = none.
        borders: For z, y, x, whether the array's first and its last voxels are the volume's.

    Returns:
        One row per region that has any, sorted by id.
    """
    faces = _outside(numbers, len(ids), np.array(borders, dtype=np.bool_))
    return Outside(ids, faces).select(faces > 0)


@numba.njit(cache=True)
def _outside(numbers: Any, count: int, borders: Any) -> Any:
    faces = np.zeros(count + 1, dtype=np.int64)  # the first counts those of voxels without region, and is dropped
    depth, height, width = numbers.shape
    has_none = np.zeros((depth, height), dtype=np.bool_)  # rows in which voxels are without region: few, mostly
    for z in range(depth):
        for y in range(height):
            without = 0
            for x in range(width):
                without += numbers[z, y, x] == 0
            has_none[z, y] = without > 0
    for z in range(depth):
        for y in range(height):
            for axis, side in ((0, 0), (0, 1), (1, 0), (1, 1)):
                beside_z, beside_y = (z + 2 * side - 1, y) if axis == 0 else (z, y + 2 * side - 1)
                if not (0 <= beside_z < depth and 0 <= beside_y < height):
                    if borders[axis, side]:
                        for x in range(width):
                            faces[numbers[z, y, x]] += 1
                elif has_none[beside_z, beside_y]:
                    for x in range(width):
                        if numbers[beside_z, beside_y, x] == 0:
                            faces[numbers[z, y, x]] += 1
            if width:
                faces[numbers[z, y, 0]] += borders[2, 0]
                faces[numbers[z, y, width - 1]] += borders[2, 1]
            if has_none[z, y]:
                for x in range(1, width):
                    if numbers[z, y, x - 1] == 0:
                        faces[numbers[z, y, x]] += 1
                    if numbers[z, y, x] == 0:
                        faces[numbers[z, y, x - 1]] += 1
    return faces[1:]
