"""Hierarchical agglomeration: regions that touch are merged, most alike first.

    score(u, v) = 1 - quantile_q { affinity(a, b) : a in u, b in v, a and b share a face }      LOW merges first
                  or 1 - their mean

The method, its order of merges and its scores are those of waterz (Funke et al., "Large scale image segmentation with
structured loss based deep learning", 2018): edges wait in 256 queues by score, first come first served. When two
regions become one, what both have in common with a third becomes one edge, which keeps the place of the lower score;
it is scored anew when its turn comes, and waits again. Histories are equal, but for the mean: it is that of whole
numbers here, so that rounding does not depend on the order of voxels.

Affinities of voxels farther apart may take part: they are observations of a pair of regions like those of its faces. Of
regions that do not touch they are kept until merges make them touch, and count from then on, as those of lifted edges
do (Bailoni et al., "GASP, a generalized framework for agglomerative clustering of signed graphs", 2022); by themselves
they never merge.

Regions are merged the smaller into the larger, by number of edges, and called by the smallest number of their parts;
what touches what is asked of one hash table. Every edge is moved a few times at most.
"""

from __future__ import annotations

import re
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.fragments.contacts import GREY, Contacts, find_contacts, find_slot, pair_key

QUEUE_BINS = 256
"""Scores are sorted into so many queues."""

MERGE_FUNCTIONS = ("mean", *(f"hist_quant_{q}{suffix}" for q in (10, 25, 50, 75, 90) for suffix in ("", "_initmax")))
"""How the affinity between two regions is measured. `_initmax`: a contact begins with its largest affinity alone."""


def agglomerate(
    affinities: NDArray[np.uint8], numbers: NDArray[np.uint32], merge_function: str, threshold: float
) -> NDArray[np.uint32]:
    """Merge regions up to a threshold.

    Args:
        affinities: `(3, z, y, x)`, 255 = 1; channel c at v tells of v and its neighbour before along axis c.
        numbers: `(z, y, x)`, regions 1 … n, 0 = none.
        merge_function: One of `MERGE_FUNCTIONS`.
        threshold: Merge while the lowest score is below it.

    Returns:
        Merged regions `(z, y, x)`, each with the smallest number of its parts.

    Raises:
        UserError: The merge function has no such name.
    """
    merges, _ = merge_history(find_contacts(affinities, numbers), merge_function, threshold)
    return _names(int(numbers.max(initial=0)), merges)[numbers]


def merge_history(
    touching: Contacts, merge_function: str, threshold: float
) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """Merge regions up to a threshold, and say how.

    Args:
        touching: All pairs of regions that touch, and any that do not, but were observed.
        merge_function: One of `MERGE_FUNCTIONS`.
        threshold: Merge while the lowest score is below it.

    Returns:
        The merges in their order, `(m, 2)`: the second region becomes part of the first; and their scores, `(m,)`.

    Raises:
        UserError: The merge function has no such name.
    """
    check_merge_function(merge_function)
    found = re.fullmatch(r"hist_quant_(\d+)(_initmax)?", merge_function)
    faces = touching.faces.copy()
    if found and found[2]:
        largest = GREY - 1 - np.argmax(faces[:, ::-1] > 0, axis=1)
        faces[:] = 0
        faces[np.arange(len(faces)), largest] = 1
    return _merge(
        touching.u, touching.v, touching.area > 0, faces, int(found[1]) if found else -1, np.float32(threshold)
    )


def check_merge_function(name: str) -> None:
    """Refuse a merge function that is not among `MERGE_FUNCTIONS`.

    Args:
        name: Such as "hist_quant_75".

    Raises:
        UserError: There is none of that name.
    """
    if name not in MERGE_FUNCTIONS:
        raise UserError(f"There is no merge function {name!r}. Choose one of {', '.join(sorted(MERGE_FUNCTIONS))}.")


@numba.njit(cache=True)
def _names(regions: int, merges: Any) -> Any:
    """What every region is called after merges."""
    names = np.arange(regions + 1).astype(np.uint32)
    for i in range(len(merges) - 1, -1, -1):  # what a region becomes part of is known before its parts ask
        names[merges[i, 1]] = names[merges[i, 0]]
    return names


@numba.njit(cache=True)
def _score(faces: Any, quantile: int) -> Any:
    """1 - quantile, as the middle of its grey value's bin; of the mean, where the quantile is negative."""
    total = np.int64(0)
    if quantile < 0:
        weighted = np.int64(0)
        for grey in range(len(faces)):
            total += faces[grey]
            weighted += np.int64(faces[grey]) * grey
        return np.float32(1) - np.float32(weighted / (255 * total))
    for count in faces:
        total += count
    pivot, seen, grey = quantile * total // 100 + 1, np.int64(0), 0
    while True:
        seen += faces[grey]
        if seen >= pivot:
            return np.float32(1) - np.float32((grey + 0.5) / 256)
        grey += 1


