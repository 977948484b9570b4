"""The merge forest of a volume whose edges do not fit into memory: they come block by block and most go at once.

    edges of blocks   ======  ======  ======  ======        a batch's own forest has fewer edges than the fragments
    their forests     =       =       =       =             in it; the forest of these forests is that of all edges
    forest            ==

What a part of the edges drops is the last of a circle, and so all edges would drop it as well. Edges are ordered by
(score, u, v), no two alike, so there is exactly one minimum spanning forest: that of `spanning_forest`, however edges
are put into batches. Memory holds about a hundred bytes per fragment, however many edges there are.

In memory, an edge is two integers that sort as it does:

    key     the score's 32 bits, so turned that unsigned integers rise as scores do
    pair    place of u << 32 | place of v, among the ascending fragments
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from neuroloom.agglomeration.forest import Forest
from neuroloom.fragments.ranges import Ranges, find_range
from neuroloom.graph.tables import Scores, Sizes

AT_ONCE = 1 << 22
"""Edges of a batch: with their fragments little enough to stay in a processor's cache, mostly."""

_DIGIT = 11
"""Bits that are sorted by at a time."""


def stream_forest(nodes: Iterable[Sizes], edges: Iterable[Scores], at_once: int = AT_ONCE) -> Forest:
    """Reduce scored edges to the same forest as `spanning_forest`, with all of them never in memory.

    Args:
        nodes: All fragments, block by block, in any order.
        edges: Likewise; NaN = never merges. Fast where blocks near to each other come one after the other.
        at_once: Edges of a batch; more where one block has more.

    Raises:
        ValueError: An edge's end is not among the nodes.
        OverflowError: There are 2³² nodes or more.
    """
    ids, size = _numbered(nodes)
    if len(ids) >= 1 << 32:
        raise OverflowError(f"{len(ids)} fragments; expected fewer than 2**32")
    reducer = _Reducer(len(ids))
    ranges = Ranges.of(ids)
    most = max(2 * len(ids), 4 * at_once)
    waiting: list[tuple[NDArray[np.uint64], NDArray[np.uint32]]] = []
    kept: list[tuple[NDArray[np.uint64], NDArray[np.uint32]]] = []
    for block in edges:
        waiting.append(_encoded(block, ranges))
        if sum(len(key) for _, key in waiting) >= at_once:
            kept.append(reducer(waiting))
        if sum(len(key) for _, key in kept) >= most:
            kept.append(reducer(kept))
    kept.append(reducer(waiting))
    pair, key = reducer(kept)
    return Forest(ids, size, (pair >> np.uint64(32)).astype(np.int64), (pair & _LOW).astype(np.int64), _scores(key))


_LOW = np.uint64((1 << 32) - 1)


def _numbered(nodes: Iterable[Sizes]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """All fragments' ids, ascending, and their voxels; of an id that comes twice the first one counts."""
    parts = [(part.id, part.size) for part in nodes]
    ids = np.concatenate([np.empty(0, np.uint64), *(part[0] for part in parts)])
    size = np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)])
    if not _ascends(ids):
        ids, place = np.unique(ids, return_index=True)
        size = size[place]
    return ids, size


def _encoded(edges: Scores, ranges: Ranges) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """The pairs and keys of a block's edges that merge.

    Raises:
        ValueError: An edge's end is not among the nodes.
    """
    pair, key = np.empty(len(edges), np.uint64), np.empty(len(edges), np.uint32)
    # -0 is 0 to any comparison, and has other bits
    bits = (edges.merge_score.astype(np.float32, copy=False) + np.float32(0)).view(np.uint32)
    count = _encode(edges.u, edges.v, edges.merge_score, bits, ranges.first, ranges.length, ranges.place, pair, key)
    if count < 0:
        raise ValueError("an edge joins a fragment that is not among the nodes")
    return pair[:count], key[:count]


def _scores(key: NDArray[np.uint32]) -> NDArray[np.float32]:
    """The scores of keys."""
    positive = key >= np.uint32(1 << 31)
    return np.where(positive, key ^ np.uint32(1 << 31), ~key).view(np.float32)


