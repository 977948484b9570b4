"""The merge forest: same components at every threshold, same bytes whatever the order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from neuroloom.agglomeration import load_forest, save_forest, spanning_forest
from neuroloom.errors import UserError

Graph = tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint64], NDArray[np.float32]]


def random_graph(count: int, edges: int, seed: int) -> Graph:
    random = np.random.default_rng(seed)
    nodes = random.permutation(np.unique(random.integers(1, 2**63, count))).astype(np.uint64)
    u, v = (random.choice(nodes, edges) for _ in range(2))
    different = u != v
    u, v = np.minimum(u, v)[different], np.maximum(u, v)[different]
    score = random.choice([0.0, 0.25, 0.5, 0.75, np.nan], len(u)).astype(np.float32)
    return nodes, random.integers(1, 100, len(nodes)), u, v, score


def components(count: int, u: NDArray[np.int64], v: NDArray[np.int64]) -> NDArray[np.int32]:
    labels: NDArray[np.int32] = connected_components(coo_matrix((np.ones(len(u)), (u, v)), (count, count)))[1]
    return labels


graphs = st.builds(random_graph, st.integers(1, 30), st.integers(0, 80), st.integers(0, 999))


@settings(deadline=None)
@given(graph=graphs, threshold=st.sampled_from([-1.0, 0.0, 0.3, 0.5, 1.0]))
def test_every_cut_has_the_components_of_all_edges(graph: Graph, threshold: float) -> None:
    nodes, size, u, v, score = graph
    forest = spanning_forest(nodes, size, u, v, score)
    ordered = np.sort(nodes)
    np.testing.assert_array_equal(forest.nodes, ordered)
    np.testing.assert_array_equal(forest.size, size[np.argsort(nodes)])
    low = score <= threshold
    expected = components(len(nodes), np.searchsorted(ordered, u[low]), np.searchsorted(ordered, v[low]))
    kept = forest.score <= threshold
    np.testing.assert_array_equal(components(len(nodes), forest.u[kept], forest.v[kept]), expected)


@settings(deadline=None)
@given(graphs)
def test_it_is_a_forest(graph: Graph) -> None:
    forest = spanning_forest(*graph)
    assert len(forest.u) == len(forest.nodes) - len(set(components(len(forest.nodes), forest.u, forest.v).tolist()))
    assert (forest.u < forest.v).all()
    assert (np.diff(forest.score) >= 0).all()


@settings(deadline=None)
@given(graph=graphs, seed=st.integers(0, 999))
def test_bytes_do_not_depend_on_order(tmp_path_factory: pytest.TempPathFactory, graph: Graph, seed: int) -> None:
    folder = tmp_path_factory.mktemp("forest")
    nodes, size, u, v, score = graph
    save_forest(spanning_forest(*graph), folder / "a.arrow")
    order = np.random.default_rng(seed).permutation(len(u))
    shuffled = spanning_forest(nodes[::-1], size[::-1], v[order], u[order], score[order])
    save_forest(shuffled, folder / "b.arrow")
    assert (folder / "a.arrow").read_bytes() == (folder / "b.arrow").read_bytes()
    loaded = load_forest(folder / "a.arrow")
    for name in ("nodes", "size", "u", "v", "score"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(shuffled, name))
        assert getattr(loaded, name).dtype == getattr(shuffled, name).dtype


def test_an_edge_to_nowhere_is_refused() -> None:
    one, two = np.array([1], np.uint64), np.array([2], np.uint64)
    with pytest.raises(ValueError, match="not among the nodes"):
        spanning_forest(one, np.array([1]), one, two, np.array([0.5], np.float32))


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_forest(tmp_path / "forest.arrow")
    save_forest(spanning_forest(*random_graph(20, 40, 0)), tmp_path / "forest.arrow")
    whole = (tmp_path / "forest.arrow").read_bytes()
    (tmp_path / "forest.arrow").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged"):
        load_forest(tmp_path / "forest.arrow")
