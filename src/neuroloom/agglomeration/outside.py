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
    faces = np.zeros(count + 1, dtype=np.int64)
    shape = numbers.shape
    for z in range(shape[0]):
        for y in range(shape[1]):
            for x in range(shape[2]):
                here = numbers[z, y, x]
                if here == 0:
                    continue
                place = (z, y, x)
                for axis in range(3):
                    step_z, step_y, step_x = np.int64(axis == 0), np.int64(axis == 1), np.int64(axis == 2)
                    if place[axis] == 0:
                        faces[here] += borders[axis, 0]
                    elif numbers[z - step_z, y - step_y, x - step_x] == 0:
                        faces[here] += 1
                    if place[axis] == shape[axis] - 1:
                        faces[here] += borders[axis, 1]
                    elif numbers[z + step_z, y + step_y, x + step_x] == 0:
                        faces[here] += 1
    return faces[1:]
