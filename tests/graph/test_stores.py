"""The contract of all graph stores: what goes in comes out, in one order, whatever keeps it."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from funlib.geometry import Roi
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graph_rows import equal, some_edges, some_nodes, some_outside
from neuroloom.addresses import FILES
from neuroloom.errors import UserError
from neuroloom.graph import Edges, GraphFiles, GraphStore, Nodes, Outside, Run
from neuroloom.graph.place import scheme_of, store_class

Open = Callable[..., GraphStore]
RUN = Run(name="whole_fragments-0123456789ab", fingerprint="a" * 64)
BLOCKS = (11, 2, 0)


@pytest.fixture(
    params=[
        "files",
        "sqlite",
        pytest.param("postgres", marks=pytest.mark.system),
        "stand-in of MongoDB",
        # no server is to be had from package registries: only where somebody names one
        *([pytest.param("mongodb", marks=pytest.mark.system)] if os.environ.get("NEUROLOOM_TEST_MONGODB") else []),
    ]
)
def opened(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Opens the store anew, as another process would: the same place each time."""
    kind = request.param
    if kind == "files":
        address = FILES
    elif kind == "sqlite":
        address = f"sqlite:{tmp_path / 'deep' / 'graph.sqlite'}"
    elif kind == "postgres":
        address = request.getfixturevalue("postgres").address(f"contract_{uuid.uuid4().hex}")
    elif kind == "mongodb":
        monkeypatch.setenv("NEUROLOOM_MONGODB", os.environ["NEUROLOOM_TEST_MONGODB"])
        address = f"mongodb:///neuroloom-test-{uuid.uuid4().hex[:12]}"
    else:
        import mongomock

        client = mongomock.MongoClient()
        monkeypatch.setattr("neuroloom.graph.mongo.connect", lambda address: client)
        monkeypatch.setattr(client, "close", lambda: None)
        address = "mongodb://127.0.0.1/graphs"

    def open_store(run: Run = RUN) -> GraphStore:
        if address == FILES:
            return GraphFiles(tmp_path / run.name)
        store: GraphStore = store_class(scheme_of(address))(address, run)  # type: ignore[call-arg]
        request.addfinalizer(store.close)
        return store

    return open_store


def test_rows_come_back_by_block_and_sorted(opened: Open) -> None:
    store = opened()
    nodes, edges = {b: some_nodes(7, b) for b in BLOCKS}, {b: some_edges(9, b) for b in BLOCKS}
    outside = {b: some_outside(5, b) for b in (2, 0)}
    for block in BLOCKS:
        store.write_nodes(block, nodes[block])
        store.write_edges(block, edges[block])
    for block in (2, 0):
        store.write_outside(block, outside[block])
    store = opened()
    for block, found in zip((0, 2, 11), store.nodes(), strict=True):
        assert equal(found, nodes[block].select(np.argsort(nodes[block].id)))
    for block, found in zip((0, 2, 11), store.edges(), strict=True):
        assert equal(found, edges[block].select(np.lexsort((edges[block].v, edges[block].u))))
    in_order = [outside[b].select(np.argsort(outside[b].id)) for b in (0, 2)]
    assert equal(store.read_outside(), Outside.concatenate(in_order))
    assert len(store.read_nodes()) == 21
    assert equal(store.read_edges(), Edges.concatenate(list(store.edges())))
    assert store.blocks("edges") == {0, 2, 11}
    assert store.blocks("outside") == {0, 2}


def test_some_columns_are_those_of_all(opened: Open) -> None:
    store = opened()
    for block in BLOCKS:
        store.write_nodes(block, some_nodes(7, block))
        store.write_edges(block, some_edges(9, block))
    store.write_edges(5, some_edges(0, 5))
    store = opened()
    for whole, part in (
        (store.nodes(), store.sizes()),
        (store.edges(), store.scores()),
        (store.edges(), store.areas()),
    ):
        for one, other in zip(whole, part, strict=True):
            for field in fields(other):
                ours, theirs = getattr(one, field.name), getattr(other, field.name)
                assert ours.dtype == theirs.dtype
                assert np.array_equal(ours, theirs, equal_nan=ours.dtype.kind == "f")


def test_a_region_holds_centres_from_its_begin_to_before_its_end(opened: Open) -> None:
    store = opened()
    nodes = some_nodes(40, 3)
    store.write_nodes(0, nodes.select(np.arange(20)))
    store.write_nodes(7, nodes.select(np.arange(20, 40)))
    begin, end = np.array([20, 0, 10]), np.array([70, 90, 80])
    inside = nodes.select(np.all((nodes.centre >= begin) & (nodes.centre < end), axis=1))
    found = store.read_nodes(Roi(tuple(begin), tuple(end - begin)))
    assert 0 < len(inside) < 40
    assert equal(found.select(np.argsort(found.id)), inside.select(np.argsort(inside.id)))
    on_border = replace(nodes, centre=np.full((40, 3), 5.0))
    store.write_nodes(0, on_border)
    store.write_nodes(7, nodes.select(np.arange(0)))
    assert len(store.read_nodes(Roi((5, 5, 5), (1, 1, 1)))) == 40
    assert len(store.read_nodes(Roi((4, 4, 4), (1, 1, 1)))) == 0


def test_nothing_is_nothing_and_an_empty_block_counts_as_written(opened: Open) -> None:
    store = opened()
    assert store.blocks("nodes") == store.blocks("edges") == store.blocks("outside") == set()
    assert len(store.read_nodes()) == len(store.read_edges()) == len(store.read_outside()) == 0
    store.write_nodes(3, some_nodes(0, 0))
    store.write_edges(3, some_edges(0, 0))
    store = opened()
    assert store.blocks("nodes") == store.blocks("edges") == {3}
    assert store.blocks("outside") == set()
    assert [len(nodes) for nodes in store.nodes()] == [0]
    assert equal(store.read_nodes(), some_nodes(0, 0))
    assert equal(store.read_edges(), some_edges(0, 0))


