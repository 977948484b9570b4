"""What may be shown, and where it lies."""

from __future__ import annotations

import json
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from neuroloom.errors import UserError
from neuroloom.segmentation.lookup import relabel
from neuroloom.viewing import layers as module
from neuroloom.viewing.layers import (
    Layer,
    array_files,
    axis_names,
    bounds,
    check_layers,
    codecs,
    grey_window,
    groups,
    layer_kind,
    translation,
    zarr_format,
)
from neuroloom.volume import Volume, create_volume, open_volume
from other_formats import DIRECT, Writer, write_n5


def make(folder: Path, name: str, shape: tuple[int, ...] = (4, 5, 6), dtype: str = "uint8") -> Volume:
    return create_volume(folder / "a.zarr", name, shape, dtype, (40, 4, 8), (80, -20, 12))


def test_the_translation_counts_the_offset_in_voxels(tmp_path: Path) -> None:
    volume = make(tmp_path, "raw")
    assert translation(volume) == (2, -5, 1.5)
    assert bounds(volume) == ((80, -20, 12), (240, 0, 60))


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "kind"),
    [
        ("raw", (4, 5, 6), "uint8", "image"),
        ("raw", (4, 5, 6), "float32", "image"),
        ("affinities", (3, 4, 5, 6), "uint8", "affinities"),
        ("something", (4, 5, 6), "uint64", "labels"),
        ("my_truth", (4, 5, 6), "uint16", "labels"),
        ("stack", (4, 5, 6), "uint16", "image"),
    ],
)
def test_how_a_volume_is_drawn_follows_from_what_it_holds(
    tmp_path: Path, name: str, shape: tuple[int, ...], dtype: str, kind: str
) -> None:
    volume = make(tmp_path, name, shape, dtype)
    assert layer_kind(name, volume) == kind
    check_layers([Layer(name, layer_kind(name, volume), volume)])


