"""Which regions touch, over how many faces, and with what affinity between them.

a a b        Two voxels on either side of a face that carry different labels make one unit of contact of the two
a a b        regions; its affinity is that of the later voxel, in the channel of the axis: here a-b has contact
c c c        area 2 (along x), a-c 2 and b-c 1 (along y).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from neuroloom.fragments.labels import compact
from neuroloom.graph.tables import Outside


@dataclass(frozen=True)
class RegionGraph:
    """One row per pair of touching regions, sorted by u, then v.

    Attributes:
        u: `(n,)`, the smaller label.
        v: `(n,)`, the larger label.
        contact_area: `(n,)`, faces between them.
        mean_affinity: `(n,)`, mean over these faces, 0 … 1.
    """

    u: NDArray[Any]
    v: NDArray[Any]
    contact_area: NDArray[np.int64]
    mean_affinity: NDArray[np.float32]


def region_graph(affinities: NDArray[np.uint8], numbers: NDArray[np.uint32]) -> RegionGraph:
    """Find all pairs of touching regions.

    Args:
        affinities: `(3, z, y, x)`, 255 = 1; channel c at v tells of v and its neighbour before along axis c.
        numbers: `(z, y, x)`, regions, 0 = none.
    """
    keys, area, total = _contacts(affinities, numbers)
    order = np.argsort(keys)
    keys, area, total = keys[order], area[order], total[order]
    u = (keys >> np.uint64(32)).astype(np.uint32)
    v = (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return RegionGraph(u, v, area, (total / (255 * area)).astype(np.float32))


def outside_faces(fragments: NDArray[np.uint64], borders: Sequence[tuple[bool, bool]] = ((True, True),) * 3) -> Outside:
    """How many faces each region has to voxels without region, and to the outside of its volume.

    Args:
        fragments: `(z, y, x)`, any ids, 0 = none.
        borders: For z, y, x, whether the array's first and its last voxels are the volume's.

    Returns:
        One row per region that has any, sorted by id.
    """
    ids, numbers = compact(fragments)
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


@numba.njit(cache=True)
def _slot(keys: Any, key: Any) -> Any:
    """Where a key lies in a table with open addressing, or the empty place where it belongs."""
    wrap = np.uint64(len(keys) - 1)
    spread = key * np.uint64(0x9E3779B97F4A7C15)
    slot = (spread ^ (spread >> np.uint64(32))) & wrap
    while keys[slot] != 0 and keys[slot] != key:
        slot = (slot + np.uint64(1)) & wrap
    return slot


@numba.njit(cache=True)
def _contacts(affinities: Any, numbers: Any) -> Any:
    keys = np.zeros(4096, dtype=np.uint64)
    area = np.zeros(4096, dtype=np.int64)
    total = np.zeros(4096, dtype=np.int64)
    count = 0
    last = np.uint64(0)
    slot = np.uint64(0)
    for axis in range(3):
        dz, dy, dx = np.int64(axis == 0), np.int64(axis == 1), np.int64(axis == 2)
        for z in range(dz, numbers.shape[0]):
            for y in range(dy, numbers.shape[1]):
                for x in range(dx, numbers.shape[2]):
                    here = np.uint64(numbers[z, y, x])
                    before = np.uint64(numbers[z - dz, y - dy, x - dx])
                    if here == before or here == 0 or before == 0:
                        continue
                    key = (min(here, before) << np.uint64(32)) | max(here, before)
                    if key != last:
                        last = key
                        slot = _slot(keys, key)
                        if keys[slot] == 0:
                            if 2 * count >= len(keys):
                                old_keys, old_area, old_total = keys, area, total
                                keys = np.zeros(2 * len(old_keys), dtype=np.uint64)
                                area = np.zeros(len(keys), dtype=np.int64)
                                total = np.zeros(len(keys), dtype=np.int64)
                                for i in range(len(old_keys)):
                                    if old_keys[i] != 0:
                                        moved = _slot(keys, old_keys[i])
                                        keys[moved] = old_keys[i]
                                        area[moved] = old_area[i]
                                        total[moved] = old_total[i]
                                slot = _slot(keys, key)
                            keys[slot] = key
                            count += 1
                    area[slot] += 1
                    total[slot] += affinities[axis, z, y, x]
    used = keys != 0
    return keys[used], area[used], total[used]
