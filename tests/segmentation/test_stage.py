"""From affinities to a segmentation in blocks, against the truth the affinities were made of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.postgres import PASSWORD
from neuroloom.addresses import FILES
from neuroloom.agglomeration import load_forest, merge_scores
from neuroloom.agglomeration.stage import Agglomerate
from neuroloom.blockwise import Source, Stage, run_stage
from neuroloom.errors import UserError
from neuroloom.fragments.stage import Fragments
from neuroloom.segmentation import SizeRules, absorb_enclosed, load_lookup, lookup_table, relabel
from neuroloom.segmentation.stage import Segment
from neuroloom.volume import create_volume
from slow_contacts import all_contacts

SHAPE = (48, 72, 80)
Triple = tuple[int, int, int]


def make_truth() -> NDArray[np.uint64]:
    """Cells: every voxel belongs to the nearest of 60 points."""
    points = np.zeros(SHAPE, dtype=bool)
    points.flat[np.random.default_rng(0).choice(points.size, 60, replace=False)] = True
    nearest = ndimage.distance_transform_edt(~points, return_distances=False, return_indices=True)
    return np.ravel_multi_index(tuple(nearest), SHAPE).astype(np.uint64) + np.uint64(1)


def make_affinities(truth: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """The truth's membranes, two voxels wide, blurred, with noise."""
    membrane = ndimage.maximum_filter(truth, 2) != ndimage.minimum_filter(truth, 2)
    random = np.random.default_rng(1)
    noise = ndimage.gaussian_filter(random.standard_normal((3, *SHAPE)), (0, 1, 1, 1))
    inside = ndimage.gaussian_filter(np.where(membrane, -0.3, 1.0), 0.7) + 0.25 * noise / noise.std()
    return np.clip(255 * inside, 0, 255).astype(np.uint8)


def information(segments: NDArray[Any], truth: NDArray[Any]) -> float:
    """Variation of information in bits, by its definition."""

    def entropy(*labels: NDArray[Any]) -> float:
        counts = np.unique(np.stack([label.reshape(-1) for label in labels]), axis=1, return_counts=True)[1]
        return float(-(counts / counts.sum() * np.log2(counts / counts.sum())).sum())

    return 2 * entropy(segments, truth) - entropy(segments) - entropy(truth)


@pytest.fixture(scope="module")
def truth() -> NDArray[np.uint64]:
    return make_truth()


@pytest.fixture(scope="module")
def affinities(truth: NDArray[np.uint64], tmp_path_factory: pytest.TempPathFactory) -> Source:
    path = tmp_path_factory.mktemp("affinities") / "in.zarr"
    create_volume(path, "affinities", (3, *SHAPE), "uint8", (8, 8, 8)).write((0, 0, 0), make_affinities(truth))
    return Source(path=str(path), dataset="affinities", fingerprint="a")


def in_order(stage: Stage) -> None:
    stage.prepare()
    for block in stage.blocks():
        stage.process(block)
    stage.finish()


def shuffled_and_twice(stage: Stage) -> None:
    stage.prepare()
    blocks = list(stage.blocks())
    order = np.random.default_rng(len(blocks)).permutation(len(blocks))
    for number in [*order, *order[:3]]:
        stage.process(blocks[number])
    stage.finish()
    stage.prepare()
    stage.finish()


def chain(
    folder: Path,
    affinities: Source,
    block_shape: Triple,
    run: Callable[[Stage], Any] = in_order,
    threshold: float = 0.3,
    enclosed: float = 0.0,
    orphans: int = 0,
    large: int = 0,
    large_threshold: float = 0.0,
    store: str = FILES,
) -> Segment:
    fragments = Fragments(
        folder=folder / "fragments",
        shape=SHAPE,
        block_shape=block_shape,
        context=(10, 10, 10),
        affinities=affinities,
        store=store,
    )
    run(fragments)
    agglomeration = Agglomerate(
        folder=folder / "agglomeration",
        shape=SHAPE,
        block_shape=block_shape,
        context=(16, 16, 16),
        affinities=affinities,
        fragments=fragments.output,
        fragments_graph=fragments.graph_place,
        store=store,
    )
    run(agglomeration)
    segment = Segment(
        folder=folder / "segmentation",
        shape=SHAPE,
        block_shape=block_shape,
        fragments=fragments.output,
        forest=agglomeration.forest,
        edges=agglomeration.graph_place,
        threshold=threshold,
        thresholds=(0.2, 0.6),
        enclosed=enclosed,
        orphans=orphans,
        large=large,
        large_threshold=large_threshold,
    )
    run(segment)
    return segment