@numba.njit(cache=True)
def _merge(u: Any, v: Any, touch: Any, faces: Any, quantile: int, threshold: Any) -> Any:
    edges = len(u)
    regions = np.int64(1)
    for last in v:
        regions = max(regions, np.int64(last) + 1)
    # regions: `name` is the smallest number of the parts, of the one that stands for all
    name = np.arange(regions)
    degree = np.zeros(regions, dtype=np.int64)
    first = np.full(regions, -1, dtype=np.int64)
    # edges: their ends, and lists of those of a region; an edge is in as many lists as it had ends
    ends = np.empty((edges, 2), dtype=np.int64)
    listed = np.empty(2 * edges + 16, dtype=np.int64)
    following = np.empty(2 * edges + 16, dtype=np.int64)
    used = np.int64(0)
    score = np.empty(edges, dtype=np.float32)
    gone, stale = np.zeros(edges, dtype=np.bool_), np.zeros(edges, dtype=np.bool_)
    capacity = 16
    while capacity < 4 * edges:
        capacity *= 2
    keys, edge_of = np.zeros(capacity, dtype=np.uint64), np.empty(capacity, dtype=np.int64)
    filled = edges
    # queues: an edge that is scored anew waits again, at most once for each edge that has gone
    waiting, behind = np.empty(2 * edges + 1, dtype=np.int64), np.full(2 * edges + 1, -1, dtype=np.int64)
    head, tail = np.full(256, -1, dtype=np.int64), np.full(256, -1, dtype=np.int64)
    queued, lowest = np.int64(0), 256
    for e in range(edges):
        ends[e, 0], ends[e, 1] = u[e], v[e]
        for end in (np.int64(u[e]), np.int64(v[e])):
            listed[used], following[used] = e, first[end]
            first[end] = used
            degree[end] += 1
            used += 1
        key = pair_key(u[e], v[e])
        place = find_slot(keys, key)
        keys[place] = key
        edge_of[place] = e
        # what does not touch does not wait; it is the higher one of two, so that the other one keeps its place
        score[e] = _score(faces[e], quantile) if touch[e] else np.float32(np.inf)
        if touch[e]:
            lowest, queued = _wait(e, score[e], waiting, behind, head, tail, lowest, queued)
    merges, scores = np.empty((regions, 2), dtype=np.uint32), np.empty(regions, dtype=np.float32)
    merged = 0
    while lowest < 256:
        e = waiting[head[lowest]]
        if score[e] >= threshold:
            break
        head[lowest] = behind[head[lowest]]
        while lowest < 256 and head[lowest] < 0:
            lowest += 1
        if gone[e]:
            continue
        if stale[e]:
            stale[e] = False
            score[e] = _score(faces[e], quantile)
            lowest, queued = _wait(e, score[e], waiting, behind, head, tail, lowest, queued)
            continue
        large, small = ends[e, 0], ends[e, 1]
        if name[large] > name[small]:
            large, small = small, large
        merges[merged, 0], merges[merged, 1], scores[merged] = name[large], name[small], score[e]
        merged += 1
        gone[e] = True
        kept_is_large = True  # whether `large` is the region whose number is kept
        if degree[large] < degree[small]:
            large, small, kept_is_large = small, large, False
        kept_name = min(name[large], name[small])
        entry = first[small]
        while entry >= 0:
            other, entry = listed[entry], following[entry]
            if gone[other]:
                continue
            third = ends[other, 0] if ends[other, 0] != small else ends[other, 1]
            key = pair_key(large, third)
            place = find_slot(keys, key)
            moved = True
            if keys[place] == 0:
                keys[place], edge_of[place] = key, other
                filled += 1
            else:
                ours = edge_of[place]
                # of the edge of the region that is kept and that of the other, the latter stays if they are alike
                of_kept, of_other = (ours, other) if kept_is_large else (other, ours)
                stays, goes = (of_kept, of_other) if score[of_other] > score[of_kept] else (of_other, of_kept)
                for grey in range(256):
                    faces[stays, grey] += faces[goes, grey]
                gone[goes], stale[stays] = True, True
                edge_of[place] = stays
                moved = stays == other
            if moved:
                ends[other, 0], ends[other, 1] = large, third
                if used == len(listed):
                    listed, following = np.append(listed, listed), np.append(following, following)
                listed[used], following[used] = other, first[large]
                first[large] = used
                degree[large] += 1
                used += 1
            if 2 * filled > len(keys):
                old_keys, old_edges = keys, edge_of
                keys, edge_of = np.zeros(2 * len(keys), dtype=np.uint64), np.empty(2 * len(keys), dtype=np.int64)
                filled = 0
                for i in range(len(old_keys)):
                    if old_keys[i] == 0 or gone[old_edges[i]]:
                        continue
                    a, b = ends[old_edges[i]]
                    if old_keys[i] == pair_key(a, b):
                        again = find_slot(keys, old_keys[i])
                        keys[again], edge_of[again] = old_keys[i], old_edges[i]
                        filled += 1
        name[large] = kept_name
    return merges[:merged], scores[:merged]


@numba.njit(cache=True)
def _wait(e: Any, score: Any, waiting: Any, behind: Any, head: Any, tail: Any, lowest: Any, queued: Any) -> Any:
    """Queue an edge up; the lowest queue that has any, and how many have queued so far."""
    bin = min(255, max(0, np.int64(score * np.float32(256))))
    waiting[queued] = e
    if head[bin] < 0:
        head[bin] = queued
    else:
        behind[tail[bin]] = queued
    tail[bin] = queued
    return min(lowest, bin), queued + 1
