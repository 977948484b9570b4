"""A segment that another one encloses is an organelle, not a neurite: it becomes part of what encloses it.

        +------------------+        A neurite leaves the volume, or goes on as far as what is segmented. So what neither
    a a | a a a b b a a a  |        reaches the volume's border nor a voxel without fragment, and shares nearly all of
    a a | a a b b b a a a  |        its surface with one other segment, is taken for a part of that one: mostly a
    c c | c c c c c c c c  |        mitochondrion whose membrane the network took for that of a cell. Here b shares
        +------------------+        6 of its 8 faces with a.

It is done after the merge forest is cut, for each threshold on its own, and again until nothing is enclosed any more:
two pieces of one organelle that hide each other from the neurite around them go one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from neuroloom.agglomeration.forest import Forest
from neuroloom.fragments.ranges import Ranges
from neuroloom.graph.tables import Areas, Outside
from neuroloom.segmentation.lookup import AS_CUT, SizeRules, lookup_table

AT_ONCE = 1 << 22
"""Pairs that wait until they are put together."""


@dataclass(frozen=True)
class Contacts:
    """Which fragments touch, and which reach to where no fragment is.

    Attributes:
        u: `(m,)`, places of fragments among all of them, by ascending id.
        v: `(m,)`, likewise; each pair once.
        area: `(m,)`, voxel faces between the two.
        outside: `(n,)`, of each fragment, faces to the volume's outside or to voxels without fragment.
    """

    u: NDArray[np.int64]
    v: NDArray[np.int64]
    area: NDArray[np.int64]
    outside: NDArray[np.int64]


def contacts(
    forest: Forest,
    threshold: float,
    edges: Iterable[Areas],
    outside: Outside,
    rules: SizeRules = AS_CUT,
    at_once: int = AT_ONCE,
) -> Contacts:
    """Contacts as far as they count above a threshold, from edges that come block by block.

    Pairs within a segment are dropped, those between two segments are put together: fragments of a segment stay
    together at all higher thresholds, so that any one of them stands for all. Tables come out the same.

    Args:
        forest: The merge forest.
        threshold: The lowest at which it will be cut.
        edges: Of all blocks, in any order.
        outside: Of all blocks.
        rules: By which it will be cut.
        at_once: Pairs that are waited for before they are put together.
    """
    ranges = Ranges.of(forest.nodes)
    # no orphans: what one of them merges with depends on the threshold
    segment = ranges.find(lookup_table(forest, threshold, replace(rules, orphans=0))[1])
    faces = np.zeros(len(forest.nodes), dtype=np.int64)
    faces[ranges.find(outside.id)] = outside.faces
    parts = [np.empty((3, 0), dtype=np.int64)]
    waiting = 0
    for block in edges:
        u, v = segment[ranges.find(block.u)], segment[ranges.find(block.v)]
        between = u != v
        low, high = np.minimum(u, v)[between], np.maximum(u, v)[between]
        parts.append(np.stack([low, high, block.contact_area[between]]))
        waiting += parts[-1].shape[1]
        if waiting >= at_once:
            parts, waiting = [_put_together(parts, len(faces))], 0
    u, v, area = _put_together(parts, len(faces))
    return Contacts(u, v, area, faces)


def _put_together(parts: list[NDArray[np.int64]], count: int) -> NDArray[np.int64]:
    """Rows u, v, area of all parts, each pair once."""
    u, v, area = np.concatenate(parts, axis=1)
    pairs, place = np.unique(u * count + v, return_inverse=True)
    total = np.zeros(len(pairs), dtype=np.int64)
    np.add.at(total, place, area)
    return np.stack([pairs // count, pairs % count, total])


def lookup_tables(
    forest: Forest, thresholds: Iterable[float], touching: Contacts | None, share: float, rules: SizeRules = AS_CUT
) -> dict[float, NDArray[np.uint64]]:
    """Which segment each fragment belongs to, for every threshold, with what is enclosed absorbed.

    Args:
        forest: The merge forest.
        thresholds: Edges with a score up to it are merged.
        touching: Contacts of the forest's fragments; None where nothing is absorbed, since the share is 0.
        share: See `absorb_enclosed`.
        rules: See `lookup_table`.

    Returns:
        `(2, n)` of each threshold: fragments, ascending; and their segments.
    """
    tables = {t: lookup_table(forest, t, rules) for t in thresholds}
    if touching is None:
        return tables
    return {t: absorb_enclosed(table, touching, share) for t, table in tables.items()}


def absorb_enclosed(table: NDArray[np.uint64], touching: Contacts, share: float) -> NDArray[np.uint64]:
    """Give every enclosed segment to the one that encloses it.

    Args:
        table: `(2, n)`: fragments, ascending; and their segments.
        touching: Contacts of these fragments.
        share: Of its surface that an enclosed segment has in common with another one, at least: above one half, so
            that only one can enclose it. 0 changes nothing.

    Returns:
        `(2, n)`: fragments; and their segments, each called by the smallest id of its fragments.

    Raises:
        ValueError: The share is neither 0 nor above one half.
    """
    if share == 0:
        return table
    if not 0.5 < share <= 1:
        raise ValueError(f"a share of {share} of a surface could belong to two; expected more than 0.5, up to 1, or 0")
    ids, segment = np.unique(table[1], return_inverse=True)
    u, v, area = touching.u, touching.v, touching.area
    while True:
        between = segment[u] != segment[v]
        u, v, area = u[between], v[between], area[between]
        goes_to = _enclosing(segment, len(ids), u, v, area, touching.outside, share)
        if np.array_equal(goes_to, np.arange(len(ids))):
            break
        segment = goes_to[segment]
    # a segment is called by its smallest fragment, which is not always one of the enclosing segment
    name = np.full(len(ids), np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(name, segment, table[0])
    return np.stack([table[0], name[segment]])


def _enclosing(
    segment: NDArray[np.int64],
    count: int,
    u: NDArray[np.int64],
    v: NDArray[np.int64],
    area: NDArray[np.int64],
    outside: NDArray[np.int64],
    share: float,
) -> NDArray[np.int64]:
    """For each of `count` segments, which one it becomes part of: in the end, itself."""
    itself = np.arange(count)
    if not len(u):
        return itself
    low, high = np.minimum(segment[u], segment[v]), np.maximum(segment[u], segment[v])
    pairs, place = np.unique(low * count + high, return_inverse=True)
    shared = np.bincount(place, weights=area)
    first, second = pairs // count, pairs % count
    surface = np.bincount(first, shared, count) + np.bincount(second, shared, count)
    is_open = np.bincount(segment, outside, count) > 0
    enclosed = [~is_open[inner] & (shared >= share * surface[inner]) for inner in (first, second)]
    # of two that enclose each other, the one of smaller surface goes; of equal ones, the earlier
    first_goes = enclosed[0] & ~(enclosed[1] & (surface[second] < surface[first]))
    second_goes = enclosed[1] & ~first_goes
    goes_to = itself.copy()
    goes_to[first[first_goes]] = second[first_goes]
    goes_to[second[second_goes]] = first[second_goes]
    # each has less in common with the one before it than with the next, so surfaces grow along the way, and it ends
    while not np.array_equal(further := goes_to[goes_to], goes_to):
        goes_to = further
    return goes_to