def hashes(folder: Path) -> dict[str, str]:
    files = [f for f in folder.rglob("*") if f.suffix in (".arrow", ".npz") or ".zarr" in str(f)]
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()}


def test_blocks_segment_nearly_as_one(tmp_path: Path, affinities: Source, truth: NDArray[np.uint64]) -> None:
    whole = chain(tmp_path / "whole", affinities, SHAPE).output.open().read()
    blocks = chain(tmp_path / "blocks", affinities, (24, 36, 40)).output.open().read()
    # where exactly a membrane is drawn is not the question here
    away = ndimage.maximum_filter(truth, 3) == ndimage.minimum_filter(truth, 3)
    score, blockwise = information(whole[away], truth[away]), information(blocks[away], truth[away])
    assert score < 0.05
    assert blockwise < score + 0.03
    # blocks cut cells into pieces that only agglomeration across their borders puts together
    cut = Source(path=str(tmp_path / "blocks/fragments/fragments.zarr"), dataset="fragments", fingerprint="f")
    assert information(cut.open().read()[away], truth[away]) > 0.5


def test_bytes_do_not_depend_on_order_or_repetition(tmp_path: Path, affinities: Source) -> None:
    chain(tmp_path / "a", affinities, (24, 36, 40))
    chain(tmp_path / "b", affinities, (24, 36, 40), shuffled_and_twice)
    first = hashes(tmp_path / "a")
    assert first == hashes(tmp_path / "b")
    assert {Path(name).suffix for name in first} >= {".arrow", ".npz", ".json"}


@pytest.mark.system
def test_worker_processes_write_the_same_bytes(tmp_path: Path, affinities: Source) -> None:
    chain(tmp_path / "a", affinities, (24, 36, 40))
    chain(tmp_path / "b", affinities, (24, 36, 40), lambda stage: run_stage(stage, workers=2))
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")


def in_a_store(folder: Path, affinities: Source, store: str, run: Callable[[Stage], Any]) -> dict[str, str]:
    """What is made of affinities with a store that is not files: all but the graph itself lies in the folder."""
    chain(folder, affinities, (24, 36, 40), run, enclosed=0.6, orphans=100, store=store)
    assert not list(folder.rglob("graph"))
    return hashes(folder)


def test_sqlite_gives_the_same_bytes_as_files(tmp_path: Path, affinities: Source) -> None:
    chain(tmp_path / "a", affinities, (24, 36, 40), enclosed=0.6, orphans=100)
    found = in_a_store(tmp_path / "b", affinities, f"sqlite:{tmp_path / 'graph.sqlite'}", shuffled_and_twice)
    files = hashes(tmp_path / "a")
    assert {name for name in files if "/graph/" in name} == files.keys() - found.keys()
    assert found.items() <= files.items()
    assert "agglomeration/forest.arrow" in found


@pytest.mark.system
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_workers_write_the_same_bytes_with_a_database(
    tmp_path: Path, affinities: Source, kind: str, request: pytest.FixtureRequest
) -> None:
    chain(tmp_path / "a", affinities, (24, 36, 40), enclosed=0.6, orphans=100)
    store = f"sqlite:{tmp_path / 'graph.sqlite'}"
    if kind == "postgres":
        store = request.getfixturevalue("postgres").address("workers")
    found = in_a_store(tmp_path / "b", affinities, store, lambda stage: run_stage(stage, workers=2))
    assert found.items() <= hashes(tmp_path / "a").items()
    for file in (tmp_path / "b").rglob("*"):
        assert file.is_dir() or PASSWORD.encode() not in file.read_bytes(), file


def test_a_block_that_is_missing_is_named_and_what_makes_it(tmp_path: Path, affinities: Source) -> None:
    stage = chain(tmp_path / "whole", affinities, (24, 36, 40), enclosed=0.6)
    next((tmp_path / "whole/agglomeration/graph/outside").glob("*5.arrow")).unlink()
    again = stage.model_copy(update={"folder": tmp_path / "again"})
    with pytest.raises(UserError, match=r"block 5 of the 8 blocks .*Delete .*agglomeration and run `neuroloom agglom"):
        again.prepare()
    elsewhere = stage.edges.model_copy(update={"store": f"sqlite:{tmp_path / 'graph.sqlite'}"})
    with pytest.raises(UserError, match=r"holds none of the 8 blocks .*neuroloom graph copy"):
        again.model_copy(update={"edges": elsewhere}).prepare()
    again.model_copy(update={"enclosed": 0.0}).prepare()  # what touches what need not be known then


