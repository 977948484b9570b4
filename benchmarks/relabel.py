"""Fragments of a block -> segments, by the table of a whole volume: ours against fastremap, on one thread.

Fragments are neurons cut by a grid of 16 voxels, numbered within blocks as the chain numbers them. The table has
20 million rows, those of other blocks around theirs. fastremap gets the rows from the block's lowest to its highest
fragment; looking for them is in the time that counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import fastremap
import numpy as np
from numpy.typing import NDArray

from benchmarks.results import Disagreement, Result, alternate
from benchmarks.volumes import Options, tissue
from neuroloom.segmentation import relabel

CELL = 16
"""Voxels; fragments of the shipped networks are about as large."""
VOXELS = 256**3
"""Of a block: ids of two blocks are so far apart."""
ROWS = 20_000_000
"""Of the table, about."""


def run(options: Options) -> list[Result]:
    """Compare voxels per second.

    Raises:
        Disagreement: Segments differ.
    """
    what, _, labels = tissue(options, "fib25-val", 60 if options.quick else 250)
    numbers = fragments_of(labels)
    count = int(numbers.max())
    blocks = 9 if options.quick else ROWS // count
    fragments = np.where(numbers > 0, numbers + np.uint64(blocks // 2 * VOXELS), np.uint64(0))
    per_block = np.arange(1, count + 1, dtype=np.uint64)
    ids = (np.arange(blocks, dtype=np.uint64)[:, None] * np.uint64(VOXELS) + per_block).reshape(-1)
    table = np.stack([ids, ids // np.uint64(3) + np.uint64(1)])
    print(f"{what}, {count} fragments; a table of {len(ids) / 1e6:.3g} million")
    flat = fragments.reshape(-1)
    found: dict[str, NDArray[np.uint64]] = {}

    def rate(name: str, way: Callable[[], NDArray[np.uint64]]) -> float:
        start = time.perf_counter()
        found[name] = way()
        return fragments.size / (time.perf_counter() - start) / 1e6

    def peer() -> NDArray[np.uint64]:
        first, last = np.searchsorted(ids, (fragments[fragments > 0].min(), fragments.max()))
        keys, values = (np.append(np.uint64(0), column[first : last + 1]) for column in table)
        return np.asarray(fastremap.remap_from_array_kv(flat, keys, values, in_place=False)).reshape(fragments.shape)

    def searched() -> NDArray[np.uint64]:
        rows = np.minimum(np.searchsorted(ids, fragments), len(ids) - 1)
        return np.where(fragments == 0, np.uint64(0), table[1][rows])

    relabel(fragments[:1], table)  # compile
    times = 1 if options.quick else 5
    mine, theirs = alternate(lambda: rate("ours", lambda: relabel(fragments, table)), lambda: rate("peer", peer), times)
    again, plain = alternate(
        lambda: rate("ours", lambda: relabel(fragments, table)), lambda: rate("searched", searched), 1
    )
    for name in ("peer", "searched"):
        if not np.array_equal(found["ours"], found[name]):
            raise Disagreement(f"the segments of {name}")
    return [
        Result("relabelling, against fastremap", tuple(mine), tuple(theirs), "Mvoxel/s", less_is_better=False),
        Result("relabelling, against numpy", tuple(again), tuple(plain), "Mvoxel/s", less_is_better=False),
    ]


def fragments_of(labels: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers 1 … n of what neurons are cut into by a grid; 0 stays 0.

    Args:
        labels: `(z, y, x)`.
    """
    z, y, x = np.ogrid[tuple(slice(size) for size in labels.shape)]
    cells = [-(-size // CELL) for size in labels.shape]
    cell = ((z // CELL) * cells[1] + y // CELL) * cells[2] + x // CELL
    neuron = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    pieces = np.where(labels > 0, neuron * np.int64(np.prod(cells)) + cell + 1, 0)
    return (
        np.unique(np.append(pieces.reshape(-1), 0), return_inverse=True)[1][:-1].reshape(labels.shape).astype(np.uint64)
    )
