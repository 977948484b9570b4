"""Volumes: what is written is read, and every damage has its sentence."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any, Literal

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from neuroloom.errors import UserError
from neuroloom.volume import create_volume, open_volume
from neuroloom.volume.array import datasets, reflect_indices, volume_fingerprint

SIZE, OFFSET = (22.48, 8.0, 4.0), (10.0, -20.0, 30.5)


@pytest.mark.parametrize("shape", [(5, 70, 90), (3, 5, 70, 90)])
@pytest.mark.parametrize("shards", [None, (8, 64, 64)])
def test_written_is_read(tmp_path: Path, shape: tuple[int, ...], shards: tuple[int, int, int] | None) -> None:
    data = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    made = create_volume(
        tmp_path / "a.zarr",
        "x/y",
        shape,
        np.uint8,
        SIZE,
        OFFSET,
        chunks=(4, 32, 32),
        shards=shards,
        attributes={"who": "me"},
    )
    made.write((0, 0, 0), data)
    volume = open_volume(tmp_path / "a.zarr", "/x/y")
    assert (volume.voxel_size, volume.offset, volume.shape) == (SIZE, OFFSET, shape[-3:])
    assert volume.channels == (3 if len(shape) == 4 else None)
    assert volume.array.attrs["who"] == "me"
    np.testing.assert_array_equal(volume.read(), data)
    np.testing.assert_array_equal(volume.read((1, 2, 3), (3, 40, 50)), data[..., 1:4, 2:42, 3:53])
    padded = np.pad(data, [(0, 0)] * (data.ndim - 3) + [(4, 4), (6, 6), (7, 7)], mode="reflect")
    np.testing.assert_array_equal(
        volume.read_reflected((-4, -6, -7), [s + 2 * p for s, p in zip(shape[-3:], (4, 6, 7), strict=True)]), padded
    )
    for begin, extent in (((-1, 0, 0), (1, 1, 1)), ((0, 0, 80), (1, 1, 11))):
        with pytest.raises(UserError, match=r"leaves .*a.zarr/x/y of shape"):
            volume.read(begin, extent)


@given(st.integers(-200, 200), st.integers(1, 100), st.integers(1, 40))
def test_reflection_bounces(begin: int, extent: int, size: int) -> None:
    def bounce(v: int) -> int:
        while not 0 <= v < size:
            v = -v if v < 0 else 2 * (size - 1) - v
        return v

    expected = [0 if size == 1 else bounce(v) for v in range(begin, begin + extent)]
    assert reflect_indices(begin, extent, size).tolist() == expected


@pytest.mark.parametrize("form", [2, 3])
def test_the_level_of_compression(tmp_path: Path, form: Literal[2, 3]) -> None:
    values = np.random.default_rng(0).integers(0, 99, (8, 8, 8), np.uint64)
    data = np.kron(values, np.ones((8, 8, 8), np.uint64))
    sizes = []
    for level in (1, 9):
        volume = create_volume(
            tmp_path / f"{level}.zarr", "a", data.shape, data.dtype, (8, 8, 8), zarr_format=form, level=level
        )
        volume.write((0, 0, 0), data)
        np.testing.assert_array_equal(volume.read(), data)
        sizes.append(sum(file.stat().st_size for file in (tmp_path / f"{level}.zarr").rglob("*")))
    assert sizes[1] < sizes[0]


def test_zarr_v2_is_written_on_request(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 255, (3, 5, 70, 90), dtype=np.uint8)
    made = [
        create_volume(
            tmp_path / f"{form}.zarr",
            "x/y",
            data.shape,
            np.uint8,
            SIZE,
            OFFSET,
            chunks=(4, 32, 32),
            attributes={"who": "me"},
            zarr_format=form,
        )
        for form in (2, 3)
    ]
    made[0].write((0, 0, 0), data)
    array = zarr.open_array(str(tmp_path / "2.zarr"), path="x/y", mode="r", zarr_format=2)
    np.testing.assert_array_equal(array[:], data)
    assert dict(array.attrs) == dict(made[1].array.attrs)
    assert array.attrs["resolution"] == list(SIZE)
    assert (array.chunks, array.dtype, array.fill_value) == ((3, 4, 32, 32), np.uint8, 0)
    metadata = json.loads((tmp_path / "2.zarr/x/y/.zarray").read_text())
    assert (metadata["dimension_separator"], metadata["compressor"]["id"]) == ("/", "zstd")
    assert (tmp_path / "2.zarr/x/y/0/1/2/2").is_file()
    volume = open_volume(tmp_path / "2.zarr", "x/y")
    assert (volume.voxel_size, volume.offset, volume.channels) == (SIZE, OFFSET, 3)
    np.testing.assert_array_equal(volume.read(), data)
    with pytest.raises(ValueError, match="no shards"):
        create_volume(tmp_path / "s.zarr", "x", (8, 8, 8), np.uint8, SIZE, shards=(8, 8, 8), zarr_format=2)
    for there, wanted in ((2, 3), (3, 2)):
        with pytest.raises(UserError, match=f"{there}.zarr is zarr v{there}; no v{wanted} array"):
            create_volume(tmp_path / f"{there}.zarr", "z", (8, 8, 8), np.uint8, SIZE, zarr_format=wanted)  # type: ignore[arg-type]


def _write_shard(path: Path, z: int, data: np.ndarray) -> None:
    open_volume(path, "affinities").write((z, 0, 0), data)


def test_processes_write_whole_shards_and_parts_are_read(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 255, (3, 40, 24, 24), dtype=np.uint8)
    path = tmp_path / "a.zarr"
    create_volume(path, "affinities", data.shape, np.uint8, SIZE, chunks=(8, 8, 8), shards=(16, 24, 24))
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.starmap(_write_shard, [(path, z, data[:, z : z + 16]) for z in (0, 16, 32)])
    volume = open_volume(path, "affinities")
    np.testing.assert_array_equal(volume.read(), data)
    np.testing.assert_array_equal(volume.read((13, 3, 5), (9, 17, 4)), data[:, 13:22, 3:20, 5:9])
    assert volume.missing_chunks() == []
    assert len([p for p in (path / "affinities" / "c").rglob("*") if p.is_file()]) == 3


def write_zarr(path: Path, compressor: str, form: int) -> Path:
    codecs: dict[tuple[str, int], Any] = {
        ("blosc", 2): numcodecs.Blosc(cname="zstd"),
        ("zstd", 2): numcodecs.Zstd(),
        ("gzip", 2): numcodecs.GZip(),
        ("blosc", 3): zarr.codecs.BloscCodec(),
        ("zstd", 3): zarr.codecs.ZstdCodec(),
        ("gzip", 3): zarr.codecs.GzipCodec(),
    }
    array = zarr.open_group(str(path), mode="w", zarr_format=form).create_array(
        "volumes/raw",
        shape=(20, 20, 20),
        chunks=(10, 20, 20),
        dtype="u1",
        compressors=None if compressor == "none" else codecs[compressor, form],
    )
    array[:] = np.random.default_rng(0).integers(0, 255, array.shape, dtype=np.uint8)
    array.attrs["resolution"] = [8, 8, 8]
    return path


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize("compressor", ["blosc", "zstd", "gzip", "none"])
@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.999])
def test_a_truncated_chunk_is_told(tmp_path: Path, form: int, compressor: str, keep: float) -> None:
    path = write_zarr(tmp_path / "a.zarr", compressor, form)
    whole = open_volume(path, "volumes/raw").read()
    assert pickle.loads(pickle.dumps(open_volume(path, "volumes/raw").array)).shape == whole.shape  # to workers
    chunk = next(p for p in (path / "volumes" / "raw").rglob("*0*") if p.is_file() and not p.name.startswith("."))
    size = chunk.stat().st_size
    chunk.write_bytes(chunk.read_bytes()[: int(keep if keep >= 1 else keep * size)])
    with pytest.raises(UserError, match=r"a.zarr/volumes/raw: a chunk in the region .* truncated or damaged"):
        open_volume(path, "volumes/raw").read()


def test_blosc_volumes_can_be_written(tmp_path: Path) -> None:
    volume = open_volume(write_zarr(tmp_path / "a.zarr", "blosc", 2), "volumes/raw")
    volume.write((3, 3, 3), np.full((9, 5, 5), 7, np.uint8))
    assert (open_volume(tmp_path / "a.zarr", "volumes/raw").read((3, 3, 3), (9, 5, 5)) == 7).all()


@pytest.mark.parametrize(("form", "shards"), [(3, (8, 8, 8)), (3, None), (2, None)])
def test_files_in_a_region_are_deleted(
    tmp_path: Path, form: Literal[2, 3], shards: tuple[int, int, int] | None
) -> None:
    cut = {"chunks": (4, 4, 4), "shards": shards, "zarr_format": form}
    create_volume(tmp_path / "a.zarr", "a/b", (3, 20, 20, 20), np.uint8, (8, 8, 8), **cut)
    volume = open_volume(tmp_path / "a.zarr", "a/b")
    volume.write((0, 0, 0), np.ones((3, 20, 20, 20), np.uint8))
    volume.delete((0, 0, 8), (8, 8, 12))
    volume.delete((1, 1, 1), (6, 6, 6))  # holds no whole file
    expected = np.ones((3, 20, 20, 20), np.uint8)
    expected[:, :8, :8, 8:] = 0
    np.testing.assert_array_equal(volume.read(), expected)
    volume.delete((0, 0, 8), (8, 8, 12))  # harmless when repeated


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.zarr does not exist"):
        open_volume(tmp_path / "none.zarr", "raw")
    create_volume(tmp_path / "a.zarr", "volumes/raw", (4, 4, 4), np.uint8, SIZE)
    create_volume(tmp_path / "a.zarr", "volumes/labels/ids", (4, 4, 4), np.uint8, SIZE)
    with pytest.raises(UserError, match=r"holds no dataset 'rew'; it holds volumes/labels/ids, volumes/raw"):
        open_volume(tmp_path / "a.zarr", "rew")
    with pytest.raises(UserError, match=r"is a group, not an array; it holds volumes/labels/ids"):
        open_volume(tmp_path / "a.zarr", "volumes/labels")
    with pytest.raises(UserError, match="exists already"):
        create_volume(tmp_path / "a.zarr", "volumes/raw", (4, 4, 4), np.uint8, SIZE)
    create_volume(tmp_path / "a.zarr", "volumes/raw", (4, 4, 5), np.uint8, SIZE, overwrite=True)
    assert open_volume(tmp_path / "a.zarr", "volumes/raw").shape == (4, 4, 5)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "no attribute `resolution`"),
        ({"resolution": "eight"}, "expected three numbers in nm"),
        ({"resolution": [8, 8]}, "expected three numbers in nm"),
        ({"resolution": [8, 8, 0]}, "expected three numbers above 0"),
        ({"resolution": [8, 8, 8], "offset": [None] * 3}, "expected three numbers in nm"),
    ],
)
def test_senseless_places_are_told(tmp_path: Path, attributes: dict[str, Any], message: str) -> None:
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    group.create_array("raw", shape=(4, 4, 4), dtype="u1").attrs.update(attributes)
    with pytest.raises(UserError, match=message):
        open_volume(tmp_path / "a.zarr", "raw")
    group.create_array("flat", shape=(4, 4), dtype="u1").attrs["resolution"] = [8, 8, 8]
    with pytest.raises(UserError, match="has 2 axes"):
        open_volume(tmp_path / "a.zarr", "flat")


def test_broken_metadata_is_told(tmp_path: Path) -> None:
    create_volume(tmp_path / "a.zarr", "raw", (4, 4, 4), np.uint8, SIZE)
    file = tmp_path / "a.zarr" / "raw" / "zarr.json"
    for text in ("{", json.dumps({"zarr_format": 3, "node_type": "array"})):
        file.write_text(text)
        with pytest.raises(UserError, match=r"a\.zarr"):
            open_volume(tmp_path / "a.zarr", "raw")


def test_datasets_of_both_formats_are_listed(tmp_path: Path) -> None:
    write_zarr(tmp_path / "two.zarr", "zstd", 2)
    write_zarr(tmp_path / "three.zarr", "zstd", 3)
    assert datasets(tmp_path / "two.zarr") == datasets(tmp_path / "three.zarr") == ["volumes/raw"]


def test_the_fingerprint_changes_with_the_content(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "a.zarr", "zstd", 3)
    before = volume_fingerprint(path, "volumes/raw")
    assert volume_fingerprint(path, "/volumes/raw/") == before
    open_volume(path, "volumes/raw").write((0, 0, 0), np.zeros((1, 1, 1), np.uint8))
    assert volume_fingerprint(path, "volumes/raw") != before
