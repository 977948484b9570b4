"""Lookup tables: components, orphans, names, files, relabelling."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc

from neuroloom.agglomeration import Forest, spanning_forest
from neuroloom.errors import UserError
from neuroloom.segmentation import (
    SizeRules,
    load_lookup,
    lookup_name,
    lookup_table,
    map_lookup,
    relabel,
    save_lookup,
)


def random_forest(count: int, edges: int, seed: int) -> Forest:
    random = np.random.default_rng(seed)
    nodes = np.unique(random.integers(1, 2**62, count)).astype(np.uint64)
    u, v = random.choice(nodes, edges), random.choice(nodes, edges)
    different = u != v
    score = random.random(different.sum(), dtype=np.float32)
    return spanning_forest(nodes, random.integers(1, 100, len(nodes)), u[different], v[different], score)


forests = st.builds(random_forest, st.integers(1, 30), st.integers(0, 50), st.integers(0, 999))


@settings(deadline=None)
@given(forest=forests, threshold=st.floats(0, 1))
def test_segments_are_sets_of_joined_fragments_called_by_the_smallest(forest: Forest, threshold: float) -> None:
    segment_of = {int(node): {int(node)} for node in forest.nodes}
    for u, v, score in zip(forest.nodes[forest.u], forest.nodes[forest.v], forest.score, strict=True):
        if score <= np.float32(threshold):
            together = segment_of[int(u)] | segment_of[int(v)]
            for fragment in together:
                segment_of[fragment] = together
    table = lookup_table(forest, threshold)
    assert table.dtype == np.uint64
    assert table[0].tolist() == sorted(segment_of)
    assert table[1].tolist() == [min(segment_of[fragment]) for fragment in sorted(segment_of)]


@settings(deadline=None)
@given(forest=forests, thresholds=st.lists(st.floats(0, 1), min_size=2, max_size=4))
def test_raising_the_threshold_only_merges(forest: Forest, thresholds: list[float]) -> None:
    tables = [lookup_table(forest, threshold) for threshold in sorted(thresholds)]
    for fine, coarse in pairwise(tables):
        assert len(np.unique(np.stack([fine[1], coarse[1]]), axis=1).T) == len(np.unique(fine[1]))


@settings(deadline=None)
@given(
    count=st.integers(2, 25),
    edges=st.integers(0, 60),
    threshold=st.sampled_from([0.0, 0.3, 0.6]),
    orphans=st.sampled_from([0, 1, 30, 150, 10**6]),
    more=st.sampled_from([None, 0, 40, 200]),
    strict=st.sampled_from([0.0, 0.2, 0.5]),
    seed=st.integers(0, 999),
)
def test_small_and_large_segments_merge_one_after_the_other_by_the_lowest_score_of_all_edges(
    count: int, edges: int, threshold: float, orphans: int, more: int | None, strict: float, seed: int
) -> None:
    large = 0 if more is None else orphans + more
    random = np.random.default_rng(seed)
    ids, size = random.permutation(np.arange(1, count + 1)).astype(np.uint64), random.integers(1, 100, count)
    u, v = random.choice(ids, edges), random.choice(ids, edges)
    u, v = u[u != v], v[u != v]
    score = random.permutation(np.linspace(0, 1, len(u), dtype=np.float32))
    segment_of = {int(i): {int(i)} for i in ids}
    voxels = dict(zip(ids.tolist(), size.tolist(), strict=True))

    def merges(a: int, b: int, s: float) -> bool:
        apart = segment_of[a] is not segment_of[b]
        smaller = min(sum(voxels[f] for f in segment_of[end]) for end in (a, b))
        if large > 0 and smaller >= large:
            return apart and s <= np.float32(min(threshold, strict))
        return apart and (s <= np.float32(threshold) or smaller < orphans)

    while left := [e for e in zip(score.tolist(), u.tolist(), v.tolist(), strict=True) if merges(e[1], e[2], e[0])]:
        _, a, b = min(left)
        together = segment_of[a] | segment_of[b]
        for fragment in together:
            segment_of[fragment] = together
    table = lookup_table(spanning_forest(ids, size, u, v, score), threshold, SizeRules(orphans, large, strict))
    assert table[1].tolist() == [min(segment_of[fragment]) for fragment in table[0].tolist()]


def test_nothing_is_large_and_an_orphan() -> None:
    with pytest.raises(ValueError, match="segments of 10 voxels would be large, and orphans below 11"):
        SizeRules(orphans=11, large=10)


def test_a_score_equal_to_the_threshold_merges_in_the_scores_precision() -> None:
    ids = np.array([3, 5], dtype=np.uint64)
    forest = spanning_forest(ids, np.array([1, 1]), ids[:1], ids[1:], np.array([0.28], dtype=np.float32))
    assert lookup_table(forest, 0.28).tolist() == [[3, 5], [3, 3]]
    assert lookup_table(forest, 0.2799).tolist() == [[3, 5], [3, 5]]


@given(st.lists(st.floats(0, 1), unique=True, max_size=20))
def test_thresholds_never_share_a_name(thresholds: list[float]) -> None:
    assert len({lookup_name(threshold) for threshold in thresholds}) == len(thresholds)


def test_names_are_the_thresholds_written_out() -> None:
    assert [lookup_name(t) for t in (0.28, 0.29, 0.56, 0.57, 1)] == [
        "lut-0.28.npz",
        "lut-0.29.npz",
        "lut-0.56.npz",
        "lut-0.57.npz",
        "lut-1.0.npz",
    ]
    assert lookup_name(-0.0) == lookup_name(0.0)


@pytest.mark.parametrize("count", [0, 1, 30])
def test_files_come_back_and_are_the_same_bytes(tmp_path: Path, count: int) -> None:
    table = lookup_table(random_forest(30, 40, 1), 0.5)[:, :count]
    path = save_lookup(table, tmp_path, 0.5)
    files = [path, path.with_suffix(".arrow")]
    before = [file.read_bytes() for file in files]
    np.testing.assert_array_equal(load_lookup(tmp_path, 0.5), table)
    np.testing.assert_array_equal(np.stack(map_lookup(tmp_path, 0.5)), table)
    with np.load(path, allow_pickle=False) as content:
        assert content.files == ["fragment_segment_lut"]
    save_lookup(table, tmp_path, 0.5)
    assert [file.read_bytes() for file in files] == before


def test_a_mapped_table_relabels_and_is_not_copied(tmp_path: Path) -> None:
    table = lookup_table(random_forest(30, 40, 1), 0.5)
    save_lookup(table, tmp_path, 0.5)
    before = pa.total_allocated_bytes()
    mapped = map_lookup(tmp_path, 0.5)
    assert pa.total_allocated_bytes() == before
    assert not any(column.flags.writeable for column in mapped)
    np.testing.assert_array_equal(relabel(table[0], mapped), table[1])


def test_missing_and_damaged_tables_are_named(tmp_path: Path) -> None:
    path = save_lookup(np.zeros((2, 3), np.uint64), tmp_path, 0.5)
    arrow = path.with_suffix(".arrow")
    for read, form in ((load_lookup, "npz"), (map_lookup, "arrow")):
        with pytest.raises(UserError, match=rf"lut-0.3.{form} does not exist; .* thresholds 0\.5"):
            read(tmp_path, 0.3)
    for read, file in ((load_lookup, path), (map_lookup, arrow)):
        whole = file.read_bytes()
        for cut in (0, 5, 100, len(whole) - 7):
            file.write_bytes(whole[:cut])
            with pytest.raises(UserError, match=rf"lut-0\.5\{file.suffix} is no lookup table"):
                read(tmp_path, 0.5)
    with open(path, "wb") as file:
        np.savez(file, fragment_segment_lut=np.zeros(3))
    with pytest.raises(UserError, match="expected uint64"):
        load_lookup(tmp_path, 0.5)
    other = pa.table({"fragment": np.zeros(3, np.int64), "segment": np.zeros(3, np.uint64)})
    with ipc.new_file(str(arrow), other.schema) as writer:
        writer.write_table(other)
    with pytest.raises(UserError, match="expected fragment and segment as uint64"):
        map_lookup(tmp_path, 0.5)


@settings(deadline=None)
@given(forest=forests, seed=st.integers(0, 999))
def test_relabel_looks_every_voxel_up(forest: Forest, seed: int) -> None:
    table = lookup_table(forest, 0.5)
    fragments = np.random.default_rng(seed).choice(np.append(table[0], np.uint64(0)), (3, 4, 5))
    names = dict(zip(table[0].tolist(), table[1].tolist(), strict=True)) | {0: 0}
    assert relabel(fragments, table).tolist() == np.vectorize(names.get, otypes=[np.uint64])(fragments).tolist()


@pytest.mark.parametrize("stranger", [4, 99])
def test_a_fragment_outside_the_table_is_named(stranger: int) -> None:
    table = np.array([[3, 5], [3, 3]], dtype=np.uint64)
    with pytest.raises(UserError, match=f"Fragment {stranger} is not in the lookup table"):
        relabel(np.array([0, 3, stranger], dtype=np.uint64), table)