def test_a_block_done_again_is_there_once(opened: Open) -> None:
    store = opened()
    store.write_edges(1, some_edges(30, 1))
    store.write_edges(2, some_edges(5, 2))
    before = store.read_edges()
    store.write_edges(1, some_edges(30, 1))
    assert equal(opened().read_edges(), before)
    for count in (4, 40, 0):
        store.write_edges(1, some_edges(count, 9))
        one, two = opened().edges()
        assert len(one) == count
        assert len(two) == 5


def test_numbers_at_their_limits_come_back(opened: Open) -> None:
    ids = np.array([0, 1, 2**63 - 1, 2**63, 2**63 + 5, 2**64 - 1], np.uint64)
    numbers = np.array([0, 1, 2**40, 2**62, 2**63 - 1, -(2**63)], np.int64)
    scores = np.array([np.nan, np.inf, 0.0, 1e-40, -1.5, 0.1], np.float32)
    edges = Edges(ids, ids[::-1].copy(), scores, numbers, scores[::-1].copy(), np.stack([scores] * 3, axis=1))
    nodes = Nodes(
        ids,
        numbers,
        np.array([[1 / 3, 2**40 + 0.5, 1e-300]] * 6),
        scores,
        np.array([[0, 1, 2]] * 6),
        np.stack([numbers] * 3, axis=1),
    )
    store = opened()
    store.write_edges(2**31 - 1, edges.select(np.array([3, 1, 5, 0, 2, 4])))
    store.write_nodes(0, nodes.select(np.array([3, 1, 5, 0, 2, 4])))
    store = opened()
    found = store.read_edges()
    for name in ("u", "v", "merge_score", "contact_area", "mean_affinity", "position"):
        np.testing.assert_array_equal(getattr(found, name), getattr(edges, name))
    again = store.read_nodes()
    np.testing.assert_array_equal(again.id, ids)
    np.testing.assert_array_equal(again.centre, nodes.centre)
    np.testing.assert_array_equal(again.end, nodes.end)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    writes=st.lists(
        st.tuples(st.sampled_from(["nodes", "edges"]), st.integers(0, 5), st.integers(0, 12), st.integers(0, 99)),
        max_size=8,
    )
)
def test_the_last_writing_of_each_block_counts(opened: Open, writes: list[tuple[str, int, int, int]]) -> None:
    run = RUN.model_copy(update={"name": f"whole_{uuid.uuid4().hex[:12]}"})
    store = opened(run)
    nodes: dict[int, Nodes] = {}
    edges: dict[int, Edges] = {}
    for kind, block, count, seed in writes:
        if kind == "nodes":
            nodes[block] = some_nodes(count, seed)
            store.write_nodes(block, nodes[block])
        else:
            edges[block] = some_edges(count, seed)
            store.write_edges(block, edges[block])
    store.close()
    store = opened(run)
    assert store.blocks("nodes") == set(nodes)
    assert store.blocks("edges") == set(edges)
    for (_, wrote), found in zip(sorted(nodes.items()), store.nodes(), strict=True):
        assert equal(found, wrote.select(np.argsort(wrote.id)))
    for (_, made), got in zip(sorted(edges.items()), store.edges(), strict=True):
        assert equal(got, made.select(np.lexsort((made.v, made.u))))
    store.close()


def test_two_writers_of_one_block_leave_it_once(opened: Open) -> None:
    edges = some_edges(3000, 1)
    problems: list[BaseException] = []

    def write() -> None:
        try:
            store = opened()
            for _ in range(3):
                store.write_edges(5, edges)
                store.write_edges(6, edges.select(np.arange(10)))
            store.close()
        except BaseException as error:
            problems.append(error)

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not problems
    five, six = opened().edges()
    assert equal(five, edges.select(np.lexsort((edges.v, edges.u))))
    assert len(six) == 10


def test_runs_do_not_mix(opened: Open) -> None:
    other = Run(name="part_fragments-ba9876543210", fingerprint="b" * 64)
    opened().write_nodes(0, some_nodes(5, 0))
    opened(other).write_nodes(0, some_nodes(3, 1))
    assert len(opened().read_nodes()) == 5
    assert len(opened(other).read_nodes()) == 3


def test_a_store_of_another_run_is_refused(opened: Open) -> None:
    store = opened()
    store.write_nodes(0, some_nodes(5, 0))
    if isinstance(store, GraphFiles):
        return  # the folder itself is named by the fingerprint
    other = RUN.model_copy(update={"fingerprint": "c" * 64})
    for do in (
        lambda: opened(other).write_nodes(0, some_nodes(3, 1)),
        lambda: opened(other).read_nodes(),
        lambda: opened(other).blocks("nodes"),
    ):
        with pytest.raises(UserError, match="rows of another run"):
            do()
    assert len(opened().read_nodes()) == 5


def test_all_stores_name_their_runs(opened: Open) -> None:
    store = opened()
    if isinstance(store, GraphFiles):
        return
    long = Run(name="v" * 90 + "_agglomeration-0123456789ab", fingerprint="d" * 64, merge_function="mean")
    opened().write_nodes(0, some_nodes(5, 0))
    opened(long).write_edges(0, some_edges(5, 0))
    assert len(opened(long).read_edges()) == 5
    found = type(store).runs(store.address)  # type: ignore[attr-defined]
    assert {run.name: run for run in found} == {RUN.name: RUN, long.name: long}
