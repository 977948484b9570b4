"""The graph in files: what goes in comes out, in one order, as the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from funlib.geometry import Roi

from neuroloom.errors import UserError
from neuroloom.graph import Edges, GraphFiles, Nodes, Outside


def some_nodes(count: int, seed: int) -> Nodes:
    random = np.random.default_rng(seed)
    begin = random.integers(0, 100, (count, 3))
    end = begin + random.integers(1, 10, (count, 3))
    return Nodes(
        id=random.permutation(count).astype(np.uint64) + np.uint64(1000 * seed + 1),
        centre=(begin + end) / 2,
        size=random.integers(1, 500, count),
        mean_affinity=random.random(count, dtype=np.float32),
        begin=begin,
        end=end,
    )


def some_edges(count: int, seed: int) -> Edges:
    random = np.random.default_rng(seed)
    u = random.integers(1, 50, count).astype(np.uint64)
    score = random.random(count, dtype=np.float32)
    score[::3] = np.nan
    return Edges(
        u=u,
        v=u + random.permutation(count).astype(np.uint64) + np.uint64(1),
        merge_score=score,
        contact_area=random.integers(1, 99, count),
        mean_affinity=random.random(count, dtype=np.float32),
    )


def some_outside(count: int, seed: int) -> Outside:
    random = np.random.default_rng(seed)
    return Outside(random.permutation(count).astype(np.uint64) + np.uint64(1), random.integers(1, 99, count))


def equal(a: Nodes | Edges | Outside, b: Nodes | Edges | Outside) -> bool:
    return all(
        getattr(a, name).dtype == getattr(b, name).dtype
        and np.array_equal(getattr(a, name), getattr(b, name), equal_nan=name == "merge_score")
        for name in a.__dataclass_fields__
    )


def test_rows_come_back_by_block_and_sorted(tmp_path: Path) -> None:
    store = GraphFiles(tmp_path)
    nodes, edges = {b: some_nodes(7, b) for b in (11, 2, 0)}, {b: some_edges(9, b) for b in (11, 2, 0)}
    for block in (11, 2, 0):
        store.write_nodes(block, nodes[block])
        store.write_edges(block, edges[block])
    for block, found in zip((0, 2, 11), store.nodes(), strict=True):
        assert equal(found, nodes[block].select(np.argsort(nodes[block].id)))
    for block, found in zip((0, 2, 11), store.edges(), strict=True):
        assert equal(found, edges[block].select(np.lexsort((edges[block].v, edges[block].u))))
    outside = {b: some_outside(5, b) for b in (2, 0)}
    for block in (2, 0):
        store.write_outside(block, outside[block])
    in_order = [outside[b].select(np.argsort(outside[b].id)) for b in (0, 2)]
    assert equal(store.read_outside(), Outside.concatenate(in_order))
    assert len(store.read_nodes()) == 21
    assert equal(store.read_edges(), Edges.concatenate(list(store.edges())))


def test_same_rows_in_any_order_are_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for order in (np.arange(9), np.arange(9)[::-1]):
        store = GraphFiles(tmp_path)
        store.write_nodes(5, some_nodes(9, 1).select(order))
        store.write_edges(5, some_edges(9, 1).select(order))
        store.write_outside(5, some_outside(9, 1).select(order))
        contents.append([file.read_bytes() for file in sorted(tmp_path.rglob("*.arrow"))])
    assert contents[0] == contents[1]
    assert len(contents[0]) == 3


def test_region_holds_centres_from_its_begin_to_before_its_end(tmp_path: Path) -> None:
    store = GraphFiles(tmp_path)
    nodes = some_nodes(40, 3)
    store.write_nodes(0, nodes)
    roi = Roi((10, 20, 0), (60, 50, 70))
    inside = [all(b <= c < e for b, c, e in zip(roi.begin, centre, roi.end, strict=True)) for centre in nodes.centre]
    assert 0 < sum(inside) < 40
    assert set(store.read_nodes(roi).id.tolist()) == set(nodes.id[inside].tolist())


def test_empty_blocks_and_empty_stores(tmp_path: Path) -> None:
    store = GraphFiles(tmp_path)
    assert len(store.read_nodes()) == len(store.read_edges()) == len(store.read_outside()) == 0
    store.write_nodes(0, some_nodes(0, 0))
    store.write_edges(0, some_edges(0, 0))
    assert [len(nodes) for nodes in store.nodes()] == [0]
    assert equal(store.read_nodes(), some_nodes(0, 0))
    assert equal(store.read_edges(), some_edges(0, 0))


def test_a_truncated_file_is_named_and_half_written_ones_are_not_read(tmp_path: Path) -> None:
    store = GraphFiles(tmp_path)
    store.write_edges(4, some_edges(9, 1))
    (tmp_path / "edges" / ".000000000005.arrow.x.part").write_bytes(b"half")
    assert len(store.read_edges()) == 9
    file = tmp_path / "edges" / "000000000004.arrow"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"000000000004\.arrow .*damaged"):
        store.read_edges()
