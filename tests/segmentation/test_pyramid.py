"""The smaller copies of a segmentation: majorities by their definition, extents, places, metadata."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuroloom.agglomeration import save_forest, spanning_forest
from neuroloom.blockwise import Source, run_stage
from neuroloom.graph import GraphPlace, Run
from neuroloom.segmentation import pyramid
from neuroloom.segmentation import stage as stage_module
from neuroloom.segmentation.pyramid import WHOLE, levels, majority
from neuroloom.segmentation.stage import Segment
from neuroloom.viewing.layers import has_copies
from neuroloom.volume import create_volume, open_volume
from neuroloom.volume.array import Triple

VOXEL_SIZE, OFFSET = (8.0, 8.0, 8.0), (400.0, -80.0, 12.0)
steps = st.tuples(*[st.sampled_from([1, 2])] * 3)


def by_definition(labels: NDArray[np.uint64], step: tuple[int, ...]) -> NDArray[np.uint64]:
    result = np.empty([math.ceil(n / s) for n, s in zip(labels.shape, step, strict=True)], np.uint64)
    for index in np.ndindex(*result.shape):
        cell = labels[tuple(slice(i * s, (i + 1) * s) for i, s in zip(index, step, strict=True))]
        counts = Counter(cell.reshape(-1).tolist())
        most = max(counts.values())
        frequent = [label for label, count in counts.items() if count == most]
        result[index] = min(frequent, key=lambda label: (label == 0, label))
    return result


@settings(deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    step=steps,
    several=st.integers(1, 6),
    large=st.booleans(),
    seed=st.integers(0, 9999),
)
def test_majority_is_the_most_frequent_label(
    shape: Triple, step: tuple[int, ...], several: int, large: bool, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(0, several, shape).astype(np.uint64)
    if large:
        labels[labels > 0] += np.uint64(2**64 - 10)
    np.testing.assert_array_equal(majority(labels, step), by_definition(labels, step))


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [([5, 3, 5, 3], 3), ([0, 0, 7, 7], 7), ([0, 0, 7, 9], 0), ([0, 7, 9, 9], 9), ([0, 4, 3, 2], 2), ([0, 0, 0, 0], 0)],
)
def test_ties(cell: list[int], wanted: int) -> None:
    assert majority(np.array(cell, np.uint64).reshape(1, 2, 2), (1, 2, 2)).tolist() == [[[wanted]]]


@given(
    shape=st.tuples(*[st.integers(1, 3000)] * 3),
    voxel_size=st.tuples(*[st.sampled_from([4.0, 8.0, 22.48, 40.0, 50.0])] * 3),
)
def test_levels_end_when_all_of_the_volume_is_small(shape: Triple, voxel_size: tuple[float, float, float]) -> None:
    found = levels("segmentation", shape, voxel_size)
    assert (found[0].dataset, found[0].factor, found[0].shape) == ("segmentation", (1, 1, 1), shape)
    assert max(found[-1].shape) <= WHOLE
    assert all(max(level.shape) > WHOLE for level in found[:-1])
    assert len({level.dataset for level in found}) == len(found)
    for before, level in pairwise(found):
        assert max(level.step) == 2
        assert level.factor == tuple(f * s for f, s in zip(before.factor, level.step, strict=True))
        assert level.shape == tuple(math.ceil(n / s) for n, s in zip(before.shape, level.step, strict=True))


def test_voxels_of_thick_sections_become_cubes_first() -> None:
    found = levels("segmentation", (200, 4000, 4000), (40.0, 4.0, 4.0))
    assert [level.step for level in found] == [(1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)]
    assert found[-1].voxel_size((40.0, 4.0, 4.0)) == (160.0, 128.0, 128.0)


def made(
    folder: Path, shape: Triple, block_shape: Triple, voxel_size: tuple[float, float, float] = VOXEL_SIZE
) -> Segment:
    """A segmentation of random boxes, ready to be written."""
    random = np.random.default_rng(0)
    cells = random.integers(0, 9, [-(-n // 3) for n in shape]).astype(np.uint64)
    fragments = np.kron(cells, np.ones((3, 3, 3), np.uint64))[tuple(slice(n) for n in shape)]
    folder.mkdir()
    create_volume(folder / "in.zarr", "fragments", shape, "uint64", voxel_size, OFFSET).write((0, 0, 0), fragments)
    ids = np.arange(1, 9, dtype=np.uint64)
    edges = ids[:3], ids[3:6], np.array([0.1, 0.5, 0.2], np.float32)
    save_forest(spanning_forest(ids, np.ones(8, np.int64), *edges), folder / "forest.arrow")
    return Segment(
        folder=folder / "segmentation",
        shape=shape,
        block_shape=block_shape,
        fragments=Source(path=str(folder / "in.zarr"), dataset="fragments", fingerprint="f"),
        forest=Source(path=str(folder), dataset="forest.arrow", fingerprint="f"),
        edges=GraphPlace(folder=folder, run=Run(name="none", fingerprint="f"), block_count=0, command=""),
        threshold=0.3,
    )


def write(stage: Segment) -> None:
    stage.prepare()
    order = np.random.default_rng(1).permutation(stage.block_count)
    blocks = list(stage.blocks())
    for number in [*order, *order[:2]]:
        stage.process(blocks[number])
    stage.finish()


def read_all(stage: Segment) -> list[NDArray[np.uint64]]:
    datasets = zarr.open_group(stage.output.path, mode="r").attrs["ome"]["multiscales"][0]["datasets"]
    return [open_volume(stage.output.path, dataset["path"]).read() for dataset in datasets]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels as of large volumes, of a small one."""
    monkeypatch.setattr(pyramid, "WHOLE", 4)
    monkeypatch.setattr(stage_module, "_SMALLEST", 4)
    monkeypatch.setattr(stage_module, "_PIECE", 6)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("voxel_size", [VOXEL_SIZE, (40.0, 8.0, 8.0)])
