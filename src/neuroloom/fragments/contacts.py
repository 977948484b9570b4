"""Which regions touch, where, and the affinities across their contacts.

a a b        Two voxels on either side of a face that carry different labels make one unit of contact of the two
a a b        regions; its affinity is that of the later voxel, in the channel of the axis: here a-b has two (along x),
c c c        a-c two and b-c one (along y).

Voxel k spans [k, k + 1], so a face lies at its later voxel's begin along its axis, and at its middle along the others.
Places are summed in half voxels: in whole numbers, so that a sum does not depend on the order of its terms.

Affinities may also be of voxels that are farther apart (`add_long_range`). Such a pair of voxels is one more
observation of the two regions in which they lie, whether these touch or not; it has neither area nor place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

GREY = 256
"""Affinities that are told apart."""
_NEAREST = -np.eye(3, dtype=np.int64)


@dataclass(frozen=True)
class Contacts:
    """One row per pair of touching regions, sorted by u, then v; rows of area 0 are of observed pairs that do not.

    Attributes:
        u: `(n,)`, the smaller label.
        v: `(n,)`, the larger label.
        faces: `(n, 256)`, how many faces between them, or observations, have which affinity, 0 … 255.
        area: `(n,)`, faces between them.
        total: `(n,)`, sum of the faces' affinities, 255 = 1.
        place: `(n, 3)`, sum of their middles z, y, x, in half voxels.
    """

    u: NDArray[np.uint32]
    v: NDArray[np.uint32]
    faces: NDArray[np.int32]
    area: NDArray[np.int64]
    total: NDArray[np.int64]
    place: NDArray[np.int64]


def find_contacts(affinities: NDArray[np.uint8], numbers: NDArray[np.uint32]) -> Contacts:
    """Find all pairs of touching regions.

    Args:
        affinities: `(3, z, y, x)`, 255 = 1; channel c at v tells of v and its neighbour before along axis c.
        numbers: `(z, y, x)`, regions, 0 = none.
    """
    keys, of_face, grey, sums = _faces(affinities, numbers, _NEAREST)
    order = np.argsort(keys)
    row = np.empty(len(keys), dtype=np.uint32)
    row[order] = np.arange(len(keys), dtype=np.uint32)
    keys = keys[order]
    sums = sums[order]
    faces = np.zeros((len(keys), GREY), dtype=np.int32)
    _count(faces, row, of_face, grey)
    return Contacts(*pairs_of(keys), faces, sums[:, 0].copy(), sums[:, 1].copy(), sums[:, 2:].copy())


def add_long_range(
    touching: Contacts, affinities: NDArray[np.uint8], numbers: NDArray[np.uint32], offsets: Sequence[Sequence[int]]
) -> Contacts:
    """Add what affinities between voxels farther apart say of regions.

    Args:
        touching: All pairs of regions that touch.
        affinities: `(c, z, y, x)`, 255 = 1; channel c at v tells of v and v + offsets[c].
        numbers: `(z, y, x)`, regions, 0 = none.
        offsets: One per channel, z y x.

    Returns:
        The same pairs with more observations in `faces`, and a row of area 0 for each other pair that was observed.
    """
    # pairs that are met first have the last rows, until all are known
    keys = pair_keys(touching.u, touching.v)
    faces = touching.faces
    for channel, offset in enumerate(offsets):
        met, of_face, grey, _ = _faces(affinities[channel : channel + 1], numbers, np.array([offset], np.int64))
        order = np.argsort(keys)
        place = np.searchsorted(keys, met, sorter=order)
        known = np.zeros(len(met), dtype=np.bool_)
        inside = place < len(keys)
        known[inside] = keys[order[place[inside]]] == met[inside]
        row = np.empty(len(met), dtype=np.uint32)
        row[known] = order[place[known]]
        row[~known] = np.arange(len(keys), len(keys) + np.count_nonzero(~known))
        keys = np.concatenate([keys, met[~known]])
        faces = np.concatenate([faces, np.zeros((len(keys) - len(faces), GREY), dtype=np.int32)])
        _count(faces, row, of_face, grey)
    order = np.argsort(keys)
    keys = keys[order]
    u, v = pairs_of(keys)
    more = len(keys) - len(touching.u)

    def sorted_(values: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.concatenate([values, np.zeros((more, *values.shape[1:]), dtype=np.int64)])[order]

    return Contacts(u, v, faces[order], sorted_(touching.area), sorted_(touching.total), sorted_(touching.place))


@dataclass(frozen=True)
class FarPairs:
    """One row per pair of regions that hold two voxels of an affinity, touching or not; sorted by u, then v.

    Attributes:
        u: `(n,)`, the smaller label.
        v: `(n,)`, the larger label.
        count: `(n,)`, such pairs of voxels.
        total: `(n,)`, sum of their affinities, 255 = 1.
    """

    u: NDArray[np.uint32]
    v: NDArray[np.uint32]
    count: NDArray[np.int64]
    total: NDArray[np.int64]


def find_far_pairs(
    affinities: NDArray[np.uint8], numbers: NDArray[np.uint32], offsets: Sequence[Sequence[int]]
) -> FarPairs:
    """Find what affinities between voxels that are no nearest neighbours are of.

    Args:
        affinities: `(c, z, y, x)`, 255 = 1; channel c at v tells of v and v + offsets[c].
        numbers: `(z, y, x)`, regions, 0 = none.
        offsets: One per channel, z y x.
    """
    keys, sums = np.empty(0, dtype=np.uint64), np.empty((0, 2), dtype=np.int64)
    for channel, offset in enumerate(offsets):
        met, _, _, more = _faces(affinities[channel : channel + 1], numbers, np.array([offset], np.int64))
        keys, row = np.unique(np.concatenate([keys, met]), return_inverse=True)
        terms, sums = np.concatenate([sums, more[:, :2]]), np.zeros((len(keys), 2), dtype=np.int64)
        np.add.at(sums, row, terms)
    return FarPairs(*pairs_of(keys), sums[:, 0].copy(), sums[:, 1].copy())


def pair_keys(u: NDArray[np.uint32], v: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Pairs of regions as numbers that sort by u, then v."""
    return (u.astype(np.uint64) << np.uint64(32)) | v


