"""Seeded watershed: seeds grow over a surface of whole numbers, highest level first, first come first served.

    level   9 . . A . . .        Every voxel waits once, in the queue of its own level. The highest level that has
            8 . a a . b .        somebody waiting is served next, in the order of arrival; a voxel served gives its
            7 a a a b b B        label to its neighbours that have none, and they queue up.

This is Meyer's flooding (F. Meyer, 1992) in the order that `mahotas.cwatershed` uses, so the labels are the same. How
many voxels will wait at each level is known beforehand: all queues share one array, and every step takes constant time.

A queue goes all over the volume, so that nearly every step would wait for memory. But who will be served is known some
time before, and where that is: it is asked for then.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from neuroloom.fragments.prefetch import prefetch

AHEAD = 32
"""How many will be served before the one whose neighbourhood is asked for."""


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
    # A frame around the volume saves asking at every step whether it ends. One number per voxel says all, since a
    # rank is of no use once the voxel has a label: -1 - rank without a label, the label with one.
    # The fewer bytes the better: waves run through all of it at once, and most of the time is waiting for memory.
    kind = np.int16 if max(int(seeds.max()), len(used)) < 2**15 - 1 else np.int32
    frame = [int(size > 1) for size in levels.shape]
    inner = tuple(slice(width, width + size) for width, size in zip(frame, levels.shape, strict=True))
    framed = [size + 2 * width for size, width in zip(levels.shape, frame, strict=True)]
    state = np.full(framed, np.iinfo(kind).max, dtype=kind)
    queue = np.empty(levels.size, dtype=np.uint32 if state.size < 2**32 else np.int64)
    tails = begins[:-1].copy()
    _start(levels, seeds, waiting_for, np.array(frame), state, queue, tails)
    strides = np.array([state.shape[1] * state.shape[2], state.shape[2], 1], dtype=np.int64)
    strides = strides[np.array(frame, dtype=np.bool_)]
    _flood(state.reshape(-1), np.concatenate([-strides, strides[::-1]]), begins[:-1].copy(), tails, queue)
    return state[inner].astype(np.uint32)


@numba.njit(cache=True)
def _histogram(levels: Any, count: int) -> Any:
    counts = np.zeros(count, dtype=np.int64)
    for level in levels:
        counts[level] += 1
    return counts


@numba.njit(cache=True)
def _start(levels: Any, seeds: Any, waiting_for: Any, frame: Any, state: Any, queue: Any, tails: Any) -> None:
    """Fill the state within its frame; the seeds' voxels queue up in z-major order."""
    for z in range(levels.shape[0]):
        for y in range(levels.shape[1]):
            for x in range(levels.shape[2]):
                waiting = waiting_for[levels[z, y, x]]
                fz, fy, fx = z + frame[0], y + frame[1], x + frame[2]
                if seeds[z, y, x] == 0:
                    state[fz, fy, fx] = waiting
                else:
                    state[fz, fy, fx] = seeds[z, y, x]
                    queue[tails[-1 - waiting]] = (fz * state.shape[1] + fy) * state.shape[2] + fx
                    tails[-1 - waiting] += 1


@numba.njit(cache=True, boundscheck=False)
def _flood(state: Any, neighbours: Any, heads: Any, tails: Any, queue: Any) -> None:
    current = np.int64(0)
    while current < len(heads):
        if heads[current] == tails[current]:
            current += 1
            continue
        head = heads[current]
        if head + AHEAD < tails[current]:
            later = np.int64(queue[head + AHEAD])
            for k in range(len(neighbours)):
                prefetch(state, later + neighbours[k])
        start = np.int64(queue[head])
        heads[current] = head + 1
        label = state[start]
        for k in range(len(neighbours)):
            neighbour = start + neighbours[k]
            waiting = state[neighbour]
            if waiting < 0:
                state[neighbour] = label
                rank = -1 - np.int64(waiting)
                queue[tails[rank]] = neighbour
                tails[rank] += 1
                current = min(current, rank)