def test_levels_are_majorities_whatever_the_blocks(tmp_path: Path, voxel_size: tuple[float, float, float]) -> None:
    shape = (21, 34, 40)
    whole = made(tmp_path / "whole", shape, shape, voxel_size)
    write(whole)
    found, pyramid_levels = read_all(whole), levels("segmentation", shape, voxel_size)
    assert len(found) == len(pyramid_levels) > 3
    for before, level, labels in zip(found, pyramid_levels[1:], found[1:], strict=False):
        np.testing.assert_array_equal(labels, by_definition(before, level.step))
    counts = set()
    for number, block in enumerate([(8, 8, 8), (16, 8, 32), (7, 9, 10), (21, 16, 40), (8, 16, 5)]):
        stage = made(tmp_path / str(number), shape, block, voxel_size)
        write(stage)
        counts.add(len(stage._in_blocks))
        for labels, wanted in zip(read_all(stage), found, strict=True):
            np.testing.assert_array_equal(labels, wanted)
    assert len(counts) > 1  # some levels by blocks, some at the end


@pytest.mark.usefixtures("small")
def test_bytes_do_not_depend_on_order_and_what_is_there_is_kept(tmp_path: Path) -> None:
    stages = [made(tmp_path / name, (21, 34, 40), (8, 16, 8)) for name in "ab"]
    write(stages[0])
    stages[1].prepare()
    blocks = list(stages[1].blocks())
    for block in blocks[:7]:
        stages[1].process(block)
    stages[1].prepare()  # as a run that goes on
    for block in blocks[7:]:
        stages[1].process(block)
    stages[1].finish()
    stages[1].finish()
    files = [
        {str(file.relative_to(stage.folder)): file.read_bytes() for file in stage.folder.rglob("*") if file.is_file()}
        for stage in stages
    ]
    assert files[0] == files[1]


@pytest.mark.system
def test_worker_processes_write_all_levels(tmp_path: Path) -> None:
    shape = (40, 150, 260)
    stages = [made(tmp_path / "a", shape, (40, 128, 128)), made(tmp_path / "b", shape, shape)]
    for stage in stages:
        run_stage(stage, workers=2)
    assert [len(stage._in_blocks) for stage in stages] == [2, 3]
    for one, other in zip(*map(read_all, stages), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_block_is_a_file(tmp_path: Path) -> None:
    stage = made(tmp_path / "a", (40, 150, 260), (40, 128, 128))
    write(stage)
    for name in ("segmentation", "s1"):
        files = [file for file in (Path(stage.output.path) / name / "c").rglob("*") if file.is_file()]
        assert len(files) == stage.block_count
    array = stage.output.open().array
    assert (array.chunks, array.shards) == ((40, 64, 64), (40, 128, 128))


@pytest.mark.usefixtures("small")
def test_metadata_place_all_levels_alike(tmp_path: Path) -> None:
    stage = made(tmp_path / "a", (21, 34, 40), (8, 8, 8), (40.0, 8.0, 8.0))
    write(stage)
    group = zarr.open_group(stage.output.path, mode="r")
    ome = group.attrs["ome"]
    assert ome["version"] == "0.5"
    assert has_copies(stage.output.open())
    assert not has_copies(open_volume(stage.output.path, "s1"))
    assert not has_copies(stage.fragments.open())
    (multiscale,) = ome["multiscales"]
    assert [axis["name"] for axis in multiscale["axes"]] == ["z", "y", "x"]
    assert {axis["unit"] for axis in multiscale["axes"]} == {"nanometer"}
    assert [dataset["path"] for dataset in multiscale["datasets"]][:3] == ["segmentation", "s1", "s2"]
    for dataset in multiscale["datasets"]:
        volume = open_volume(stage.output.path, dataset["path"])
        assert volume.array.metadata.dimension_names == ("z", "y", "x")
        scale, translation = dataset["coordinateTransformations"]
        assert (scale["type"], translation["type"]) == ("scale", "translation")
        assert tuple(scale["scale"]) == volume.voxel_size
        # the middle of the first voxel there, its corner here
        corner = [t - s / 2 for t, s in zip(translation["translation"], scale["scale"], strict=True)]
        assert corner == list(volume.offset) == list(OFFSET)
        assert all(
            n * s - v < f * m <= n * s
            for n, s, v, f, m in zip(
                volume.shape, volume.voxel_size, volume.voxel_size, (40.0, 8.0, 8.0), stage.shape, strict=True
            )
        )


def test_without_writing_it_is_mapped(tmp_path: Path) -> None:
    written = made(tmp_path / "a", (20, 30, 25), (10, 10, 10))
    table = made(tmp_path / "b", (20, 30, 25), (20, 30, 25)).model_copy(update={"materialize": False})
    assert table.fingerprint() != written.fingerprint()
    for stage in (written, table):
        run_stage(stage)
    assert not Path(table.output.path).exists()
    assert table.lookup_file.exists()
    assert (table.open().voxel_size, table.open().offset, table.open().shape) == (VOXEL_SIZE, OFFSET, (20, 30, 25))
    for begin, shape in product([(0, 0, 0), (3, 7, 1)], [(17, 23, 24), (2, 1, 5)]):
        np.testing.assert_array_equal(table.open().read(begin, shape), written.open().read(begin, shape))
