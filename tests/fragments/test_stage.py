"""Fragments in blocks: ids, borders, masks, nodes, the same bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from neuroloom.blockwise import Source
from neuroloom.errors import UserError
from neuroloom.fragments import fragments
from neuroloom.fragments.outputs import chunk_extent
from neuroloom.fragments.stage import Fragments
from neuroloom.fragments.watershed import connected
from neuroloom.volume import create_volume

SHAPE = (20, 44, 50)
BLOCK = (12, 20, 24)


@pytest.fixture
def affinities(tmp_path: Path) -> Source:
    field = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((3, *SHAPE)), (0, 1.5, 1.5, 1.5))
    values = np.clip(127.5 * (1.3 + field / field.std()), 0, 255).astype(np.uint8)
    volume = create_volume(tmp_path / "in.zarr", "affinities", values.shape, "uint8", (8, 8, 8), (80, 0, 16))
    volume.write((0, 0, 0), values)
    return Source(path=str(tmp_path / "in.zarr"), dataset="affinities", fingerprint="a")


def make(folder: Path, affinities: Source, order: NDArray[Any] | None = None, **parameters: Any) -> Fragments:
    stage = Fragments(
        **{
            "folder": folder,
            "shape": SHAPE,
            "block_shape": BLOCK,
            "context": (6, 6, 6),
            "affinities": affinities,
            "min_seed_distance": 5,
            **parameters,
        }
    )
    stage.prepare()
    blocks = list(stage.blocks())
    for number in range(len(blocks)) if order is None else order:
        stage.process(blocks[number])
    stage.finish()
    return stage


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_bytes_do_not_depend_on_order_or_repetition(tmp_path: Path, affinities: Source) -> None:
    first = make(tmp_path / "a", affinities)
    order = np.random.default_rng(1).permutation(first.block_count)
    make(tmp_path / "b", affinities, np.concatenate([order, order[:5]]))
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    assert len(hashes(tmp_path / "a")) > 2 * first.block_count


def test_every_fragment_hangs_together_within_one_block_and_has_its_node(tmp_path: Path, affinities: Source) -> None:
    stage = make(tmp_path / "a", affinities)
    volume = stage.output.open()
    labels = volume.read()
    assert (volume.voxel_size, volume.offset) == ((8, 8, 8), (80, 0, 16))
    assert labels.all()
    blocks = list(stage.blocks())
    nodes = stage.graph.read_nodes()
    assert np.array_equal(nodes.id, np.unique(labels))
    values = affinities.open().read()
    for i in range(len(nodes)):
        inside = labels == nodes.id[i]
        places = np.argwhere(inside)
        owner = blocks[int(nodes.id[i] - 1) // int(np.prod(BLOCK))].write_roi
        assert owner.contains(tuple(places.min(axis=0)))
        assert owner.contains(tuple(places.max(axis=0)))
        assert ndimage.label(inside)[1] == 1
        assert nodes.size[i] == len(places)
        np.testing.assert_allclose(nodes.centre[i], places.mean(axis=0) + 0.5)
        np.testing.assert_array_equal(nodes.begin[i], places.min(axis=0))
        np.testing.assert_array_equal(nodes.end[i], places.max(axis=0) + 1)
        np.testing.assert_allclose(nodes.mean_affinity[i], values[:, inside].mean() / 255, rtol=1e-5)


def test_one_block_is_the_kernel(tmp_path: Path, affinities: Source) -> None:
    stage = make(tmp_path / "a", affinities, block_shape=SHAPE)
    expected = connected(fragments(affinities.open().read(), min_seed_distance=5))  # numbers by first voxel
    np.testing.assert_array_equal(stage.output.open().read(), expected)


def test_a_block_sees_what_the_whole_volume_sees_but_for_what_lies_beyond_its_context(
    tmp_path: Path, affinities: Source
) -> None:
    labels = make(tmp_path / "a", affinities).output.open().read()
    whole = fragments(affinities.open().read(), min_seed_distance=5)
    # within a block, voxels of one blockwise fragment are of one whole fragment, nearly always
    pairs, counts = np.unique(np.stack([labels.reshape(-1), whole.reshape(-1)]), axis=1, return_counts=True)
    largest: dict[int, int] = {}
    for fragment, count in zip(pairs[0].tolist(), counts.tolist(), strict=True):
        largest[fragment] = max(largest.get(fragment, 0), count)
    assert sum(largest.values()) / labels.size > 0.9


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_mask_may_be_coarser_and_elsewhere(tmp_path: Path, affinities: Source, factor: int) -> None:
    # the mask starts 4 voxels after the affinities along x and ends before them
    extent = (20 // factor, 44 // factor, 40 // factor)
    values = np.random.default_rng(2).random(extent) > 0.3
    size = (8.0 * factor,) * 3
    create_volume(tmp_path / "mask.zarr", "mask", extent, "uint8", size, (80, 0, 16 + 4 * 8)).write(
        (0, 0, 0), values.astype(np.uint8)
    )
    mask = Source(path=str(tmp_path / "mask.zarr"), dataset="mask", fingerprint="m")
    labels = make(tmp_path / "a", affinities, mask=mask).output.open().read()
    expected = np.zeros(SHAPE, dtype=bool)
    expected[:, :, 4:44] = values.repeat(factor, 0).repeat(factor, 1).repeat(factor, 2)
    np.testing.assert_array_equal(labels > 0, expected)


def test_replaced_sections_are_those_of_the_volume(tmp_path: Path, affinities: Source) -> None:
    labels = make(tmp_path / "a", affinities, replace_sections=(3, 15)).output.open().read()
    assert [z for z in range(SHAPE[0]) if not labels[z].any()] == [3, 15]


def test_parameters_reach_the_kernel(tmp_path: Path, affinities: Source) -> None:
    parameters = {"fill": False, "filter_fragments": 0.6, "epsilon_agglomerate": 0.3, "in_xy": True, "threshold": 0.4}
    stage = make(tmp_path / "a", affinities, block_shape=SHAPE, **parameters)
    expected = fragments(affinities.open().read(), min_seed_distance=5, **parameters)  # type: ignore[arg-type]
    np.testing.assert_array_equal(stage.output.open().read(), expected)


def test_fingerprint_follows_parameters_and_inputs_not_places(tmp_path: Path, affinities: Source) -> None:
    def fingerprint(**changed: Any) -> str:
        parameters = {"folder": tmp_path, "shape": SHAPE, "block_shape": BLOCK, "affinities": affinities, **changed}
        return Fragments(**parameters).fingerprint()

    assert fingerprint(folder=tmp_path / "b") == fingerprint()
    assert fingerprint(affinities=affinities.model_copy(update={"path": "moved"})) == fingerprint()
    assert fingerprint(threshold=0.4) != fingerprint()
    assert fingerprint(affinities=affinities.model_copy(update={"fingerprint": "b"})) != fingerprint()


def test_wrong_inputs_are_named(tmp_path: Path, affinities: Source) -> None:
    with pytest.raises(UserError, match=r"expected \(20, 44, 51\)"):
        make(tmp_path / "a", affinities, shape=(20, 44, 51))
    create_volume(tmp_path / "raw.zarr", "raw", SHAPE, "uint8", (8, 8, 8))
    with pytest.raises(UserError, match="uint8 with no channels"):
        make(tmp_path / "a", Source(path=str(tmp_path / "raw.zarr"), dataset="raw", fingerprint="r"))
    create_volume(tmp_path / "mask.zarr", "mask", (10, 10, 10), "uint8", (12, 12, 12))
    mask = Source(path=str(tmp_path / "mask.zarr"), dataset="mask", fingerprint="m")
    with pytest.raises(UserError, match="no whole multiples"):
        make(tmp_path / "a", affinities, mask=mask)


@pytest.mark.parametrize(("block", "chunk"), [(128, 64), (100, 50), (64, 64), (7, 7), (67, 1), (1, 1), (96, 48)])
def test_chunks_divide_blocks(block: int, chunk: int) -> None:
    assert chunk_extent(block) == chunk