def test_tables_are_there_for_all_thresholds(tmp_path: Path, affinities: Source) -> None:
    stage = chain(tmp_path, affinities, SHAPE)
    fragments, segments = stage.fragments.open().read(), stage.output.open().read()
    counts = [len(np.unique(load_lookup(stage.folder, threshold)[1])) for threshold in (0.2, 0.3, 0.6)]
    assert counts[0] > counts[1] > counts[2]
    np.testing.assert_array_equal(segments, relabel(fragments, load_lookup(stage.folder, 0.3)))
    assert len(np.unique(segments)) == counts[1]


def test_what_is_enclosed_is_absorbed_whatever_the_blocks(tmp_path: Path, truth: NDArray[np.uint64]) -> None:
    cell = ndimage.maximum_filter(truth, 3, mode="constant") == ndimage.minimum_filter(truth, 3, mode="constant")
    depth = ndimage.distance_transform_edt(cell)
    organelle = np.linalg.norm(np.indices(SHAPE).T - np.unravel_index(depth.argmax(), SHAPE), axis=-1).T < 6
    values = make_affinities(np.where(organelle, np.uint64(10**6), truth))
    create_volume(tmp_path / "in.zarr", "affinities", values.shape, "uint8", (8, 8, 8)).write((0, 0, 0), values)
    affinities = Source(path=str(tmp_path / "in.zarr"), dataset="affinities", fingerprint="b")
    apart = chain(tmp_path / "a", affinities, (24, 36, 40), threshold=0.2)
    stage = chain(tmp_path / "b", affinities, (24, 36, 40), shuffled_and_twice, threshold=0.2, enclosed=0.6)
    fragments, before = stage.fragments.open().read(), load_lookup(apart.folder, 0.2)
    edges = merge_scores(affinities.open().read(), fragments, "mean")
    expected = absorb_enclosed(before, all_contacts(fragments, edges), 0.6)
    assert len(np.unique(expected[1])) < len(np.unique(before[1]))
    np.testing.assert_array_equal(load_lookup(stage.folder, 0.2), expected)
    np.testing.assert_array_equal(stage.output.open().read(), relabel(fragments, expected))


def test_orphans_merge_whatever_the_blocks(tmp_path: Path, affinities: Source) -> None:
    apart = chain(tmp_path / "a", affinities, (24, 36, 40), threshold=0.1)
    stage = chain(tmp_path / "b", affinities, (24, 36, 40), shuffled_and_twice, threshold=0.1, orphans=2000)
    forest = load_forest(Path(stage.forest.path) / stage.forest.dataset)
    _, before = np.unique(apart.output.open().read(), return_counts=True)
    _, after = np.unique(stage.output.open().read(), return_counts=True)
    assert before.min() < 2000 <= after.min()
    assert len(after) > 2
    np.testing.assert_array_equal(load_lookup(stage.folder, 0.1), lookup_table(forest, 0.1, SizeRules(orphans=2000)))


def test_two_large_segments_merge_up_to_the_stricter_score_only(tmp_path: Path, affinities: Source) -> None:
    together = chain(tmp_path / "a", affinities, (24, 36, 40), threshold=0.6)
    stage = chain(
        tmp_path / "b", affinities, (24, 36, 40), shuffled_and_twice, threshold=0.6, large=3000, large_threshold=0.1
    )
    forest = load_forest(Path(stage.forest.path) / stage.forest.dataset)
    rules = SizeRules(large=3000, large_threshold=0.1)
    np.testing.assert_array_equal(load_lookup(stage.folder, 0.6), lookup_table(forest, 0.6, rules))
    assert len(np.unique(stage.output.open().read())) > len(np.unique(together.output.open().read()))


def test_a_table_of_other_fragments_is_refused(tmp_path: Path, affinities: Source) -> None:
    stage = chain(tmp_path, affinities, SHAPE)
    volume = stage.fragments.open()
    volume.write((0, 0, 0), volume.read() + np.uint64(10**9))
    with pytest.raises(UserError, match="not in the lookup table"):
        stage.process(next(stage.blocks()))
