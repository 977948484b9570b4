"""What is known of every fragment: size, centre, bounding box, mean affinity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from neuroloom.fragments.runs import Runs


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


def statistics(affinities: NDArray[np.uint8], runs: Runs, begin: Sequence[int] = (0, 0, 0)) -> FragmentStatistics:
    """Measure every fragment in one pass.

    Args:
        affinities: `(c, z, y, x)`, 255 = 1.
        runs: Fragments 1 … n, 0 = none.
        begin: Where the runs' first voxel lies in `affinities`.
    """
    count = int(runs.label.max(initial=0))
    place = np.array(begin, dtype=np.int64)
    size, total, first, end, affinity = _measure(
        np.ascontiguousarray(affinities), place, np.array(runs.shape), runs.first, runs.begin, runs.label, count
    )
    occupied = np.maximum(size, 1)
    centre = total / 2 / occupied[:, None] + 0.5
    mean = (affinity / (occupied * (255 * affinities.shape[0]))).astype(np.float32)
    return FragmentStatistics(size, centre, first, end, mean)


@numba.njit(cache=True)
def _measure(affinities: Any, place: Any, shape: Any, rows: Any, begins: Any, labels: Any, count: int) -> Any:
    size = np.zeros(count, dtype=np.int64)
    total = np.zeros((count, 3), dtype=np.int64)  # twice the sum of places: whole numbers, for a run as well
    begin = np.full((count, 3), np.iinfo(np.int64).max, dtype=np.int64)
    end = np.zeros((count, 3), dtype=np.int64)
    affinity = np.zeros(count, dtype=np.int64)
    sums = np.zeros(shape[2] + 1, dtype=np.int32)  # of affinities of a row, up to each voxel
    values = np.zeros(shape[2], dtype=np.int32)
    for row in range(len(rows) - 1):
        z, y = row // shape[1], row % shape[1]
        values[:] = 0
        for channel in range(affinities.shape[0]):
            line = affinities[channel, place[0] + z, place[1] + y, place[2] :]
            for x in range(len(values)):
                values[x] += line[x]
        so_far = np.int32(0)
        for x in range(len(values)):
            so_far += values[x]
            sums[x + 1] = so_far
        for run in range(rows[row], rows[row + 1]):
            if labels[run] == 0:
                continue
            i = np.int64(labels[run]) - 1
            start = np.int64(begins[run])
            behind = np.int64(begins[run + 1] if run + 1 < rows[row + 1] else shape[2])
            length = behind - start
            size[i] += length
            total[i, 0] += 2 * z * length
            total[i, 1] += 2 * y * length
            total[i, 2] += (start + behind - 1) * length
            begin[i, 0] = min(begin[i, 0], z)
            begin[i, 1] = min(begin[i, 1], y)
            begin[i, 2] = min(begin[i, 2], start)
            end[i, 0] = max(end[i, 0], z + 1)
            end[i, 1] = max(end[i, 1], y + 1)
            end[i, 2] = max(end[i, 2], behind)
            affinity[i] += sums[behind] - sums[start]
    return size, total, begin, end, affinity