@pytest.mark.parametrize(
    ("kind", "shape", "dtype", "words"),
    [
        ("affinities", (4, 5, 6), "uint8", "no channels"),
        ("image", (3, 4, 5, 6), "uint8", "has channels"),
        ("labels", (4, 5, 6), "float32", "whole numbers"),
        ("labels", (4, 5, 6), "int64", "uint64 for labels"),
        ("image", (4, 5, 6), "float64", "float64"),
        ("image", (4, 5, 6), "uint64", "uint64"),
        ("picture", (4, 5, 6), "uint8", "kind 'picture'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    tmp_path: Path, kind: str, shape: tuple[int, ...], dtype: str, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        check_layers([Layer("a", kind, make(tmp_path, "a", shape, dtype))])  # type: ignore[arg-type]


def test_layers_need_names_of_their_own(tmp_path: Path) -> None:
    volume = make(tmp_path, "raw")
    with pytest.raises(UserError, match="'raw'"):
        check_layers([Layer("raw", "image", volume), Layer("raw", "image", volume)])
    with pytest.raises(UserError, match="nothing to show"):
        check_layers([])


def test_an_array_in_memory_has_no_folder(tmp_path: Path) -> None:
    array = zarr.create_array(zarr.storage.MemoryStore(), shape=(4, 4, 4), dtype="uint8", chunks=(4, 4, 4))
    with pytest.raises(UserError, match="neither in a folder nor behind a URL"):
        array_files(Volume(array, "memory", (8, 8, 8), (0, 0, 0)))
    assert (array_files(make(tmp_path, "volumes/raw")) / "zarr.json").is_file()


def test_codecs_inside_shards_are_found_and_unknown_ones_refused(tmp_path: Path) -> None:
    sharded = create_volume(
        tmp_path / "s.zarr", "raw", (8, 8, 8), "uint8", (8, 8, 8), chunks=(4, 4, 4), shards=(8, 8, 8)
    )
    assert {"sharding_indexed", "zstd", "bytes", "crc32c"} <= codecs(sharded)
    old = zarr.create_array(
        str(tmp_path / "old.zarr"), name="raw", shape=(4, 4, 4), dtype="uint8", zarr_format=2,
        compressors=numcodecs.LZ4(), attributes={"resolution": [8, 8, 8]},
    )  # fmt: skip
    assert axis_names(Volume(old, "old", (8, 8, 8), (0, 0, 0))) == ["d0", "d1", "d2"]
    with pytest.raises(UserError, match="compressed with lz4"):
        check_layers([Layer("raw", "image", open_volume(tmp_path / "old.zarr", "raw"))])


def test_axes_keep_their_own_names(tmp_path: Path) -> None:
    named = zarr.create_array(
        str(tmp_path / "n.zarr"), name="raw", shape=(4, 4, 4), dtype="uint8", dimension_names=["depth", None, "x"]
    )
    assert axis_names(Volume(named, "n", (8, 8, 8), (0, 0, 0))) == ["depth", "dim_1", "x"]


def test_the_grey_window_is_that_of_the_middle(tmp_path: Path) -> None:
    volume = create_volume(tmp_path / "a.zarr", "raw", (100, 100, 100), "uint8", (8, 8, 8))
    assert grey_window(volume) == (0, 255)  # blank
    voxels = np.full((100, 100, 100), 255, np.uint8)
    voxels[18:82, 18:82, 18:82] = np.random.default_rng(0).integers(40, 61, (64, 64, 64))
    volume.write((0, 0, 0), voxels)
    assert grey_window(volume) == (40, 60)
    blank = create_volume(tmp_path / "a.zarr", "float", (4, 4, 4), "float32", (8, 8, 8))
    assert grey_window(blank) == (0, 1)


@settings(deadline=None)
@given(arrays.arrays(np.uint64, st.integers(0, 30), elements=st.integers(1, 2**64 - 1), unique=True), st.data())
def test_groups_are_the_fragments_of_one_segment(fragments: np.ndarray, data: st.DataObject) -> None:
    fragments = np.sort(fragments)
    choices = st.sampled_from([int(f) for f in fragments]) if len(fragments) else st.nothing()
    segments = np.array([data.draw(choices) for _ in fragments], np.uint64)
    found = groups(np.stack([fragments, segments]))
    merged = np.array(fragments)
    for group in found:
        assert len(group) > 1
        merged[np.isin(fragments, np.array(group, np.uint64))] = group[0]
    wanted = relabel(fragments, np.stack([fragments, segments]))
    # the same partition: each of ours lies in one of theirs and the other way round
    pairs = {(int(a), int(b)) for a, b in zip(merged, wanted, strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_a_lookup_table_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_LOOKUP", 3)
    volume = make(tmp_path, "fragments", dtype="uint64")
    check_layers([Layer("segments", "labels", volume, lookup=np.ones((2, 3), np.uint64))])
    with pytest.raises(UserError, match="4 fragments"):
        check_layers([Layer("segments", "labels", volume, lookup=np.ones((2, 4), np.uint64))])
    with pytest.raises(UserError, match="belongs to labels"):
        check_layers([Layer("raw", "image", make(tmp_path, "raw"), lookup=np.ones((2, 1), np.uint64))])


@pytest.mark.parametrize("write", DIRECT)
@pytest.mark.parametrize("channels", [(), (2,)])
@pytest.mark.parametrize("chunks", [(4, 5, 6), (64, 64, 64)])
def test_other_formats_are_handed_over_as_zarr(
    tmp_path: Path, write: Writer, channels: tuple[int, ...], chunks: tuple[int, int, int]
) -> None:
    data = np.random.default_rng(0).integers(1, 255, (*channels, 9, 70, 80), dtype=np.uint16)
    volume = open_volume(*write(tmp_path, data, chunks))
    check_layers([Layer("raw", layer_kind("raw", volume), volume)])
    files = array_files(volume)
    assert callable(files)
    metadata = files(".zarray")
    assert metadata is not None
    grid = json.loads(metadata)["chunks"]
    for index in np.ndindex(*(-(-s // c) for s, c in zip(data.shape, grid, strict=True))):
        content = files(".".join(map(str, index)))
        assert content is not None
        folder = tmp_path / "as.zarr"
        folder.mkdir(exist_ok=True)
        (folder / ".".join(map(str, index))).write_bytes(content)
    (folder / ".zarray").write_bytes(metadata)
    np.testing.assert_array_equal(zarr.open_array(str(folder), mode="r", zarr_format=2)[:], data)
    assert zarr_format(volume) == 2
    assert axis_names(volume) == [f"d{axis}" for axis in range(data.ndim)]
    for name in ("zarr.json", ".zattrs", "0.0", ".".join("9" * data.ndim), "c/0/0/0"):
        assert files(name) is None


def test_a_chunk_that_cannot_be_read_is_an_error_of_the_server(tmp_path: Path) -> None:
    path, dataset = write_n5(tmp_path, np.ones((8, 8, 8), np.uint8), (8, 8, 8))
    files = array_files(open_volume(path, dataset))
    (Path(path) / dataset / "0/0/0").write_bytes(b"?")
    with pytest.raises(OSError, match="truncated"):
        files("0.0.0")  # type: ignore[operator]