class _Reducer:
    """Edges -> their minimum spanning forest, in order.

    Args:
        count: Number of all fragments.
    """

    def __init__(self, count: int) -> None:
        self._parent = np.empty(count, np.int64 if count >= 1 << 31 else np.int32)
        self._bits = max(1, count - 1).bit_length()

    def __call__(
        self, parts: list[tuple[NDArray[np.uint64], NDArray[np.uint32]]]
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
        """Pairs and keys of the forest of all parts, ascending; the list is emptied, so that its memory is free."""
        pair = np.concatenate([np.empty(0, np.uint64), *(part[0] for part in parts)])
        key = np.concatenate([np.empty(0, np.uint32), *(part[1] for part in parts)])
        parts.clear()
        pair, key = self._sorted(pair, key)
        count = _kruskal(pair, key, self._parent)
        return pair[:count].copy(), key[:count].copy()

    def _sorted(
        self, pair: NDArray[np.uint64], key: NDArray[np.uint32]
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
        """Both by (key, pair), ascending: digit by digit, the least first."""
        spare = np.empty_like(pair), np.empty_like(key)
        # of fragments, only as many bits as they have numbers
        of_pair = [begin + bit for begin in (0, 32) for bit in range(0, self._bits, _DIGIT)]
        for bit in [] if _ascends(pair) else of_pair:
            _by_digit(pair, pair, key, *spare, bit)
            (pair, key), spare = spare, (pair, key)
        for bit in range(0, 32, _DIGIT):
            _by_digit(key, pair, key, *spare, bit)
            (pair, key), spare = spare, (pair, key)
        return pair, key


@numba.njit(cache=True, nogil=True)
def _ascends(values: Any) -> bool:
    """Whether each is larger than the one before."""
    for i in range(1, len(values)):  # noqa: SIM110, numba knows no generators here
        if values[i] <= values[i - 1]:
            return False
    return True


@numba.njit(cache=True, nogil=True)
def _encode(u: Any, v: Any, score: Any, bits: Any, first: Any, length: Any, place: Any, pair: Any, key: Any) -> int:
    """Fill `pair` and `key`; how many, or -1 if an end is not among the nodes."""
    count = 0
    a = b = 0
    for i in range(len(u)):
        if np.isnan(score[i]):
            continue
        # mostly in the ranges of the edge before
        if a >= len(first) or u[i] < first[a] or u[i] - first[a] >= length[a]:
            a = find_range(u[i], first, length)
        if b >= len(first) or v[i] < first[b] or v[i] - first[b] >= length[b]:
            b = find_range(v[i], first, length)
        if a < 0 or b < 0:
            return -1
        one = np.uint64(place[a]) + (u[i] - first[a])
        two = np.uint64(place[b]) + (v[i] - first[b])
        pair[count] = (min(one, two) << np.uint64(32)) | max(one, two)
        sign = np.uint32(1 << 31)
        key[count] = ~bits[i] if bits[i] & sign else bits[i] | sign
        count += 1
    return count


@numba.njit(cache=True, nogil=True)
def _by_digit(by: Any, pair: Any, key: Any, sorted_pair: Any, sorted_key: Any, bit: int) -> None:
    """Sort by the digit that begins at a bit; what has the same digit keeps its order."""
    digits = 1 << _DIGIT
    shift, mask = np.uint64(bit), np.uint64(digits - 1)
    begin = np.zeros(digits + 1, np.int64)
    for i in range(len(by)):
        begin[np.int64((np.uint64(by[i]) >> shift) & mask) + 1] += 1
    for k in range(digits):
        begin[k + 1] += begin[k]
    for i in range(len(by)):
        digit = np.int64((np.uint64(by[i]) >> shift) & mask)
        sorted_pair[begin[digit]] = pair[i]
        sorted_key[begin[digit]] = key[i]
        begin[digit] += 1


@numba.njit(cache=True, nogil=True)
def _kruskal(pair: Any, key: Any, parent: Any) -> int:
    """Move edges that join two trees, taken in their order, to the front; how many.

    A root holds minus the size of its tree.
    """
    low = np.uint64((1 << 32) - 1)
    for i in range(len(pair)):
        parent[np.int64(pair[i] >> np.uint64(32))] = -1
        parent[np.int64(pair[i] & low)] = -1
    count = 0
    for i in range(len(pair)):
        a = _root(parent, np.int64(pair[i] >> np.uint64(32)))
        b = _root(parent, np.int64(pair[i] & low))
        if a == b:
            continue
        if parent[a] > parent[b]:
            a, b = b, a
        parent[a] += parent[b]
        parent[b] = a
        pair[count] = pair[i]
        key[count] = key[i]
        count += 1
    return count


@numba.njit(cache=True, nogil=True)
def _root(parent: Any, node: int) -> int:
    """The root of a node; halves the path on the way."""
    while parent[node] >= 0:
        above = parent[node]
        if parent[above] >= 0:
            parent[node] = parent[above]
        node = above
    return node
