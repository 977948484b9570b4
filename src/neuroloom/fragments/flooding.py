"""Seeded watershed: seeds grow over a surface of whole numbers, highest level first, first come first served.

    level   9 . . A . . .        Every voxel waits once, in the queue of its own level. The highest level that has
            8 . a a . b .        somebody waiting is served next, in the order of arrival; a voxel served gives its
            7 a a a b b B        label to its neighbours that have none, and they queue up.

This is Meyer's flooding (F. Meyer, 1992) in the order that `mahotas.cwatershed` uses, so the labels are the same. How
many voxels will wait at each level is known beforehand: all queues share one array, and every step takes constant time.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray


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
    counts = np.bincount(levels.reshape(-1))
    used = np.flatnonzero(counts)[::-1]
    # rank 0 is the highest level: few ranks, no empty queues between them
    rank_of_level = np.zeros(len(counts), dtype=np.uint32)
    rank_of_level[used] = np.arange(len(used), dtype=np.uint32)
    begins = np.zeros(len(used) + 1, dtype=np.int64)
    np.cumsum(counts[used], out=begins[1:])
    # a frame of labelled voxels saves asking at every step whether the volume ends
    pad = [(1, 1) if size > 1 else (0, 0) for size in levels.shape]
    inner = tuple(slice(low, low + size) for (low, _), size in zip(pad, levels.shape, strict=True))
    framed_shape = tuple(size + low + high for size, (low, high) in zip(levels.shape, pad, strict=True))
    ranks = np.zeros(framed_shape, dtype=np.uint16 if len(used) < 2**16 else np.uint32)
    ranks[inner] = rank_of_level[levels]
    labels = np.full(framed_shape, np.iinfo(np.uint32).max, dtype=np.uint32)
    labels[inner] = seeds
    strides = np.array([framed_shape[1] * framed_shape[2], framed_shape[2], 1], dtype=np.int64)
    strides = strides[[low > 0 for low, _ in pad]]
    neighbours = np.concatenate([-strides, strides[::-1]])
    place = np.uint32 if labels.size < 2**32 else np.int64
    queue = np.empty(levels.size, dtype=place)
    _flood(ranks.reshape(-1), labels.reshape(-1), neighbours, begins, queue)
    return np.ascontiguousarray(labels[inner])


@numba.njit(cache=True, boundscheck=False)
def _flood(ranks: Any, labels: Any, neighbours: Any, begins: Any, queue: Any) -> None:
    frame = np.uint32(0xFFFFFFFF)
    head = begins[:-1].copy()
    tail = begins[:-1].copy()
    for voxel in range(len(labels)):
        if labels[voxel] != 0 and labels[voxel] != frame:
            rank = ranks[voxel]
            queue[tail[rank]] = voxel
            tail[rank] += 1
    current: Any = 0
    while current < len(head):
        if head[current] == tail[current]:
            current += 1
            continue
        start = np.int64(queue[head[current]])
        head[current] += 1
        label = labels[start]
        for k in range(len(neighbours)):
            neighbour = start + neighbours[k]
            if labels[neighbour] == 0:
                labels[neighbour] = label
                rank = ranks[neighbour]
                queue[tail[rank]] = neighbour
                tail[rank] += 1
                if rank < current:
                    current = np.int64(rank)
