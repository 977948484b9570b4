"""Every format, read where it lies, is the same volume; what is missing or wrong has its own sentence."""

from __future__ import annotations

import json
import math
import multiprocessing
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from http_folder import served
from neuroloom.errors import UserError
from neuroloom.volume import Volume, create_volume, open_volume, remote
from neuroloom.volume.array import datasets, has_dataset, volume_fingerprint
from neuroloom.volume.formats.place import Place
from other_formats import (
    DIRECT,
    OFFSET,
    SIZE,
    WRITERS,
    Writer,
    edit_json,
    write_hdf5,
    write_n5,
    write_precomputed,
    write_zarr,
)

SHAPE, CHUNKS = (11, 40, 50), (4, 16, 32)


def grey(shape: tuple[int, ...] = SHAPE) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(1, 255, shape, dtype=np.uint8)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("remote", [False, True])
def test_every_format_is_the_same_volume(
    tmp_path: Path, write: Writer, channels: tuple[int, ...], remote: bool
) -> None:
    data = grey((*channels, *SHAPE))
    path, dataset = write(tmp_path, data, CHUNKS)
    with served(tmp_path) as url:
        if remote and write is write_hdf5:
            with pytest.raises(UserError, match="HDF5 files are not read behind URLs"):
                open_volume(f"{url}/a.h5", dataset)
            return
        path = path.replace(str(tmp_path), url) if remote else path
        volume = open_volume(path, f"/{dataset}/")
        assert (volume.shape, volume.voxel_size, volume.offset) == (SHAPE, SIZE, OFFSET)
        assert (volume.channels, volume.dtype) == (channels[0] if channels else None, np.uint8)
        assert volume.location == f"{path}/{dataset}"
        assert volume.array.chunks[-3:] == CHUNKS
        assert volume.array.nbytes == data.nbytes
        np.testing.assert_array_equal(volume.read(), data)
        np.testing.assert_array_equal(volume.read((1, 2, 3), (5, 30, 40)), data[..., 1:6, 2:32, 3:43])
        padded = np.pad(data, [(0, 0)] * len(channels) + [(2, 2)] * 3, mode="reflect")
        np.testing.assert_array_equal(volume.read_reflected((-2, -2, -2), [s + 4 for s in SHAPE]), padded)
        assert volume.missing_chunks() == []
        assert has_dataset(path, dataset)
        assert not has_dataset(path, "other")
        if not remote:
            assert dataset in datasets(path)
        if write in DIRECT:
            with pytest.raises(UserError, match="can only be read"):
                volume.write((0, 0, 0), data)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_region_of_any_format(data: st.DataObject) -> None:
    write = data.draw(st.sampled_from(WRITERS))
    shape = data.draw(st.tuples(*[st.integers(1, 12)] * 3))
    chunks = data.draw(st.tuples(*[st.integers(1, 6)] * 3))
    begin = [data.draw(st.integers(0, s - 1)) for s in shape]
    extent = [data.draw(st.integers(1, s - b)) for s, b in zip(shape, begin, strict=True)]
    voxels = grey(shape)
    with tempfile.TemporaryDirectory() as folder:
        volume = open_volume(*write(Path(folder), voxels, chunks))
        found = volume.read(begin, extent)
        assert volume.missing_chunks(begin, extent) == []
    np.testing.assert_array_equal(found, voxels[tuple(slice(b, b + e) for b, e in zip(begin, extent, strict=True))])


def test_what_a_dataset_means_in_precomputed(tmp_path: Path) -> None:
    data = grey()
    path, _ = write_precomputed(tmp_path, data, CHUNKS)
    for place, dataset in ((path, "."), (path, ""), (str(tmp_path), "image"), (str(tmp_path), "image/8_8_8")):
        volume = open_volume(place, dataset)
        assert volume.voxel_size == SIZE
        np.testing.assert_array_equal(volume.read(), data)
        assert has_dataset(place, dataset)
    coarse = open_volume(path, "coarse")
    assert (coarse.shape, coarse.voxel_size) == ((6, 20, 25), (80, 16, 8))
    assert datasets(path) == ["8_8_8", "coarse"]
    assert datasets(tmp_path) == ["image/8_8_8", "image/coarse"]
    with served(tmp_path) as url:
        np.testing.assert_array_equal(open_volume(f"{url}/image", ".").read(), data)
        with pytest.raises(UserError, match=r"/image holds no dataset 'volumes/raw'; it holds coarse, 8_8_8"):
            open_volume(f"{url}/image", "volumes/raw")


def test_sharded_precomputed_is_read_but_does_not_tell_what_is_missing(tmp_path: Path) -> None:
    sharding = {
        "@type": "neuroglancer_uint64_sharded_v1", "preshift_bits": 1, "hash": "identity", "minishard_bits": 1,
        "shard_bits": 1, "minishard_index_encoding": "raw", "data_encoding": "gzip",
    }  # fmt: skip
    data = grey()
    volume = open_volume(*write_precomputed(tmp_path, data, CHUNKS, sharding))
    np.testing.assert_array_equal(volume.read(), data)
    assert volume.missing_chunks() == []


