"""Which regions touch, and the affinities across their contacts.

a a b        Two voxels on either side of a face that carry different labels make one unit of contact of the two
a a b        regions; its affinity is that of the later voxel, in the channel of the axis: here a-b has two (along x),
c c c        a-c two and b-c one (along y).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

GREY = 256
"""Affinities that are told apart."""


@dataclass(frozen=True)
class Contacts:
    """One row per pair of touching regions, sorted by u, then v.

    Attributes:
        u: `(n,)`, the smaller label.
        v: `(n,)`, the larger label.
        faces: `(n, 256)`, how many faces between them have which affinity, 0 … 255.
        area: `(n,)`, faces between them.
        total: `(n,)`, sum of their affinities, 255 = 1.
    """

    u: NDArray[np.uint32]
    v: NDArray[np.uint32]
    faces: NDArray[np.int32]
    area: NDArray[np.int64]
    total: NDArray[np.int64]


def find_contacts(affinities: NDArray[np.uint8], numbers: NDArray[np.uint32]) -> Contacts:
    """Find all pairs of touching regions.

    Args:
        affinities: `(3, z, y, x)`, 255 = 1; channel c at v tells of v and its neighbour before along axis c.
        numbers: `(z, y, x)`, regions, 0 = none.
    """
    keys, of_face, grey = _faces(affinities, numbers)
    order = np.argsort(keys)
    place = np.empty(len(keys), dtype=np.uint32)
    place[order] = np.arange(len(keys), dtype=np.uint32)
    keys = keys[order]
    u = (keys >> np.uint64(32)).astype(np.uint32)
    v = (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return Contacts(u, v, *_count(place, of_face, grey))


@numba.njit(cache=True)
def _count(place: Any, of_face: Any, grey: Any) -> Any:
    faces = np.zeros((len(place), 256), dtype=np.int32)
    area, total = np.zeros(len(place), dtype=np.int64), np.zeros(len(place), dtype=np.int64)
    for i in range(len(of_face)):
        pair = place[of_face[i]]
        faces[pair, grey[i]] += 1
        area[pair] += 1
        total[pair] += grey[i]
    return faces, area, total


@numba.njit(cache=True)
def pair_key(a: Any, b: Any) -> Any:
    """Two different regions as one number, whichever comes first; never 0."""
    return (np.uint64(min(a, b)) << np.uint64(32)) | np.uint64(max(a, b))


@numba.njit(cache=True)
def find_slot(keys: Any, key: Any) -> Any:
    """Where a key lies in a table with open addressing, or the empty place where it belongs."""
    wrap = np.uint64(len(keys) - 1)
    spread = key * np.uint64(0x9E3779B97F4A7C15)
    slot = (spread ^ (spread >> np.uint64(32))) & wrap
    while keys[slot] != 0 and keys[slot] != key:
        slot = (slot + np.uint64(1)) & wrap
    return slot


@numba.njit(cache=True)
def _borders(row: Any, before: Any, places: Any) -> Any:
    """Where two rows have different regions; how many places there are. Without a branch: most voxels have none."""
    count = np.int64(0)
    for x in range(len(row)):
        places[count] = x
        count += np.int64((row[x] != before[x]) & (row[x] != 0) & (before[x] != 0))
    return count


@numba.njit(cache=True)
def _faces(affinities: Any, numbers: Any) -> Any:
    """Pairs as they are met, each as one number; and for every face between regions its pair and its affinity."""
    table = np.zeros(4096, dtype=np.uint64)
    pair_in = np.zeros(4096, dtype=np.uint32)
    keys = np.empty(2048, dtype=np.uint64)
    of_face = np.empty(1 << 16, dtype=np.uint32)
    grey = np.empty(1 << 16, dtype=np.uint8)
    pairs, faces = 0, 0
    last, pair = np.uint64(0), np.uint32(0)
    depth, height, width = numbers.shape
    places = np.empty(width + 1, dtype=np.int64)
    for axis in range(3):
        dz, dy, dx = np.int64(axis == 0), np.int64(axis == 1), np.int64(axis == 2)
        for z in range(dz, depth):
            for y in range(dy, height):
                while faces + width > len(of_face):  # room for a row
                    more = np.empty(2 * len(of_face), dtype=np.uint32)
                    more[:faces] = of_face[:faces]
                    of_face = more
                    more_grey = np.empty(2 * len(grey), dtype=np.uint8)
                    more_grey[:faces] = grey[:faces]
                    grey = more_grey
                row, row_before = numbers[z, y, dx:], numbers[z - dz, y - dy, : width - dx]
                row_affinities = affinities[axis, z, y, dx:]
                for i in range(_borders(row, row_before, places)):
                    x = places[i]
                    here, before = row[x], row_before[x]
                    key = pair_key(here, before)
                    if key != last:
                        last = key
                        slot = find_slot(table, key)
                        if table[slot] == 0:
                            if pairs == len(keys):
                                more_keys = np.empty(2 * len(keys), dtype=np.uint64)
                                more_keys[:pairs] = keys
                                keys = more_keys
                                table = np.zeros(2 * len(table), dtype=np.uint64)
                                pair_in = np.zeros(len(table), dtype=np.uint32)
                                for known in range(pairs):
                                    moved = find_slot(table, keys[known])
                                    table[moved] = keys[known]
                                    pair_in[moved] = known
                                slot = find_slot(table, key)
                            table[slot] = key
                            pair_in[slot] = pairs
                            keys[pairs] = key
                            pairs += 1
                        pair = pair_in[slot]
                    of_face[faces] = pair
                    grey[faces] = row_affinities[x]
                    faces += 1
    return keys[:pairs], of_face[:faces], grey[:faces]
