"""What is known of every fragment: size, centre, bounding box, mean affinity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FragmentStatistics:
    """One row per fragment 1 … n, in voxels of the array they were measured in.

    Attributes:
        size: `(n,)`, voxels; 0 for a number that does not occur.
        centre: `(n, 3)`, centre of mass z, y, x: voxel k spans [k, k + 1], so its centre is k + 0.5.
        begin: `(n, 3)`, first voxel of the bounding box.
        end: `(n, 3)`, one past its last voxel.
        mean_affinity: `(n,)`, mean over voxels and channels, 0 … 1.
    """

    size: NDArray[np.int64]
    centre: NDArray[np.float64]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    mean_affinity: NDArray[np.float32]


def statistics(affinities: NDArray[np.uint8], numbers: NDArray[np.uint32]) -> FragmentStatistics:
    """Measure every fragment in one pass.

    Args:
        affinities: `(3, z, y, x)`, 255 = 1.
        numbers: `(z, y, x)`, fragments 1 … n, 0 = none.
    """
    count = int(numbers.max(initial=0))
    size, total, begin, end, affinity = _measure(affinities, numbers, count)
    occupied = np.maximum(size, 1)
    centre = total / occupied[:, None] + 0.5
    mean = (affinity / (occupied * (255 * affinities.shape[0]))).astype(np.float32)
    return FragmentStatistics(size, centre, begin, end, mean)


@numba.njit(cache=True)
def _measure(affinities: Any, numbers: Any, count: int) -> Any:
    size = np.zeros(count, dtype=np.int64)
    total = np.zeros((count, 3), dtype=np.int64)
    begin = np.full((count, 3), np.iinfo(np.int64).max, dtype=np.int64)
    end = np.zeros((count, 3), dtype=np.int64)
    affinity = np.zeros(count, dtype=np.int64)
    for z in range(numbers.shape[0]):
        for y in range(numbers.shape[1]):
            for x in range(numbers.shape[2]):
                if numbers[z, y, x] == 0:
                    continue
                i = np.int64(numbers[z, y, x]) - 1
                size[i] += 1
                total[i, 0] += z
                total[i, 1] += y
                total[i, 2] += x
                begin[i, 0] = min(begin[i, 0], z)
                begin[i, 1] = min(begin[i, 1], y)
                begin[i, 2] = min(begin[i, 2], x)
                end[i, 0] = max(end[i, 0], z + 1)
                end[i, 1] = max(end[i, 1], y + 1)
                end[i, 2] = max(end[i, 2], x + 1)
                for channel in range(affinities.shape[0]):
                    affinity[i] += affinities[channel, z, y, x]
    return size, total, begin, end, affinity
