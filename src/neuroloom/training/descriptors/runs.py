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
    """Runs of one label != 0 along x, within a window, sorted by z and y of their blocks, then by their own.

    Returns their labels (n), and their z, y, first x, last x + 1 (n, 4), in voxels.
    """
    (z0, z1), (y0, y1), (x0, x1) = window
    count = 0
    for z in range(z0, z1):
        for y in range(y0, y1):
            count += _count_runs(labels[z, y, x0:x1])
    run_label = np.empty(count, dtype=np.int64)
    runs = np.empty((count, 4), dtype=np.int32)
    number = -1
    for block_z in range(z0 // repeats[0], (z1 - 1) // repeats[0] + 1):
        for block_y in range(y0 // repeats[1], (y1 - 1) // repeats[1] + 1):
            for z in range(max(z0, block_z * repeats[0]), min(z1, (block_z + 1) * repeats[0])):
                for y in range(max(y0, block_y * repeats[1]), min(y1, (block_y + 1) * repeats[1])):
                    row = labels[z, y]
                    before = np.int64(0)
                    for x in range(x0, x1):
                        label = row[x]
                        if label == before:
                            continue
                        if before != 0:
                            runs[number, 3] = x
                        if label != 0:
                            number += 1
                            run_label[number] = label
                            runs[number, 0], runs[number, 1], runs[number, 2] = z, y, x
                        before = label
                    if before != 0:
                        runs[number, 3] = x1
    return run_label, runs


@njit(nogil=True, cache=True)
def _count_runs(row):  # type: ignore[no-untyped-def]
    """How many runs of one label != 0 there are."""
    count = 0
    if len(row) > 0 and row[0] != 0:
        count = 1
    following, row = row[1:], row[: len(row) - 1]
    for x in range(len(row)):
        count += (following[x] != row[x]) & (following[x] != 0)
    return count


@njit(nogil=True, cache=True)
def sort_runs(wanted_label, wanted, seen_label, seen):  # type: ignore[no-untyped-def]
    """Runs of two kinds sorted by label, otherwise as they were; the second kind's only of labels that the first has.

    Returns the sorted runs of the first kind, where each label begins there (labels + 1), and both of the second.
    """
    size = 2
    while size < 2 * len(wanted_label) + 2:
        size *= 2
    keys, numbers = np.zeros(size, dtype=np.int64), np.empty(size, dtype=np.int32)
    known = 0
    number_of = np.empty(len(wanted_label), dtype=np.int32)
    before = np.int64(0)
    number = np.int32(0)
    for run in range(len(wanted_label)):
        label = wanted_label[run]
        if label != before:
            slot = _slot(keys, label)
            if keys[slot] == 0:
                keys[slot], numbers[slot] = label, known
                known += 1
            number, before = numbers[slot], label
        number_of[run] = number
    also_of = np.empty(len(seen_label), dtype=np.int32)
    before = np.int64(0)
    for run in range(len(seen_label)):
        label = seen_label[run]
        if label != before:
            slot = _slot(keys, label)
            number, before = numbers[slot] if keys[slot] != 0 else np.int32(-1), label
        also_of[run] = number
    first, sorted_runs = _by_number(known, number_of, wanted)
    first_seen, sorted_seen = _by_number(known, also_of, seen)
    return sorted_runs, first, sorted_seen, first_seen


@njit(nogil=True, cache=True)
def _slot(keys, label):  # type: ignore[no-untyped-def]
    """Where a label != 0 is, or would be, in a table of a power of two of which at least half is free (0)."""
    mask = len(keys) - 1
    mixed = np.uint64(label) * np.uint64(0x9E3779B97F4A7C15)
    slot = np.int64(mixed >> np.uint64(32)) & mask
    while keys[slot] != 0 and keys[slot] != label:
        slot = (slot + 1) & mask
    return slot


@njit(nogil=True, cache=True)
def _by_number(known, number_of, runs):  # type: ignore[no-untyped-def]
    """Runs in ascending order of their numbers, without those of -1; and where each number begins (known + 1)."""
    first = np.zeros(known + 1, dtype=np.int64)
    for number in number_of:
        if number >= 0:
            first[number + 1] += 1
    for number in range(known):
        first[number + 1] += first[number]
    following = first[:known].copy()
    result = np.empty((first[known], 4), dtype=np.int32)
    for run in range(len(number_of)):
        number = number_of[run]
        if number >= 0:
            to = following[number]
            following[number] = to + 1
            for axis in range(4):
                result[to, axis] = runs[run, axis]
    return first, result


@njit(nogil=True, cache=True)
def find_rows(first_run, runs, repeats):  # type: ignore[no-untyped-def]
    """Rows of blocks: what the runs of one label need of one z and y, for runs sorted by label.

    Returns z, y, first x, last x + 1 of each row in blocks, and its first and last + 1 run (m, 6); and where each label
    begins (labels + 1).
    """
    rows = np.empty((len(runs), 6), dtype=np.int32)
    first_row = np.empty(len(first_run), dtype=np.int64)
    count = 0
    for label in range(len(first_run) - 1):
        first_row[label] = count
        for run in range(first_run[label], first_run[label + 1]):
            z, y = runs[run, 0] // repeats[0], runs[run, 1] // repeats[1]
            begin, end = runs[run, 2] // repeats[2], (runs[run, 3] - 1) // repeats[2] + 1
            if count == first_row[label] or z != rows[count - 1, 0] or y != rows[count - 1, 1]:
                rows[count, 0], rows[count, 1], rows[count, 2], rows[count, 3] = z, y, begin, end
                rows[count, 4] = run
                count += 1
            rows[count - 1, 2] = min(rows[count - 1, 2], begin)
            rows[count - 1, 3] = max(rows[count - 1, 3], end)
            rows[count - 1, 5] = run + 1
    first_row[len(first_run) - 1] = count
    return rows[:count], first_row


@njit(nogil=True, cache=True)
def find_columns(rows, first_row):  # type: ignore[no-untyped-def]
    """Columns (n, 6) of one label each: its number, first and last y, first and last x, rough cost."""
    labels = len(first_row) - 1
    box = np.empty((labels, 6), dtype=np.int64)
    count = 0
    for label in range(labels):
        z0 = y0 = x0 = 2**31
        z1 = y1 = x1 = 0
        for row in range(first_row[label], first_row[label + 1]):
            z, y = rows[row, 0], rows[row, 1]
            z0, z1 = min(z0, z), max(z1, z + 1)
            y0, y1 = min(y0, y), max(y1, y + 1)
            x0, x1 = min(x0, rows[row, 2]), max(x1, rows[row, 3])
        box[label] = z0, z1, y0, y1, x0, x1
        count += -(-(y1 - y0) // COLUMN_HEIGHT) * -(-(x1 - x0) // COLUMN_WIDTH)
    columns = np.empty((count, 6), dtype=np.int64)
    count = 0
    for label in range(labels):
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
