"""Seeded watershed: seeds grow over a surface of whole numbers, highest level first, first come first served.

    level   9 . . A . . .        Every voxel waits once, in the queue of its own level. The highest level that has
            8 . a a . b .        somebody waiting is served next, in the order of arrival; a voxel served gives its
            7 a a a b b B        label to its neighbours that have none, and they queue up.

This is Meyer's flooding (F. Meyer, 1992) in the order that `mahotas.cwatershed` uses, so the labels are the same. How
many voxels will wait at each level is known beforehand: all queues share one array, and every step takes constant time.

A queue goes all over the volume, so that nearly every step would wait for memory. But who will be served is known some
time before, and where that is: it is asked for then. And the volume lies in memory brick by brick, so that most
neighbours come along:

    0  1  4  5        In rows, the six neighbours of a voxel would be in five places that are far from each other. In
    2  3  6  7        bricks of 4 x 4 x 4 voxels, three of four neighbours lie in the same 128 bytes.
    8  9  …
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from neuroloom.fragments.prefetch import prefetch

AHEAD = 32
"""How many will be served before the one whose neighbourhood is asked for."""
BRICK = 4
"""Voxels along each axis that lie together in memory."""


def flood(levels: NDArray[Any], seeds: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Grow seeds over all voxels from the highest level down, across faces.

    Args:
        levels: `(z, y, x)`, unsigned integers: height of the surface.
        seeds: `(z, y, x)`, 0 where there is none.

    Returns:
        Labels `(z, y, x)`; 0 only where no seed can be reached, that is, nowhere if there is any seed.

    Example:
        >>> levels = np.array([[[3, 2, 1, 2, 3]]], dtype=np.uint16)
        >>> flood(levels, np.array([[[1, 0, 0, 0, 2]]], dtype=np.uint32))
        array([[[1, 1, 1, 2, 2]]], dtype=uint32)
    """
    if seeds.size == 0 or not seeds.any():
        return np.zeros_like(seeds)
    counts = _histogram(levels.reshape(-1), int(levels.max()) + 1)
    used = np.flatnonzero(counts)[::-1]
    begins = np.zeros(len(used) + 1, dtype=np.int64)
    np.cumsum(counts[used], out=begins[1:])
    # rank 0 is the highest level; few ranks, so no empty queues between them
    waiting_for = np.zeros(len(counts), dtype=np.int32)
    waiting_for[used] = -1 - np.arange(len(used), dtype=np.int32)
    # One number per voxel says all, since a rank is of no use once the voxel has a label: -1 - rank without a label,
    # the label with one. The fewer bytes the better: waves run through all of it at once.
    kind = np.int16 if max(int(seeds.max()), len(used)) < 2**15 - 1 else np.int32
    places, neighbours, size = _layout(levels.shape)
    state = np.full(size, np.iinfo(kind).max, dtype=kind)
    queue = np.empty(levels.size, dtype=np.uint32 if size < 2**32 else np.int64)
    tails = begins[:-1].copy()
    _start(levels, seeds, waiting_for, *places, state, queue, tails)
    _flood(state, neighbours, begins[:-1].copy(), tails, queue)
    labels = np.empty(levels.shape, dtype=np.uint32)
    _read(state, *places, labels)
    return labels


def _layout(shape: tuple[int, ...]) -> tuple[list[NDArray[np.int64]], NDArray[np.int64], int]:
    """How a volume lies in bricks, with a frame around it, which saves asking at every step whether it ends.

    Args:
        shape: Extent in voxels.

    Returns:
        For each axis the terms that add up to a voxel's place; `(brick, 6)`, how far from each place in a brick the
        neighbours lie, z y x before it, then x y z behind it, 0 along axes of one voxel; the number of places.
    """
    bricks = [BRICK if extent > 1 else 1 for extent in shape]
    counts = [-(-(extent + 2) // brick) if extent > 1 else 1 for extent, brick in zip(shape, bricks, strict=True)]
    size = math.prod(bricks)
    places, neighbours = [], np.zeros((size, 6), dtype=np.int64)
    for axis, (extent, brick) in enumerate(zip(shape, bricks, strict=True)):
        inner, outer = math.prod(bricks[axis + 1 :]), size * math.prod(counts[axis + 1 :])
        voxel = np.arange(extent, dtype=np.int64) + (extent > 1)
        places.append(voxel // brick * outer + voxel % brick * inner)
        if extent > 1:
            within = np.arange(size) // inner % brick
            across = outer - (brick - 1) * inner
            neighbours[:, axis] = np.where(within == 0, -across, -inner)
            neighbours[:, 5 - axis] = np.where(within == brick - 1, across, inner)
    return places, neighbours, size * math.prod(counts)


@numba.njit(cache=True)
def _histogram(levels: Any, count: int) -> Any:
    counts = np.zeros(count, dtype=np.int64)
    for level in levels:
        counts[level] += 1
    return counts


@numba.njit(cache=True)
def _start(
    levels: Any, seeds: Any, waiting_for: Any, along_z: Any, along_y: Any, along_x: Any, state: Any, queue: Any,
    tails: Any,
) -> None:  # fmt: skip
    """Fill the state within its frame; the seeds' voxels queue up in z-major order."""
    for z in range(levels.shape[0]):
        for y in range(levels.shape[1]):
            row = along_z[z] + along_y[y]
            for x in range(levels.shape[2]):
                waiting = waiting_for[levels[z, y, x]]
                place = row + along_x[x]
                if seeds[z, y, x] == 0:
                    state[place] = waiting
                else:
                    state[place] = seeds[z, y, x]
                    queue[tails[-1 - waiting]] = place
                    tails[-1 - waiting] += 1


@numba.njit(cache=True)
def _read(state: Any, along_z: Any, along_y: Any, along_x: Any, labels: Any) -> None:
    for z in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            row = along_z[z] + along_y[y]
            for x in range(labels.shape[2]):
                labels[z, y, x] = state[row + along_x[x]]


@numba.njit(cache=True, boundscheck=False)
def _flood(state: Any, neighbours: Any, heads: Any, tails: Any, queue: Any) -> None:
    in_brick = len(neighbours) - 1  # the bits of a place that say where in its brick it is
    current = np.int64(0)
    while current < len(heads):
        if heads[current] == tails[current]:
            current += 1
            continue
        head = heads[current]
        if head + AHEAD < tails[current]:
            later = np.int64(queue[head + AHEAD])
            within = later & in_brick
            for k in range(6):
                prefetch(state, later + neighbours[within, k])
        start = np.int64(queue[head])
        heads[current] = head + 1
        label = state[start]
        within = start & in_brick
        for k in range(6):
            neighbour = start + neighbours[within, k]
            waiting = state[neighbour]
            if waiting < 0:
                state[neighbour] = label
                rank = -1 - np.int64(waiting)
                queue[tails[rank]] = neighbour
                tails[rank] += 1
                current = min(current, rank)
