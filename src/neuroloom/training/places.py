"""Where in a volume a crop may lie, so that there is something to learn in it.

    everything counts     anywhere
    a mask                anywhere, but half of the crop's output must be masked in (the published rule); where that is
                          rarely met, places that meet it, known from the voxels that count in cells of 16 voxels
    painted in part       around a random voxel that counts: so a few neurites in a large empty block are found, each as
                          often as it is large, and where much is painted more often than where little is

A mask that is 1 at so few voxels that no crop can be half full is treated like truth that is painted in part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from neuroloom.volume.array import Triple

CELL = 16
"""Voxels along each axis of the cells in which it is counted what counts."""

ENOUGH = 0.5
"""Share of an output's voxels that must count, where there are such places."""


class Counted(Protocol):
    """What must be known of a volume.

    Attributes:
        shape: Extent in voxels, z y x.
        cells: Voxels that count in each cell, z y x.
        sparse: Whether only what is painted is known.
    """

    shape: Triple
    cells: NDArray[np.int64]
    sparse: bool

    def counting(self, begin: Sequence[int], shape: Sequence[int]) -> float:
        """Share of voxels that count in a region that may leave the volume."""


class Places:
    """Places of outputs in a volume.

    Args:
        volume: The volume.
        output: Extent of an output in voxels.
    """

    def __init__(self, volume: Counted, output: Triple) -> None:
        self._volume, self._output = volume, output
        # where the volume is larger than the output, the output lies inside; else it lies around the middle
        self._lowest = [min(0, (s - o) // 2) for s, o in zip(volume.shape, output, strict=True)]
        self._highest = [max(s - o, (s - o) // 2) for s, o in zip(volume.shape, output, strict=True)]
        self._all = int(volume.cells.sum()) == int(np.prod(volume.shape))
        counted = _counted_ahead(volume.cells, output)
        share = counted / np.prod([-(-o // CELL) * CELL for o in output])
        self._full = np.argwhere(share >= min(ENOUGH, 0.9 * float(share.max())))
        self._sparse = volume.sparse or float(counted.max()) < ENOUGH * np.prod(output)
        self._sums = volume.cells.reshape(-1).cumsum()

    def draw(self, random: np.random.Generator) -> tuple[int, ...]:
        """First voxel of an output, z y x."""
        if self._all:
            return self._anywhere(random)
        return self._around_what_counts(random) if self._sparse else self._half_full(random)

    def _anywhere(self, random: np.random.Generator) -> tuple[int, ...]:
        return tuple(int(random.integers(a, b + 1)) for a, b in zip(self._lowest, self._highest, strict=True))

    def _half_full(self, random: np.random.Generator) -> tuple[int, ...]:
        tried: dict[tuple[int, ...], float] = {}
        for attempt in range(20):
            begin = self._anywhere(random)
            if attempt >= 10:
                begin = self._within(self._full[int(random.integers(len(self._full)))] * CELL + _offset(random))
            tried[begin] = self._volume.counting(begin, self._output)
            if tried[begin] >= ENOUGH:
                break
        return max(tried, key=tried.__getitem__)

    def _around_what_counts(self, random: np.random.Generator) -> tuple[int, ...]:
        for _ in range(20):
            number = int(np.searchsorted(self._sums, random.integers(self._sums[-1]), side="right"))
            cell = np.array(np.unravel_index(number, self._volume.cells.shape))
            begin = self._within(cell * CELL + _offset(random) - random.integers(0, self._output))
            if self._volume.counting(begin, self._output) > 0:
                break
        return begin

    def _within(self, begin: NDArray[np.int64]) -> tuple[int, ...]:
        return tuple(int(v) for v in np.clip(begin, self._lowest, self._highest))


def _offset(random: np.random.Generator) -> NDArray[np.int64]:
    return random.integers(0, CELL, 3)


def _counted_ahead(cells: NDArray[np.int64], output: Triple) -> NDArray[np.float64]:
    """Voxels that count in the cells that an output covers which begins at a cell."""
    total = np.pad(cells.astype(np.float64), [(1, -(-o // CELL)) for o in output])
    for axis, extent in enumerate(output):
        running = total.cumsum(axis=axis)
        ahead = -(-extent // CELL)
        total = np.take(running, range(ahead, running.shape[axis]), axis=axis)
        total -= np.take(running, range(running.shape[axis] - ahead), axis=axis)
        total = np.take(total, range(cells.shape[axis]), axis=axis)
    return total
