"""Merge scores: at which score of a hierarchical agglomeration two touching fragments become one region.

              0.45 |        +-----+-----+            score(a, b) = 0.10     score(c, d) = 0.20
                   |     +--+--+     +--+--+         score(b, c) = 0.45     and so has every other edge between
        0.10, 0.20 |     a     b     c     d         the two halves: a-c, a-d, b-d

Not the score of an edge on its own, but of the regions it has become part of by the time they merge (waterz 0.10,
Funke et al. 2018). A pair that never becomes one has the score NaN. Scores are 1 - affinity: LOW merges first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from neuroloom.fragments.contacts import Contacts, find_contacts
from neuroloom.fragments.hierarchy import merge_history
from neuroloom.fragments.labels import compact
from neuroloom.graph.tables import Edges


def merge_scores(affinities: NDArray[np.uint8], fragments: NDArray[np.uint64], merge_function: str) -> Edges:
    """Score all pairs of touching fragments of a volume.

    Args:
        affinities: `(3, z, y, x)`, 255 = 1; channel c at v tells of v and its neighbour before along axis c.
        fragments: `(z, y, x)`, any ids, 0 = none.
        merge_function: How the affinity between two regions is measured, such as "hist_quant_75"; one of
            `neuroloom.fragments.hierarchy.MERGE_FUNCTIONS`.

    Returns:
        One row per pair, sorted by u, then v; positions from the array's begin.

    Raises:
        UserError: The merge function has no such name.
    """
    ids, numbers = compact(fragments)
    touching = find_contacts(affinities, numbers)
    return as_edges(touching, hierarchical_scores(touching, merge_function), ids)


def hierarchical_scores(touching: Contacts, merge_function: str) -> NDArray[np.float32]:
    """Scores of pairs of regions.

    Args:
        touching: All pairs that touch, and any others that were observed.
        merge_function: One of `neuroloom.fragments.hierarchy.MERGE_FUNCTIONS`.

    Returns:
        One for each row.

    Raises:
        UserError: The merge function has no such name.
    """
    return scores_of_merges(*merge_history(touching, merge_function, threshold=1.0), touching)


def scores_of_merges(merges: NDArray[Any], scores: NDArray[np.float32], touching: Contacts) -> NDArray[np.float32]:
    """At which score of a series of merges two regions become one; NaN where they never do.

    Args:
        merges: `(m, 2)`, a part of each of the two regions that become one, in order.
        scores: `(m,)`, theirs.
        touching: The pairs that are asked for.
    """
    u, v = touching.u.astype(np.int64), touching.v.astype(np.int64)
    regions = 1 + max(int(v.max(initial=0)), int(merges.max(initial=0)))
    return np.append(scores, np.float32(np.nan))[join_times(regions, merges.astype(np.int64), u, v)]


def as_edges(
    touching: Contacts, score: NDArray[np.float32], ids: NDArray[np.uint64], begin: Sequence[int] = (0, 0, 0)
) -> Edges:
    """Pairs of touching regions as edges of the graph.

    Args:
        touching: Pairs of regions 1 … n; those that do not touch are left out.
        score: One for each.
        ids: `(n,)`, what regions are called, ascending.
        begin: Where the volume has voxel (0, 0, 0) of the array that contacts were found in.
    """
    rows = np.flatnonzero(touching.area)
    area, u, v = touching.area[rows], touching.u[rows] - 1, touching.v[rows] - 1
    mean = (touching.total[rows] / (255 * area)).astype(np.float32)
    # whole numbers until the only division, so that a face's place is the same whichever block has found it
    halves = 2 * area[:, None]
    position = ((touching.place[rows] + halves * np.array(begin, np.int64)) / halves).astype(np.float32)
    return Edges(ids[u], ids[v], score[rows], area, mean, position)


@numba.njit(cache=True)
def join_times(count: int, merges: Any, u: Any, v: Any) -> Any:
    """For pairs of nodes, which of a series of merges makes them one.

    Args:
        count: Number of nodes, 0 … count - 1.
        merges: `(m, 2)`, a node of each of the two regions that become one.
        u: `(n,)`, first nodes.
        v: `(n,)`, second nodes.

    Returns:
        `(n,)`, index of the merge; -1 if there is none.
    """
    # The smaller tree is hung below the larger one's root and remembers when: times grow towards the root, and no
    # path is longer than log2(count).
    never = len(merges)
    parent = np.arange(count)
    time = np.full(count, never)
    size = np.ones(count, dtype=np.int64)
    for i in range(len(merges)):
        a, b = merges[i, 0], merges[i, 1]
        while parent[a] != a:
            a = parent[a]
        while parent[b] != b:
            b = parent[b]
        if a == b:
            continue
        if size[a] < size[b]:
            a, b = b, a
        parent[b] = a
        time[b] = i
        size[a] += size[b]
    result = np.empty(len(u), dtype=np.int64)
    for i in range(len(u)):
        a, b, joined = u[i], v[i], np.int64(-1)
        while a != b:
            if time[a] > time[b]:
                a, b = b, a
            if time[a] == never:
                joined = np.int64(-1)
                break
            joined = time[a]
            a = parent[a]
        result[i] = joined
    return result