def test_files_that_are_compressed_once_more_are_refused_not_read_as_zeros(tmp_path: Path) -> None:
    path, dataset = write_precomputed(tmp_path, grey(), CHUNKS)
    for file in (tmp_path / "image" / "8_8_8").iterdir():
        file.rename(f"{file}.gz")
    with pytest.raises(UserError, match=r"compressed files such as .*\.gz"):
        open_volume(path, dataset)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("channels", [(), (2,)])
def test_missing_chunks_are_told_by_their_first_voxel(tmp_path: Path, write: Writer, channels: tuple[int, ...]) -> None:
    shape = (*channels, *SHAPE)
    path, dataset = write(tmp_path, grey(shape), CHUNKS)
    if write is write_hdf5:
        with h5py.File(path, "w") as file:
            node = file.create_dataset(dataset, shape, "u1", chunks=(*channels, *CHUNKS))
            for begin in np.ndindex(*(-(-s // c) for s, c in zip(SHAPE, CHUNKS, strict=True))):
                if begin != (1, 2, 1):
                    at = tuple(slice(b * c, (b + 1) * c) for b, c in zip(begin, CHUNKS, strict=True))
                    node[(..., *at)] = 1
            node.attrs["resolution"] = SIZE
    else:
        names = {
            "write_n5": "em/s0/1/2/1" + "/0" * len(channels),
            "write_precomputed": "8_8_8/35-53_30-38_6-10",
            "write_zarr": "volumes/raw/c/" + "0/" * len(channels) + "1/2/1",
            "write_zarr2": "volumes/raw/" + "0." * len(channels) + "1.2.1",
        }
        (Path(path) / names[write.__name__]).unlink()
    with served(tmp_path) as url:
        for place in [path] if write is write_hdf5 else [path, path.replace(str(tmp_path), url)]:
            volume = open_volume(place, dataset)
            assert volume.missing_chunks() == [(4, 32, 32)]
            assert volume.missing_chunks((7, 39, 49), (1, 1, 1)) == [(4, 32, 32)]
            assert volume.missing_chunks((0, 0, 0), (11, 40, 32)) == []
            assert not volume.read((4, 32, 32), (4, 8, 18)).any()
    with pytest.raises(UserError, match="leaves"):
        volume.missing_chunks((0, 0, 0), (12, 1, 1))


def test_hdf5_without_chunks_misses_none(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf", "w") as file:
        # not even asked for: 10^12 voxels cannot be counted one by one
        file.create_dataset("raw", (10_000,) * 3, "u1").attrs["element_size_um"] = [v / 1000 for v in SIZE]
    volume = open_volume(tmp_path / "a.hdf", "raw")
    assert volume.voxel_size == SIZE
    assert volume.missing_chunks() == []


@pytest.mark.parametrize("write", WRITERS)
def test_a_wrong_dataset_is_told_with_those_there_are(tmp_path: Path, write: Writer) -> None:
    path, dataset = write(tmp_path, grey(), CHUNKS)
    with pytest.raises(UserError, match=f"holds no dataset 'volumes/rew'; it holds .*{dataset}.*Name one of them"):
        open_volume(path, "volumes/rew")


@pytest.mark.parametrize("write", WRITERS)
def test_truncated_files_are_told(tmp_path: Path, write: Writer) -> None:
    path, dataset = write(tmp_path, grey(), CHUNKS)
    chunks = [p for p in Path(path).rglob("*") if p.is_file() and p.suffix != ".json" and p.name[0] in "0123456789"]
    for file in chunks or [Path(path)]:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match="truncated"):
        open_volume(path, dataset).read()
    if write is write_hdf5:
        assert not has_dataset(path, dataset)


@pytest.mark.parametrize("write", [write_hdf5, write_n5])
def test_a_missing_voxel_size_is_told(tmp_path: Path, write: Writer) -> None:
    path, dataset = write(tmp_path, grey(), CHUNKS)
    order = "z, y, x"
    if write is write_hdf5:
        with h5py.File(path, "a") as file:
            del file[dataset].attrs["resolution"]
    else:
        edit_json(Path(path) / dataset / "attributes.json", resolution=None)
        order = "x, y, z"
    with pytest.raises(UserError, match=rf"does not say its voxel size. Add the attribute `resolution` .*{order}\)"):
        open_volume(path, dataset)


def test_what_is_no_volume_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II")
    with pytest.raises(UserError, match=r"a.tif is a file of a format that is not read in place.*neuroloom import"):
        open_volume(tmp_path / "a.tif", "raw")
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["flat"] = np.zeros((4, 4), np.uint8)
        file["movie"] = np.zeros((3, 1, 4, 4, 4), np.uint8)
    for name, axes in (("flat", 2), ("movie", 5)):
        with pytest.raises(UserError, match=f"flat.h5/{name} has {axes} axes; expected z, y, x"):
            open_volume(tmp_path / "flat.h5", name)
    path, _ = write_precomputed(tmp_path, grey(), CHUNKS)
    info = json.loads((Path(path) / "info").read_text())
    for scale in info["scales"]:
        scale["encoding"] = "kempressed"
    (Path(path) / "info").write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"image/8_8_8 cannot be read .*kempressed"):
        open_volume(path, "8_8_8")


@pytest.mark.parametrize("write", [write_zarr, write_n5, write_precomputed])
def test_s3_is_read_with_the_environment_of_its_own_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Writer
) -> None:
    (tmp_path / "bucket").mkdir()
    data = grey()
    path, dataset = write(tmp_path / "bucket", data, CHUNKS)
    with served(tmp_path) as url:
        for name, value in (("ENDPOINT_URL", url), ("SKIP_SIGNATURE", "true"), ("REGION", "us-east-1")):
            monkeypatch.setenv(f"AWS_{name}", value)
        place = path.replace(str(tmp_path), "s3:/")
        volume = open_volume(place, dataset)
        np.testing.assert_array_equal(volume.read(), data)
        assert volume.missing_chunks() == []
    remote.open_store.cache_clear()  # the server is gone


@pytest.mark.parametrize("scheme", ["az", "abfs"])
def test_azure_is_read_by_zarr_only(scheme: str) -> None:
    with pytest.raises(UserError, match=rf"read from http\(s\), s3 and gs, not from {scheme}.*https"):
        Place(f"{scheme}://container/a.n5").open("n5", "em/s0")


@pytest.mark.parametrize("write", DIRECT)
def test_the_fingerprint_changes_with_the_content(tmp_path: Path, write: Writer) -> None:
    path, dataset = write(tmp_path, grey(), CHUNKS)
    before = volume_fingerprint(path, dataset)
    assert volume_fingerprint(path, f"/{dataset}/") == before
    for changed in sorted(p for p in (Path(path), *Path(path).rglob("*")) if p.is_file() and "coarse" not in str(p)):
        if changed.parent.name == "a.n5":
            continue  # the container's version
        content = changed.read_bytes()
        changed.write_bytes(content + b" ")
        assert volume_fingerprint(path, dataset) != before
        before = volume_fingerprint(path, dataset)


def test_the_fingerprint_of_a_url_changes_with_the_metadata(tmp_path: Path) -> None:
    for write in (write_n5, write_precomputed):
        path, dataset = write(tmp_path, grey(), CHUNKS)
        with served(tmp_path) as url:
            place = path.replace(str(tmp_path), url)
            before = volume_fingerprint(place, dataset)
            assert volume_fingerprint(place, dataset) == before
            edit_json(Path(path) / ("info" if write is write_precomputed else f"{dataset}/attributes.json"), more=1)
            assert volume_fingerprint(place, dataset) != before


def _sum(volume: Volume, z: int) -> int:
    return int(volume.read((z, 0, 0), (1, *volume.shape[1:])).sum())


@pytest.mark.parametrize(
    ("write", "method"), [*((write, "spawn") for write in DIRECT), (write_hdf5, "fork"), (write_zarr, "spawn")]
)
def test_several_processes_read_at_once(tmp_path: Path, write: Writer, method: str) -> None:
    data = grey()
    volume = open_volume(*write(tmp_path, data, CHUNKS))
    volume.read()  # whatever it opens in this process is not for the others
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.starmap(_sum, [(volume, z) for z in range(SHAPE[0])])
    assert found == [int(section.sum()) for section in data]


def test_missing_chunks_of_shards_are_whole_shards(tmp_path: Path) -> None:
    volume = create_volume(tmp_path / "s.zarr", "r", (40, 40, 40), "u1", SIZE, chunks=(8, 8, 8), shards=(16, 16, 16))
    volume.write((16, 16, 16), np.ones((8, 8, 8), np.uint8))
    missing = volume.missing_chunks()
    assert len(missing) == math.prod((3, 3, 3)) - 1
    assert (16, 16, 16) not in missing
    assert (32, 32, 0) in missing


def test_attributes_are_those_of_the_field(tmp_path: Path) -> None:
    """N5's full-scale resolution in the group above, in µm; HDF5's unit beside the voxel size."""
    path, dataset = write_n5(tmp_path, grey(), CHUNKS)
    attributes = Path(path) / dataset / "attributes.json"
    edit_json(attributes, resolution=None, offset=None, downsamplingFactors=[2, 2, 1])
    edit_json(Path(path) / "em" / "attributes.json", pixelResolution={"dimensions": [0.002, 0.004, 0.04], "unit": "um"})
    volume = open_volume(path, dataset)
    np.testing.assert_allclose(volume.voxel_size, SIZE)
    assert volume.offset == (0, 0, 0)
    path, dataset = write_hdf5(tmp_path, grey(), CHUNKS)
    with h5py.File(path, "a") as file:
        file[dataset].attrs.update({"resolution": [v / 1000 for v in SIZE], "offset": (0.0,) * 3, "units": "um"})
    np.testing.assert_allclose(open_volume(path, dataset).voxel_size, SIZE)
