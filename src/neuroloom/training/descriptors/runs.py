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

COLUMN_HEIGHT, COLUMN_WIDTH = 16, 32
"""Largest extent of a column in y and x, in voxels: its moments should stay in the processor's second-level cache."""


@njit(nogil=True, cache=True)
def find_runs(labels, repeats, window):  # type: ignore[no-untyped-def]
    """Runs of one label != 0 along x, within a window, sorted by their blocks' z and y, then by their own.

    Returns their labels (n), and z, y, first x, last x + 1 (n, 4) in blocks of `repeats` voxels, and in voxels.
    """
    (z0, z1), (y0, y1), (x0, x1) = window
    run_label = np.empty(0, dtype=np.int64)
    runs = np.empty((0, 4), dtype=np.int32)
    voxels = np.empty((0, 4), dtype=np.int32)
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
                                    voxels[number, 3] = x
                                if label != 0:
                                    number += 1
                                    if find == 1:
                                        run_label[number] = label
                                        voxels[number, 0], voxels[number, 1], voxels[number, 2] = z, y, x
                                before = label
                        if find == 1 and before != 0:
                            voxels[number, 3] = x1
        if find == 0:  # the first time they were counted only
            run_label = np.empty(number + 1, dtype=np.int64)
            runs = np.empty((number + 1, 4), dtype=np.int32)
            voxels = np.empty((number + 1, 4), dtype=np.int32)
    for number in range(len(runs)):
        for axis in range(3):
            runs[number, axis] = voxels[number, axis] // repeats[axis]
        runs[number, 3] = (voxels[number, 3] - 1) // repeats[2] + 1
    return run_label, runs, voxels


@njit(nogil=True, cache=True)
def find_rows(run_label, runs):  # type: ignore[no-untyped-def]
    """Rows of blocks: what several runs of one label need of one z and y, for runs sorted by label, z and y.

    Returns the row of each run (n), and first x, last x + 1 of each row and the number of blocks in the rows before it
    (m + 1, 3).
    """
    row_of = np.empty(len(runs), dtype=np.int64)
    rows = np.zeros((len(runs) + 1, 3), dtype=np.int64)
    row = -1
    for number in range(len(runs)):
        z, y, first, last = runs[number]
        if (
            number == 0
            or run_label[number] != run_label[number - 1]
            or z != runs[number - 1, 0]
            or y != runs[number - 1, 1]
        ):
            row += 1
            rows[row, 0], rows[row, 1] = first, last
        rows[row, 0], rows[row, 1] = min(rows[row, 0], first), max(rows[row, 1], last)
        rows[row + 1, 2] = rows[row, 2] + rows[row, 1] - rows[row, 0]
        row_of[number] = row
    return row_of, rows[: row + 2]


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
