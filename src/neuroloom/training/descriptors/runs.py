"""Labels as runs along x, and the columns of one label each that the work is cut into.

Only a label's own surroundings matter to it. A column is a part of a label's bounding box, narrow in y and x and as
high as the box:

      z ^   +----+
        |  /____/|      what is wanted in it: runs of blocks in which the label has voxels, within the roi
        |  |    ||      what matters to it:   runs of every n-th voxel that have the label, as far as the window reaches
        |  |    ||
        |  |____|/
        +-----------> y, x
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

COLUMN_HEIGHT, COLUMN_WIDTH = 16, 32
"""Largest extent of a column in y and x, in voxels: its moments should stay in the processor's second-level cache."""


def sort_runs(run_label: NDArray[np.int64], runs: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """By label, and within a label by z and y as before."""
    order = np.argsort(run_label, kind="stable")
    return run_label[order], runs[order]


@njit(nogil=True, cache=True)
def find_runs(labels, repeats, window):  # type: ignore[no-untyped-def]
    """Runs of one label != 0 along x, within a window: their labels (n), and (n, 4) z, y, first x, last x + 1, all four
    in blocks of `repeats` voxels. Sorted by the blocks' z and y."""
    (z0, z1), (y0, y1), (x0, x1) = window
    run_label = np.empty(0, dtype=np.int64)
    runs = np.empty((0, 4), dtype=np.int32)
    for find in range(2):
        number = -1
        for block_z in range(z0 // repeats[0], (z1 - 1) // repeats[0] + 1):
            for block_y in range(y0 // repeats[1], (y1 - 1) // repeats[1] + 1):
                for z in range(max(z0, block_z * repeats[0]), min(z1, (block_z + 1) * repeats[0])):
                    for y in range(max(y0, block_y * repeats[1]), min(y1, (block_y + 1) * repeats[1])):
                        before = np.int64(0)
                        for x in range(x0, x1):
                            label = labels[z, y, x]
                            if label != before:
                                if find == 1 and before != 0:
                                    runs[number, 3] = (x - 1) // repeats[2] + 1
                                if label != 0:
                                    number += 1
                                    if find == 1:
                                        run_label[number] = label
                                        runs[number, 0] = block_z
                                        runs[number, 1] = block_y
                                        runs[number, 2] = x // repeats[2]
                                before = label
                        if find == 1 and before != 0:
                            runs[number, 3] = (x1 - 1) // repeats[2] + 1
        if find == 0:  # the first time they were counted only
            run_label = np.empty(number + 1, dtype=np.int64)
            runs = np.empty((number + 1, 4), dtype=np.int32)
    return run_label, runs


@njit(nogil=True, cache=True)
def find_columns(wanted, group):  # type: ignore[no-untyped-def]
    """Columns (n, 6) of one label each: its number, first and last y, first and last x, rough cost."""
    box = np.empty((len(group), 6), dtype=np.int64)
    count = 0
    for label in range(len(group)):
        z0 = y0 = x0 = 2**31
        z1 = y1 = x1 = 0
        for run in range(group[label, 0], group[label, 1]):
            z, y, first, last = wanted[run]
            z0, z1 = min(z0, z), max(z1, z + 1)
            y0, y1 = min(y0, y), max(y1, y + 1)
            x0, x1 = min(x0, first), max(x1, last)
        box[label] = z0, z1, y0, y1, x0, x1
        count += -(-(y1 - y0) // COLUMN_HEIGHT) * -(-(x1 - x0) // COLUMN_WIDTH)
    columns = np.empty((count, 6), dtype=np.int64)
    count = 0
    for label in range(len(group)):
        z0, z1, y0, y1, x0, x1 = box[label]
        high = -(-(y1 - y0) // COLUMN_HEIGHT)
        wide = -(-(x1 - x0) // COLUMN_WIDTH)
        for j in range(high):
            for i in range(wide):
                ya, yb = y0 + (y1 - y0) * j // high, y0 + (y1 - y0) * (j + 1) // high
                xa, xb = x0 + (x1 - x0) * i // wide, x0 + (x1 - x0) * (i + 1) // wide
                columns[count] = label, ya, yb, xa, xb, (z1 - z0) * (yb - ya) * (xb - xa)
                count += 1
    return columns
