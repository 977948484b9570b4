"""The overlap table of two labelled volumes: how many voxels each pair (segment, truth label) shares.

                     truth 1   truth 2
        segment 7      410         3        stored as three columns, sorted by (segment, truth):
        segment 9        0       120        segments [7, 7, 9], truths [1, 2, 2], counts [410, 3, 120]

Every score is a function of this table, so a volume is read once, block by block, and tables of blocks are added.
Counting keeps one hash table of pairs; memory grows with the number of pairs, not of voxels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from neuroloom.segmentation.lookup import relabel


@dataclass(frozen=True)
class OverlapTable:
    """Voxels shared by each pair of labels, as three columns sorted by (segment, truth), every pair once.

    Attributes:
        segments: `(n,) uint64`, label in the segmentation (0 = unsegmented).
        truths: `(n,) uint64`, label in the truth (0 = not annotated).
        counts: `(n,) int64`, voxels, all above 0.
    """

    segments: NDArray[np.uint64]
    truths: NDArray[np.uint64]
    counts: NDArray[np.int64]


def overlap_table(segmentation: NDArray[Any], truth: NDArray[Any]) -> OverlapTable:
    """Count the voxels that each pair (segment, truth label) shares.

    Args:
        segmentation: Integer labels of any shape, such as `(z, y, x) uint64`; need not be contiguous.
        truth: Integer labels of the same shape.

    Returns:
        The table, pairs with 0 included.

    Raises:
        ValueError: The shapes differ, or a label array holds no integers.
    """
    if segmentation.shape != truth.shape:
        raise ValueError(f"segmentation has shape {segmentation.shape} and truth {truth.shape}; they must be equal")
    for name, labels in (("segmentation", segmentation), ("truth", truth)):
        if labels.dtype.kind not in "ui":
            raise ValueError(f"{name} is {labels.dtype}; labels must be integers")
    first, second, counts, used = _empty_hash(1024)
    # Slab by slab, so that a view or another integer type is copied one slab at a time only.
    for slab, truth_slab in zip(_slabs(segmentation), _slabs(truth), strict=True):
        start = 0
        while start < slab.size:
            start, used = _count_pairs(slab, truth_slab, start, first, second, counts, used)
            if start < slab.size:
                first, second, counts = _grow(first, second, counts)
    filled = counts > 0
    return _sorted_table(first[filled], second[filled], counts[filled])


def add_tables(tables: Iterable[OverlapTable]) -> OverlapTable:
    """Add the tables of disjoint blocks; the result is the table of their union, whatever the order.

    Args:
        tables: Any number of tables; none gives an empty table.
    """
    listed = list(tables)
    if not listed:
        return OverlapTable(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64))
    return _sorted_table(
        np.concatenate([table.segments for table in listed]),
        np.concatenate([table.truths for table in listed]),
        np.concatenate([table.counts for table in listed]),
    )


def relabel_table(table: OverlapTable, lookup: NDArray[np.uint64]) -> OverlapTable:
    """Replace fragments by the segments they belong to and add up what coincides, without touching a volume.

    Args:
        table: Overlaps of fragments with the truth.
        lookup: `(2, n) uint64`: fragments, ascending; and their segments. Label 0 stays 0.

    Returns:
        Overlaps of segments with the truth.

    Raises:
        UserError: A fragment of the table is not in the lookup table.
    """
    return _sorted_table(relabel(table.segments, lookup), table.truths, table.counts)


def _sorted_table(segments: NDArray[np.uint64], truths: NDArray[np.uint64], counts: NDArray[np.int64]) -> OverlapTable:
    """Sort pairs and add the counts of equal ones."""
    order = np.lexsort((truths, segments))
    segments, truths, counts = segments[order], truths[order], counts[order]
    if segments.size == 0:
        return OverlapTable(segments, truths, counts)
    new = np.concatenate([[True], (segments[1:] != segments[:-1]) | (truths[1:] != truths[:-1])])
    starts = np.flatnonzero(new)
    return OverlapTable(segments[starts], truths[starts], np.add.reduceat(counts, starts))


def _slabs(labels: NDArray[Any]) -> Iterator[NDArray[np.uint64]]:
    """The array as flat contiguous uint64 pieces of one z section each."""
    for section in np.atleast_1d(labels):
        yield np.ascontiguousarray(section, dtype=np.uint64).ravel()


def _empty_hash(size: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64], int]:
    return np.zeros(size, np.uint64), np.zeros(size, np.uint64), np.zeros(size, np.int64), 0


@njit(cache=True, nogil=True, inline="always")
def _slot(a, b, first, second, counts):  # type: ignore[no-untyped-def]
    """Place of the pair in the hash table (open addressing, linear probing), or the free place where it belongs."""
    mask = np.uint64(counts.size - 1)
    mixed = (a * np.uint64(0x9E3779B97F4A7C15)) ^ (b * np.uint64(0xC2B2AE3D27D4EB4F))
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    place = (mixed ^ (mixed >> np.uint64(32))) & mask
    while counts[place] > 0 and (first[place] != a or second[place] != b):
        place = (place + np.uint64(1)) & mask
    return place


@njit(cache=True, nogil=True)
def _count_pairs(labels, truths, start, first, second, counts, used):  # type: ignore[no-untyped-def]
    """Count pairs from `start` on until the end, or until the hash table is half full; returns where it stopped."""
    n = labels.size
    i = start
    while i < n:
        if 2 * used >= counts.size:
            return i, used
        a = labels[i]
        b = truths[i]
        # Labels come in long runs: one look into the hash table for each run.
        end = i + 1
        while end < n and labels[end] == a and truths[end] == b:
            end += 1
        place = _slot(a, b, first, second, counts)
        if counts[place] == 0:
            first[place] = a
            second[place] = b
            used += 1
        counts[place] += end - i
        i = end
    return n, used


@njit(cache=True, nogil=True)
def _grow(first, second, counts):  # type: ignore[no-untyped-def]
    """The same pairs in a hash table of four times the size."""
    size = counts.size * 4
    new_first = np.zeros(size, np.uint64)
    new_second = np.zeros(size, np.uint64)
    new_counts = np.zeros(size, np.int64)
    for i in range(counts.size):
        if counts[i] > 0:
            place = _slot(first[i], second[i], new_first, new_second, new_counts)
            new_first[place] = first[i]
            new_second[place] = second[i]
            new_counts[place] = counts[i]
    return new_first, new_second, new_counts