def pairs_of(keys: NDArray[np.uint64]) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """The pairs u, v that `pair_keys` are of."""
    return (keys >> np.uint64(32)).astype(np.uint32), (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)


@numba.njit(cache=True)
def _count(faces: Any, row: Any, of_face: Any, grey: Any) -> None:
    for i in range(len(of_face)):
        faces[row[of_face[i]], grey[i]] += 1


@numba.njit(cache=True)
def pair_key(a: Any, b: Any) -> Any:
    """Two different regions as one number, as in `pair_keys`, whichever comes first; never 0."""
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
def _borders(row: Any, other: Any, differ: Any, eights: Any, places: Any) -> Any:
    """Where two rows have different regions; how many places there are. Eight voxels at once: most have none.

    Args:
        row: `(n,)`, regions, 0 = none.
        other: Likewise.
        differ: Uint8, n or more, whole eights; written over.
        eights: The same memory as uint64.
        places: As many; filled.
    """
    differ[len(row) & ~7 : (len(row) + 7) & ~7] = 0
    for x in range(len(row)):
        differ[x] = (row[x] != other[x]) & (row[x] != 0) & (other[x] != 0)
    count = np.int64(0)
    for eight in range((len(row) + 7) >> 3):
        if eights[eight] != 0:
            for x in range(8 * eight, 8 * eight + 8):
                places[count] = x
                count += np.int64(differ[x])
    return count


@numba.njit(cache=True)
def _pair_up(
    row: Any, other: Any, places: Any, affinities: Any, table: Any, pair_in: Any, keys: Any, pairs: Any, of_face: Any,
    grey: Any, sums: Any, begin: Any,
) -> Any:  # fmt: skip
    """Note the faces of two rows, of which there are as many as places, and add them to their pairs' sums.

    There is room for as many new pairs in the table and the lists of pairs; how many pairs there are is returned.
    """
    last, pair = np.uint64(0), np.uint32(0)
    for i in range(len(places)):
        x = places[i]
        key = pair_key(row[x], other[x])
        if key != last:
            last = key
            slot = find_slot(table, key)
            if table[slot] == 0:
                table[slot], pair_in[slot], keys[pairs] = key, pairs, key
                pairs += 1
            pair = pair_in[slot]
        of_face[i], grey[i] = pair, affinities[x]
        sums[pair, 0] += 1
        sums[pair, 1] += affinities[x]
        sums[pair, 2] += begin[0]
        sums[pair, 3] += begin[1]
        sums[pair, 4] += begin[2] + 2 * x
    return pairs


@numba.njit(cache=True)
def _longer(values: Any) -> Any:
    """Twice as many, zeros last."""
    longer = np.zeros((2 * len(values), *values.shape[1:]), dtype=values.dtype)
    longer[: len(values)] = values
    return longer


@numba.njit(cache=True)
def _faces(affinities: Any, numbers: Any, offsets: Any) -> Any:
    """Pairs as they are met, each as one number; every face's pair and affinity; sums over each pair's faces.

    Faces are all pairs of voxels that offsets, one per channel, say. Sums are of 1, the affinity, and the places z, y,
    x in half voxels.
    """
    table, pair_in = np.zeros(4096, dtype=np.uint64), np.zeros(4096, dtype=np.uint32)
    keys, sums = np.zeros(2048, dtype=np.uint64), np.zeros((2048, 5), dtype=np.int64)
    of_face, grey = np.zeros(1 << 16, dtype=np.uint32), np.zeros(1 << 16, dtype=np.uint8)
    pairs, faces = 0, 0
    depth, height, width = numbers.shape
    differ = np.zeros((width + 7) & ~7, dtype=np.uint8)
    eights, places = differ.view(np.uint64), np.empty(len(differ) + 1, dtype=np.int64)
    for channel in range(len(offsets)):
        dz, dy, dx = offsets[channel]
        first, last = max(0, -dx), width - max(0, dx)
        if first >= last:
            continue
        for z in range(max(0, -dz), depth - max(0, dz)):
            for y in range(max(0, -dy), height - max(0, dy)):
                # room for a row
                while faces + width > len(of_face):
                    of_face, grey = _longer(of_face), _longer(grey)
                while pairs + width > len(keys):
                    keys, sums = _longer(keys), _longer(sums)
                    table = np.zeros(2 * len(table), dtype=np.uint64)
                    pair_in = np.zeros(len(table), dtype=np.uint32)
                    for known in range(pairs):
                        slot = find_slot(table, keys[known])
                        table[slot], pair_in[slot] = keys[known], known
                row, other = numbers[z, y, first:last], numbers[z + dz, y + dy, first + dx : last + dx]
                count = _borders(row, other, differ, eights, places)
                pairs = _pair_up(
                    row, other, places[:count], affinities[channel, z, y, first:last], table, pair_in, keys, pairs,
                    of_face[faces:], grey[faces:], sums, (2 * z + 1 + dz, 2 * y + 1 + dy, 2 * first + 1 + dx),
                )  # fmt: skip
                faces += count
    return keys[:pairs], of_face[:faces], grey[:faces], sums[:pairs]
