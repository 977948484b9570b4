"""Agglomeration in blocks: every pair of touching fragments belongs to exactly one block."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from funlib.geometry import Roi
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from tests.graph_rows import equal
from tests.slow_regions import slow_regions

from benchmarks.postgres import PostgresServer
from neuroloom.agglomeration import load_forest, merge_scores, spanning_forest
from neuroloom.agglomeration.multicut import multicut_scores
from neuroloom.agglomeration.mutex import mutex_scores
from neuroloom.agglomeration.outside import outside_faces
from neuroloom.agglomeration.scores import as_edges, hierarchical_scores
from neuroloom.agglomeration.stage import Agglomerate
from neuroloom.blockwise import Source, run_stage
from neuroloom.errors import UserError
from neuroloom.fragments.borders import read_borders
from neuroloom.fragments.contacts import Contacts, add_long_range, find_contacts, find_far_pairs
from neuroloom.fragments.labels import compact
from neuroloom.fragments.stage import Fragments
from neuroloom.graph import Edges
from neuroloom.project import NEAREST
from neuroloom.volume import create_volume

Triple = tuple[int, int, int]


FAR = ((-3, 0, 0), (0, -3, 0), (0, 2, -3))
"""Offsets of affinities of more than one voxel."""


def make_fragments(
    folder: Path, shape: Triple, block_shape: Triple, seed: int = 0, far: tuple[Triple, ...] = ()
) -> Fragments:
    random = np.random.default_rng(seed).standard_normal((3 + len(far), *shape))
    field = ndimage.gaussian_filter(random, (0, 1, 1, 1))
    values = np.clip(127.5 * (1.2 + field / field.std()), 0, 255).astype(np.uint8)
    attributes = {"neuroloom": {"neighborhood": [list(offset) for offset in (*NEAREST, *far)]}}
    volume = create_volume(
        folder / "in.zarr", "affinities", values.shape, "uint8", (8, 8, 8), attributes=attributes, overwrite=True
    )
    volume.write((0, 0, 0), values)
    stage = Fragments(
        folder=folder / "fragments",
        shape=shape,
        block_shape=block_shape,
        context=(4, 4, 4),
        min_seed_distance=4,
        affinities=Source(path=str(folder / "in.zarr"), dataset="affinities", fingerprint="a"),
    )
    stage.prepare()
    for block in stage.blocks():
        stage.process(block)
    return stage


def agglomerate(
    folder: Path,
    fragments: Fragments,
    block_shape: Triple,
    context: Triple = (3, 3, 3),
    order: NDArray[Any] | None = None,
    **settings: Any,
) -> Agglomerate:
    stage = Agglomerate(
        folder=folder,
        shape=fragments.shape,
        block_shape=block_shape,
        context=context,
        affinities=fragments.affinities,
        fragments=fragments.output,
        fragments_graph=fragments.graph_place,
        **settings,
    )
    stage.prepare()
    blocks = list(stage.blocks())
    for number in range(len(blocks)) if order is None else order:
        stage.process(blocks[number])
    stage.finish()
    return stage


@settings(deadline=None, max_examples=12)
@given(
    shape=st.tuples(st.integers(4, 12), st.integers(4, 20), st.integers(4, 20)),
    block_shape=st.tuples(*[st.integers(4, 9)] * 3),
    multiple=st.tuples(*[st.integers(1, 2)] * 3),
    context=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_every_touching_pair_belongs_to_one_block_with_its_whole_contact(
    tmp_path_factory: pytest.TempPathFactory,
    shape: Triple,
    block_shape: Triple,
    multiple: Triple,
    context: int,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("blocks")
    fragments = make_fragments(folder, shape, block_shape, seed)
    z, y, x = (b * m for b, m in zip(block_shape, multiple, strict=True))
    stage = agglomerate(folder / "agglomeration", fragments, (z, y, x), (context,) * 3)
    edges = stage.graph.read_edges()
    whole = merge_scores(fragments.affinities.open().read(), fragments.output.open().read(), stage.merge_function)
    edges = edges.select(np.lexsort((edges.v, edges.u)))
    np.testing.assert_array_equal(edges.u, whole.u)
    np.testing.assert_array_equal(edges.v, whole.v)
    np.testing.assert_array_equal(edges.contact_area, whole.contact_area)
    np.testing.assert_array_equal(edges.mean_affinity, whole.mean_affinity)
    np.testing.assert_array_equal(edges.position, whole.position)
    outside, expected = stage.graph.read_outside(), outside_faces(*compact(fragments.output.open().read()))
    outside = outside.select(np.argsort(outside.id))
    np.testing.assert_array_equal(outside.id, expected.id)
    np.testing.assert_array_equal(outside.faces, expected.faces)


@pytest.fixture
def fragments(tmp_path: Path) -> Fragments:
    return make_fragments(tmp_path, (14, 30, 36), (8, 10, 12))


def test_with_enough_context_scores_are_those_of_the_whole_volume(tmp_path: Path, fragments: Fragments) -> None:
    stage = agglomerate(tmp_path / "a", fragments, (8, 10, 12), (14, 30, 36))
    whole = whole_edges(fragments, by_hierarchy)
    assert equal(by_pair(stage.graph.read_edges()), whole)
    nodes, size = np.unique(fragments.output.open().read(), return_counts=True)
    forest, expected = (
        load_forest(stage.forest_file),
        spanning_forest(nodes, size, whole.u, whole.v, whole.merge_score),
    )
    for name in ("nodes", "size", "u", "v", "score"):
        np.testing.assert_array_equal(getattr(forest, name), getattr(expected, name))


def by_hierarchy(values: NDArray[np.uint8], numbers: NDArray[np.uint32]) -> tuple[Contacts, NDArray[np.float32]]:
    touching = find_contacts(values[:3], numbers)
    return touching, hierarchical_scores(touching, "hist_quant_75")


def whole_edges(
    fragments: Fragments,
    score: Callable[[NDArray[np.uint8], NDArray[np.uint32]], tuple[Contacts, NDArray[np.float32]]],
) -> Edges:
    """Edges of the whole volume at once, scored as its regions are."""
    values, (ids, numbers) = fragments.affinities.open().read(), compact(fragments.output.open().read())
    borders = list(read_borders(fragments.output, Roi((0, 0, 0), fragments.shape), fragments.block_shape))
    region = slow_regions(numbers, len(ids), borders)
    assert 1 < len(np.unique(region)) < len(ids)
    regions, scores = score(values, region[numbers])
    of_pair = dict(zip(zip(regions.u.tolist(), regions.v.tolist(), strict=True), scores, strict=True))
    touching = find_contacts(values[:3], numbers)
    ends = np.sort(np.stack([region[touching.u], region[touching.v]]), axis=0).T.tolist()
    return as_edges(touching, np.array([0 if u == v else of_pair[u, v] for u, v in ends], np.float32), ids)


def by_pair(edges: Edges) -> Edges:
    return edges.select(np.lexsort((edges.v, edges.u)))


def test_with_enough_context_long_range_scores_are_those_of_the_whole_volume(tmp_path: Path) -> None:
    fragments = make_fragments(tmp_path, (14, 30, 36), (8, 10, 12), far=FAR)
    blocks, whole, near = (
        by_pair(agglomerate(tmp_path / name, fragments, block, (14, 30, 36), long_range=far).graph.read_edges())
        for name, block, far in (("a", (8, 10, 12), True), ("b", (14, 30, 36), True), ("c", (14, 30, 36), False))
    )
    assert equal(blocks, whole)
    # what is kept of each contact is of its faces alone
    assert equal(replace(whole, merge_score=near.merge_score), near)
    assert np.mean(whole.merge_score != near.merge_score) > 0.5
    assert equal(near, whole_edges(fragments, by_hierarchy))

    def observed(values: NDArray[np.uint8], numbers: NDArray[np.uint32]) -> tuple[Contacts, NDArray[np.float32]]:
        touching = add_long_range(find_contacts(values[:3], numbers), values[3:], numbers, FAR)
        return touching, hierarchical_scores(touching, "hist_quant_75")

    assert equal(whole, whole_edges(fragments, observed))


@pytest.mark.parametrize("long_range", [False, True])
@pytest.mark.parametrize(("method", "scores"), [("mutex_watershed", mutex_scores), ("multicut", multicut_scores)])
def test_with_enough_context_partitions_are_those_of_the_whole_volume(
    tmp_path: Path, method: str, scores: Callable[..., NDArray[np.float32]], long_range: bool
) -> None:
    fragments = make_fragments(tmp_path, (14, 30, 36), (8, 10, 12), far=FAR)
    settings = {"method": method, "bias": 0.55, "long_range_bias": 0.6, "long_range": long_range}
    stage = agglomerate(tmp_path / "a", fragments, (8, 10, 12), (14, 30, 36), **settings)
    edges = by_pair(stage.graph.read_edges())

    def scored(values: NDArray[np.uint8], numbers: NDArray[np.uint32]) -> tuple[Contacts, NDArray[np.float32]]:
        touching = find_contacts(values[:3], numbers)
        far = find_far_pairs(values[3:], numbers, FAR) if long_range else None
        return touching, scores(touching, far, 0.55, 0.6)

    assert equal(edges, whole_edges(fragments, scored))
    merges = ~np.isnan(edges.merge_score)
    assert 0 < merges.sum() < len(merges)
    assert stage.graph_run.merge_function == method + "_long_range" * long_range
    assert len(load_forest(stage.forest_file).u) > 0


def test_what_a_method_takes_no_notice_of_is_not_part_of_the_fingerprint(tmp_path: Path, fragments: Fragments) -> None:
    plain = agglomerate(tmp_path / "a", fragments, fragments.shape)

    def changed(**settings: Any) -> str:
        return plain.model_copy(update=settings).fingerprint()

    assert changed(bias=0.3, long_range_bias=0.4) == plain.fingerprint()
    assert len({plain.fingerprint(), changed(long_range=True), changed(method="mutex_watershed")}) == 3
    mutex = changed(method="mutex_watershed")
    assert changed(method="mutex_watershed", merge_function="mean", long_range_bias=0.4) == mutex
    assert changed(method="mutex_watershed", bias=0.3) != mutex
    far = changed(method="mutex_watershed", long_range=True)
    assert changed(method="mutex_watershed", long_range=True, long_range_bias=0.4) != far


def test_a_solver_that_is_not_installed_is_told(
    tmp_path: Path, fragments: Fragments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bioimage_cpp", None)
    with pytest.raises(UserError, match=r"bioimage-cpp. Install it with: pip install 'neuroloom\[multicut\]'"):
        agglomerate(tmp_path / "a", fragments, (8, 10, 12), method="multicut")


@pytest.mark.parametrize(
    ("far", "context", "attributes", "expected"),
    [
        ((), (3, 3, 3), None, r"has 3 channels, of nearest neighbours; `agglomeration.long_range` needs more"),
        (FAR, (3, 2, 3), None, r"reach \[3, 3, 3\] voxels far, but .*\[3, 2, 3\].*at least \[3, 3, 3\]"),
        (FAR, (3, 3, 3), {}, r"in.zarr/affinities does not say which neighbours"),
        (FAR, (3, 3, 3), {"neighborhood": [[-1, 0, 0]]}, r"has 6 channels, but .*`neighborhood` has 1 offsets"),
    ],
)
def test_long_range_that_cannot_be_is_told(
    tmp_path: Path, far: tuple[Triple, ...], context: Triple, attributes: dict[str, Any] | None, expected: str
) -> None:
    fragments = make_fragments(tmp_path, (14, 30, 36), (8, 10, 12), far=far)
    if attributes is not None:
        zarr.open_array(str(tmp_path / "in.zarr" / "affinities"), mode="r+").attrs["neuroloom"] = attributes
    with pytest.raises(UserError, match=expected):
        agglomerate(tmp_path / "a", fragments, (8, 10, 12), context, long_range=True)
    agglomerate(tmp_path / "b", fragments, (8, 10, 12), context)


def test_context_need_not_reach_beyond_the_volume(tmp_path: Path) -> None:
    fragments = make_fragments(tmp_path, (14, 30, 36), (8, 10, 12), far=FAR)
    agglomerate(tmp_path / "a", fragments, (14, 10, 36), (0, 3, 0), long_range=True)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((14, 30, 36), "uint8"), ((1, 14, 30, 36), "uint8"), ((3, 14, 30, 36), "f4")]
)
def test_what_are_no_affinities_is_told(tmp_path: Path, fragments: Fragments, shape: Triple, dtype: str) -> None:
    create_volume(tmp_path / "other.zarr", "affinities", shape, dtype, (8, 8, 8))
    other = Source(path=str(tmp_path / "other.zarr"), dataset="affinities", fingerprint="b")
    with pytest.raises(UserError, match=r"other.zarr/affinities is .* channels; expected uint8 .* with at least 3"):
        agglomerate(tmp_path / "a", fragments.model_copy(update={"affinities": other}), (8, 10, 12))


def test_what_is_gone_or_of_another_size_is_told(tmp_path: Path, fragments: Fragments) -> None:
    place = tmp_path / "results" / "whole" / "affinities-0123456789ab"
    create_volume(place / "affinities.zarr", "affinities", (3, 9, 9, 9), "uint8", (8, 8, 8))
    other = Source(path=str(place / "affinities.zarr"), dataset="affinities", fingerprint="b")
    with pytest.raises(UserError, match=r"has \(9, 9, 9\) voxels; expected \(14, 30, 36\). Make it again."):
        agglomerate(tmp_path / "a", fragments.model_copy(update={"affinities": other}), (8, 10, 12))
    (place / "stage.json").touch()
    for said in (r"has \(9, 9, 9\) voxels", "affinities.zarr is gone"):
        with pytest.raises(
            UserError, match=rf"{said}.* Delete .*affinities-0.* and run `neuroloom predict whole` again"
        ):
            agglomerate(tmp_path / "a", fragments.model_copy(update={"affinities": other}), (8, 10, 12))
        shutil.rmtree(place / "affinities.zarr", ignore_errors=True)


def test_context_brings_scores_near_those_of_the_whole_volume(tmp_path: Path, fragments: Fragments) -> None:
    whole = whole_edges(fragments, by_hierarchy)
    errors = []
    for context in (1, 8):
        edges = agglomerate(tmp_path / str(context), fragments, (8, 10, 12), (context,) * 3).graph.read_edges()
        edges = edges.select(np.lexsort((edges.v, edges.u)))
        errors.append(np.abs(edges.merge_score - whole.merge_score).mean())
    assert errors[1] < 0.5 * errors[0]


def test_bytes_do_not_depend_on_order_or_repetition(tmp_path: Path, fragments: Fragments) -> None:
    first = agglomerate(tmp_path / "a", fragments, (8, 10, 12))
    order = np.random.default_rng(1).permutation(first.block_count)
    agglomerate(tmp_path / "b", fragments, (8, 10, 12), order=np.concatenate([order, order[:5]]))
    hashes = [
        {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.rglob("*.arrow")}
        for folder in (tmp_path / "a", tmp_path / "b")
    ]
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 2 * first.block_count + 1  # edges and outside of each block; and its count of edges


def test_blocks_that_would_share_a_fragment_are_refused(tmp_path: Path, fragments: Fragments) -> None:
    with pytest.raises(UserError, match=r"\(8, 15, 12\) voxels are no multiples of .*\(8, 10, 12\)"):
        agglomerate(tmp_path / "a", fragments, (8, 15, 12))


def test_blocks_without_context_are_refused(tmp_path: Path, fragments: Fragments) -> None:
    with pytest.raises(UserError, match="at least 1"):
        agglomerate(tmp_path / "a", fragments, (8, 10, 12), (3, 0, 3))
    assert agglomerate(tmp_path / "a", fragments, (8, 30, 12), (3, 0, 3)).block_count == 6


def test_where_fragments_kept_their_nodes_is_not_part_of_the_fingerprint(tmp_path: Path, fragments: Fragments) -> None:
    stage = agglomerate(tmp_path / "a", fragments, fragments.shape)
    place = fragments.graph_place.model_copy(update={"folder": tmp_path / "c", "store": "sqlite:graph.sqlite"})
    moved = stage.model_copy(
        update={"folder": tmp_path / "b", "fragments_graph": place, "store": "postgresql://host/db"}
    )
    assert moved.fingerprint() == stage.fingerprint()
    assert stage.model_copy(update={"merge_function": "mean"}).fingerprint() != stage.fingerprint()


def test_nodes_that_are_missing_are_told(tmp_path: Path, fragments: Fragments) -> None:
    stage = agglomerate(tmp_path / "a", fragments, fragments.shape)
    sorted((fragments.folder / "graph" / "nodes").glob("*.arrow"))[2].unlink()
    for step in (stage.prepare, stage.finish):
        with pytest.raises(UserError, match=r"block 2 of the 18 .*Delete .*fragments and run `neuroloom fragments"):
            step()


def test_borders_that_are_missing_are_told(tmp_path: Path, fragments: Fragments) -> None:
    stage = agglomerate(tmp_path / "a", fragments, fragments.shape)
    shutil.rmtree(fragments.folder / "fragments.zarr" / "continues_y")
    with pytest.raises(UserError, match=r"no dataset 'continues_y'.*Delete .*fragments and run `neuroloom fragments"):
        stage.prepare()


def test_nodes_of_others_are_told(tmp_path: Path, fragments: Fragments) -> None:
    stage = agglomerate(tmp_path / "a", fragments, fragments.shape)
    for number in range(fragments.block_count):
        fragments.graph.write_nodes(number, fragments.graph.read_nodes().select(np.arange(0)))
    with pytest.raises(UserError, match="belongs to others"):
        stage.finish()


@pytest.mark.system
def test_a_run_goes_on_when_its_database_comes_back(tmp_path: Path, postgres: PostgresServer) -> None:
    plain = make_fragments(tmp_path / "plain", (14, 60, 72), (7, 10, 12))
    stage = plain.model_copy(update={"folder": tmp_path / "restarted", "store": postgres.address("restarted")})
    away: list[threading.Thread] = []

    def restart() -> None:
        postgres.stop()
        time.sleep(1)
        postgres.start()

    def progress(done: float, total: int) -> None:
        if done and not away:
            away.append(threading.Thread(target=restart))
            away[0].start()

    run_stage(stage, workers=2, progress=progress)
    away[0].join()
    assert not list((stage.folder / "failures").glob("*"))
    found, expected = stage.graph.read_nodes(), plain.graph.read_nodes()
    np.testing.assert_array_equal(found.id, expected.id)
    np.testing.assert_array_equal(found.centre, expected.centre)
    agglomerated = agglomerate(tmp_path / "a", stage, (14, 20, 24)), agglomerate(tmp_path / "b", plain, (14, 20, 24))
    assert agglomerated[0].forest_file.read_bytes() == agglomerated[1].forest_file.read_bytes()


@pytest.mark.system
def test_blocks_that_went_from_a_database_are_done_again(tmp_path: Path, fragments: Fragments) -> None:
    stage = Agglomerate(
        folder=tmp_path / "results" / "whole" / "agglomeration-0",
        shape=fragments.shape,
        block_shape=(8, 10, 12),
        context=(3, 3, 3),
        affinities=fragments.affinities,
        fragments=fragments.output,
        fragments_graph=fragments.graph_place,
        store=f"sqlite:{tmp_path / 'graph.sqlite'}",
    )
    run_stage(stage)
    whole, forest = stage.graph.read_edges(), stage.forest_file.read_bytes()
    stage.done_marker.unlink()
    stage.forest_file.unlink()
    places = "SELECT block, first FROM blocks WHERE kind = 'edges' AND rows > 0"
    with sqlite3.connect(tmp_path / "graph.sqlite") as database:
        before = dict(database.execute(places).fetchall())
        database.execute("DELETE FROM blocks WHERE kind = 'edges' AND block IN (4, 7)")
    with pytest.raises(UserError, match=r"block 4 and 1 more of the 18 .*`neuroloom agglomerate whole` again: it does"):
        run_stage(stage)
    run_stage(stage)
    with sqlite3.connect(tmp_path / "graph.sqlite") as database:
        after = dict(database.execute(places).fetchall())
    assert {block for block in after if after[block] != before[block]} == {4, 7}  # the others were left alone
    assert len(stage.graph.read_edges()) == len(whole)
    assert stage.forest_file.read_bytes() == forest
