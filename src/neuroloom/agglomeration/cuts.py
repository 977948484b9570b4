"""Fragments that the border of a block has cut are one region again, before anything is merged.

    block k - 1 | block k        Where blocks end says nothing about neurites. A fragment's section is its faces on the
    a a a a a a | b b b b b      border. Two fragments are parts of one region if at least half of the smaller section
    a a a a a a | b b c c c      goes on in the other one, within a fragment of the watershed that saw both sides
    a a a a a a | c c c c c      (`fragments/borders`). If all faces here go on: a and b, c and d; not a and c, of whose
    d d d d d d | c c c c c      three faces each only one does.
    d d d d d d | c c c c c

Sections tell a fragment that was cut from two neighbours whose rims share a few faces, since the two blocks have drawn
the line between them differently: these would be merged at every threshold. Regions are agglomerated then, so that
scores hardly depend on the size of blocks; an edge between two parts of a region has the score 0, that of any other
pair is its regions'.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from neuroloom.fragments.borders import Border
from neuroloom.fragments.contacts import Contacts, pair_keys, pairs_of
from neuroloom.fragments.sets import find_root


def regions_of(numbers: NDArray[np.uint32], count: int, borders: Iterable[Border]) -> NDArray[np.uint32]:
    """Which region each fragment is part of.

    Args:
        numbers: `(z, y, x)`, fragments 1 … count, 0 = none.
        count: How many there are.
        borders: Of blocks, in the array.

    Returns:
        `(count + 1,)`, the smallest number among the region's fragments; 0 of 0.
    """
    cut = [np.empty(0, dtype=np.uint64)]
    for border in borders:
        before, here = (np.take(numbers, border.place - side, axis=border.axis) for side in (1, 0))
        goes_on = np.take(border.goes_on, 0, axis=border.axis) & (before != 0) & (here != 0)
        pairs, faces = np.unique(pair_keys(before[goes_on], here[goes_on]), return_counts=True)
        a, b = pairs_of(pairs)
        section = np.minimum(np.bincount(before.ravel())[a], np.bincount(here.ravel())[b])
        cut.append(pairs[2 * faces >= section])
    return _unite(count, *pairs_of(np.concatenate(cut)))


def united(touching: Contacts, region: NDArray[np.uint32]) -> Contacts:
    """Contacts of regions, from those of their fragments.

    Args:
        touching: Of fragments; pairs that were observed without touching, too.
        region: Of each, from `regions_of`.
    """
    if np.array_equal(region, np.arange(len(region))):
        return touching
    u, v, between = _ends(touching, region)
    keys, row = np.unique(pair_keys(u, v)[between], return_inverse=True)
    rows = np.full(len(u), -1, dtype=np.int64)
    rows[between] = row

    def added(values: NDArray[Any]) -> NDArray[Any]:
        total = np.zeros((len(keys), *values.shape[1:]), dtype=values.dtype)
        width = math.prod(values.shape[1:])
        _add(values.reshape(len(values), width), rows, total.reshape(len(keys), width))
        return total

    sums = (added(getattr(touching, name)) for name in ("faces", "area", "total", "place"))
    return Contacts(*pairs_of(keys), *sums)


def scores_of_parts(
    touching: Contacts, region: NDArray[np.uint32], regions: Contacts, score: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Scores of pairs of fragments: their regions', and 0 between two parts of one.

    Args:
        touching: Pairs of fragments.
        region: Of each fragment.
        regions: Pairs of regions, from `united`.
        score: One for each of these.

    Returns:
        One for each row of `touching`.
    """
    u, v, between = _ends(touching, region)
    result = np.zeros(len(u), dtype=np.float32)
    result[between] = score[np.searchsorted(pair_keys(regions.u, regions.v), pair_keys(u, v)[between])]
    return result


def _ends(
    touching: Contacts, region: NDArray[np.uint32]
) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.bool_]]:
    """The regions of each pair, the smaller one first, and whether they are two."""
    one, other = region[touching.u], region[touching.v]
    return np.minimum(one, other), np.maximum(one, other), one != other


@numba.njit(cache=True)
def _add(values: Any, rows: Any, total: Any) -> None:
    for i in range(len(rows)):
        if rows[i] >= 0:
            for k in range(values.shape[1]):
                total[rows[i], k] += values[i, k]


@numba.njit(cache=True)
def _unite(count: int, u: Any, v: Any) -> Any:
    """The smallest number of each number's set."""
    parent = np.arange(count + 1)
    for i in range(len(u)):
        a, b = find_root(parent, np.int64(u[i])), find_root(parent, np.int64(v[i]))
        parent[max(a, b)] = min(a, b)
    names = np.empty(count + 1, dtype=np.uint32)
    for i in range(count + 1):
        names[i] = find_root(parent, i)
    return names
