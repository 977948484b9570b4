"""The forest of edges that come block by block: the bytes of the definition, however they are cut and ordered."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuroloom.agglomeration import Forest, spanning_forest, stream_forest
from neuroloom.graph import Edges, Nodes

SCORES = (-np.inf, -1.5, -0.25, 0.0, 1e-40, 0.25, 0.5, 0.75, 1.0, np.inf, np.nan)


def some_nodes(ids: NDArray[np.uint64], size: NDArray[np.int64]) -> Nodes:
    place = np.zeros((len(ids), 3))
    return Nodes(ids, size, place, np.ones(len(ids), np.float32), place.astype(np.int64), place.astype(np.int64))


def some_edges(u: NDArray[np.uint64], v: NDArray[np.uint64], score: NDArray[np.float32]) -> Edges:
    return Edges(u, v, score, np.ones(len(u), np.int64), np.ones(len(u), np.float32), np.zeros((len(u), 3), np.float32))


def random_edges(nodes: NDArray[np.uint64], count: int, random: np.random.Generator) -> Edges:
    u, v = (random.choice(nodes, count) for _ in range(2))
    different = u != v
    return some_edges(u[different], v[different], random.choice(SCORES, different.sum()).astype(np.float32))


def pieces(columns: Nodes | Edges, random: np.random.Generator) -> Iterator[Nodes | Edges]:
    """Cut at random places, some of them the same."""
    cuts = np.sort(random.integers(0, len(columns) + 1, 5))
    for begin, end in zip([0, *cuts], [*cuts, len(columns)], strict=True):
        yield columns.select(np.arange(begin, end))


def assert_same(forest: Forest, expected: Forest) -> None:
    for name in ("nodes", "size", "u", "v", "score"):
        found, wanted = getattr(forest, name), getattr(expected, name)
        assert found.dtype == wanted.dtype
        assert found.tobytes() == wanted.tobytes(), name


@settings(deadline=None)
@given(
    count=st.integers(1, 60),
    edges=st.integers(0, 200),
    at_once=st.sampled_from([1, 5, 30, 10**6]),
    dense=st.booleans(),
    seed=st.integers(0, 9999),
)
def test_batches_give_the_forest_of_the_definition(
    count: int, edges: int, at_once: int, dense: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    ids = np.arange(7, 7 + count) if dense else np.unique(random.integers(1, 2**63, count))
    nodes = some_nodes(random.permutation(ids).astype(np.uint64), random.integers(1, 100, len(ids)))
    rows = random_edges(nodes.id, edges, random)
    expected = spanning_forest(nodes.id, nodes.size, rows.u, rows.v, rows.merge_score)
    shuffled = rows.select(random.permutation(len(rows)))
    assert_same(stream_forest(pieces(nodes, random), pieces(shuffled, random), at_once), expected)


@pytest.mark.parametrize("at_once", [100, 10**6])
def test_many_digits_are_sorted_right(at_once: int) -> None:
    random = np.random.default_rng(0)
    nodes = some_nodes(np.arange(1, 20_001, dtype=np.uint64) * np.uint64(3), np.ones(20_000, np.int64))
    u, v = (random.choice(nodes.id, 60_000) for _ in range(2))
    rows = some_edges(u, v, random.standard_normal(60_000).astype(np.float32)).select(u != v)
    expected = spanning_forest(nodes.id, nodes.size, rows.u, rows.v, rows.merge_score)
    blocks = [rows.select(np.arange(i, min(i + 999, len(rows)))) for i in range(0, len(rows), 999)]
    assert_same(stream_forest([nodes], blocks, at_once), expected)


def test_nothing_gives_nothing() -> None:
    assert len(stream_forest([], []).nodes) == 0
    alone = some_nodes(np.array([5], np.uint64), np.array([3]))
    forest = stream_forest([alone], [])
    assert (forest.nodes.tolist(), forest.size.tolist(), forest.u.tolist()) == ([5], [3], [])


def test_minus_zero_is_zero() -> None:
    nodes = some_nodes(np.array([1, 2, 3], np.uint64), np.ones(3, np.int64))
    u, v = np.array([1, 1, 2], np.uint64), np.array([2, 3, 3], np.uint64)
    rows = some_edges(u, v, np.array([0.0, 0.0, -0.0], np.float32))
    assert_same(stream_forest([nodes], [rows]), spanning_forest(nodes.id, nodes.size, u, v, rows.merge_score))


@pytest.mark.parametrize("end", [0, 4, 9])
def test_an_edge_to_nowhere_is_refused(end: int) -> None:
    nodes = some_nodes(np.array([1, 2, 3, 8], np.uint64), np.ones(4, np.int64))
    one = np.array([2], np.uint64)
    for u, v in ((one, np.array([end], np.uint64)), (np.array([end], np.uint64), one)):
        with pytest.raises(ValueError, match="not among the nodes"):
            stream_forest([nodes], [some_edges(u, v, np.array([0.5], np.float32))])
    # what never merges needs no ends, as ever
    nowhere = some_edges(one, np.array([end], np.uint64), np.array([np.nan], np.float32))
    assert len(stream_forest([nodes], [nowhere]).u) == 0
