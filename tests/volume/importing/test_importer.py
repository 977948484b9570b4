"""Import: every format gives the same volume, and every wrong input its own sentence."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorstore
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from neuroloom.errors import UserError
from neuroloom.volume import open_volume
from neuroloom.volume.importing import import_volume, importer
from neuroloom.volume.importing.sections import natural_key

SIZE = (40.0, 8.0, 4.0)
SHAPE = (11, 70, 90)


def grey(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(1, 255, shape, dtype=np.uint8)


def read(path: Path, name: str) -> NDArray[Any]:
    return open_volume(path, name).read()


def save_npy(folder: Path, data: NDArray[Any], name: str = "raw") -> str:
    np.save(folder / f"{name}.npy", data, allow_pickle=False)
    return str(folder / f"{name}.npy")


# ---- one writer per format; each returns what the user would type and whether the voxel size is in the file


def write_hdf5(folder: Path, data: NDArray[Any]) -> tuple[str, bool]:
    with h5py.File(folder / "a.h5", "w") as file:
        node = file.create_dataset("volumes/raw", data=data, chunks=(1, *data.shape[1:]), compression="gzip")
        node.attrs["resolution"] = SIZE
        file["other"] = np.zeros(SHAPE, np.uint8)
    return f"{folder / 'a.h5'}:/volumes/raw", True


def write_hdf5_micrometres(folder: Path, data: NDArray[Any]) -> tuple[str, bool]:
    with h5py.File(folder / "a.hdf5", "w") as file:
        file["t0/channel0"] = data
        file["t0/channel0"].attrs["element_size_um"] = [v / 1000 for v in SIZE]
    return str(folder / "a.hdf5"), True


def write_npy(folder: Path, data: NDArray[Any]) -> tuple[str, bool]:
    return save_npy(folder, data), False


def write_npy_fortran(folder: Path, data: NDArray[Any]) -> tuple[str, bool]:
    return save_npy(folder, np.asfortranarray(data)), False


def write_tiff(folder: Path, data: NDArray[Any]) -> tuple[str, bool]:
    tifffile.imwrite(folder / "a.tif", data)
    return str(folder / "a.tif"), False


def write_tiff_compressed(folder: Path, data: NDArray[Any]) -> tuple[str, bool]:
    tifffile.imwrite(folder / "a.tiff", data, compression="zlib", photometric="minisblack", metadata=None)
    return str(folder / "a.tiff"), False


def write_tiff_tiled(folder: Path, data: NDArray[Any]) -> tuple[str, bool]:
    tifffile.imwrite(folder / "a.tif", data, compression="zlib", tile=(32, 32), photometric="minisblack")
    return str(folder / "a.tif"), False


def write_imagej(folder: Path, data: NDArray[Any]) -> tuple[str, bool]:
    tifffile.imwrite(
        folder / "a.tif",
        data,
        imagej=True,
        resolution=(1 / (SIZE[2] / 1000), 1 / (SIZE[1] / 1000)),
        metadata={"spacing": SIZE[0] / 1000, "unit": "um", "axes": "ZYX"},
    )
    return str(folder / "a.tif"), True


def write_ome_tiff(folder: Path, data: NDArray[Any]) -> tuple[str, bool]:
    sizes = {f"PhysicalSize{a}": v / 1000 for a, v in zip("ZYX", SIZE, strict=True)}
    units = {f"PhysicalSize{a}Unit": "µm" for a in "ZYX"}
    tifffile.imwrite(
        folder / "a.ome.tif",
        data,
        metadata={"axes": "ZYX", **sizes, **units},
        compression="zlib",
        photometric="minisblack",
    )
    return str(folder / "a.ome.tif"), True


def write_png_folder(folder: Path, data: NDArray[Any]) -> tuple[str, bool]:
    (folder / "png").mkdir()
    for i, section in enumerate(data):
        Image.fromarray(section).save(folder / "png" / f"section_{i + 1}.png")
    (folder / "png" / "Thumbs.db").write_text("no image")
    return str(folder / "png"), False


def write_tiff_folder(folder: Path, data: NDArray[Any]) -> tuple[str, bool]:
    (folder / "tif").mkdir()
    for i, section in enumerate(data):
        tifffile.imwrite(folder / "tif" / f"z{i}.TIF", section)
    return str(folder / "tif"), False


def write_zarr2(folder: Path, data: NDArray[Any]) -> tuple[str, bool]:
    group = zarr.open_group(str(folder / "a.zarr"), mode="w", zarr_format=2)
    node = group.create_array("volumes/raw", shape=data.shape, dtype=data.dtype, chunks=(4, 32, 32), order="F")
    node[:] = data
    node.attrs["resolution"] = list(SIZE)
    group.create_array("other", shape=(2, 2, 2), dtype="u1")
    return str(folder / "a.zarr"), True


def write_zarr3(folder: Path, data: NDArray[Any]) -> tuple[str, bool]:
    group = zarr.open_group(str(folder / "a.zarr"), mode="w", zarr_format=3)
    node = group.create_array("image", shape=data.shape, dtype=data.dtype, chunks=(4, 16, 16), shards=(8, 32, 32))
    node[:] = data
    node.attrs.update({"voxel_size": [v / 1000 for v in SIZE], "units": ["um", "um", "um"]})
    return f"{folder / 'a.zarr'}:image", True


def ome_attributes(path: str, factor: float = 1.0) -> dict[str, Any]:
    scale = [1.0, *(v / 1000 / factor for v in SIZE)]
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    datasets = [
        {"path": path, "coordinateTransformations": [{"type": "scale", "scale": scale}]},
        {"path": "1", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1, 1]}]},
    ]
    whole = [{"type": "scale", "scale": [1.0, factor, factor, factor]}]
    return {"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets, "coordinateTransformations": whole}]}


def write_ome_zarr4(folder: Path, data: NDArray[Any]) -> tuple[str, bool]:
    group = zarr.open_group(str(folder / "a.ome.zarr"), mode="w", zarr_format=2)
    for name, step in (("0", 1), ("1", 2)):
        small = data[np.newaxis, ::step, ::step, ::step]
        group.create_array(name, shape=small.shape, dtype=small.dtype)[:] = small
    group.attrs.update(ome_attributes("0", factor=2.0))
    return str(folder / "a.ome.zarr"), True


def write_ome_zarr5(folder: Path, data: NDArray[Any]) -> tuple[str, bool]:
    group = zarr.open_group(str(folder / "a.zarr"), mode="w", zarr_format=3).create_group("em")
    for name, step in (("0", 1), ("1", 2)):
        small = data[np.newaxis, ::step, ::step, ::step]
        group.create_array(name, shape=small.shape, dtype=small.dtype)[:] = small
    group.attrs["ome"] = ome_attributes("0")
    return f"{folder / 'a.zarr'}:em", True


def write_n5(folder: Path, data: NDArray[Any]) -> tuple[str, bool]:
    """A real N5: dimensions x, y, z; the voxel at (x, y, z) is data[z, y, x]."""
    store = tensorstore.open(
        {
            "driver": "n5",
            "kvstore": {"driver": "file", "path": str(folder / "a.n5" / "em" / "s0")},
            "metadata": {
                "dimensions": list(data.shape[::-1]),
                "blockSize": [32, 16, 8],
                "dataType": str(data.dtype),
                "compression": {"type": "gzip"},
            },
            "create": True,
        }
    ).result()
    store.write(data.transpose(2, 1, 0)).result()
    edit_json(folder / "a.n5" / "em" / "s0" / "attributes.json", resolution=list(SIZE[::-1]))
    return f"{folder / 'a.n5'}:em/s0", True


def write_n5_pixel_resolution(folder: Path, data: NDArray[Any]) -> tuple[str, bool]:
    write_n5(folder, data)
    attributes = folder / "a.n5" / "em" / "s0" / "attributes.json"
    edit_json(
        attributes,
        resolution=None,
        pixelResolution={"dimensions": [SIZE[2] / 2000, SIZE[1] / 2000, SIZE[0] / 1000], "unit": "um"},
        downsamplingFactors=[2, 2, 1],
    )
    return str(folder / "a.n5"), True


def edit_json(file: Path, **values: Any) -> None:
    content = {**json.loads(file.read_text()), **values}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


WRITERS = [value for name, value in list(globals().items()) if name.startswith("write_")]


@pytest.mark.parametrize("write", WRITERS, ids=lambda w: w.__name__.removeprefix("write_"))
def test_every_format_gives_the_same_volume(
    tmp_path: Path, write: Callable[[Path, NDArray[Any]], tuple[str, bool]]
) -> None:
    data = grey()
    text, knows_size = write(tmp_path, data)
    if not knows_size:
        with pytest.raises(UserError, match=r"voxel size. Add --voxel-size"):
            import_volume(tmp_path / "out.zarr", raw=text)
        assert not (tmp_path / "out.zarr").exists()
    done = import_volume(tmp_path / "out.zarr", raw=text, voxel_size=None if knows_size else SIZE)
    volume = open_volume(tmp_path / "out.zarr", "volumes/raw")
    np.testing.assert_allclose(volume.voxel_size, SIZE, rtol=1e-5)
    assert done.shape == SHAPE
    assert volume.dtype == np.uint8
    np.testing.assert_array_equal(volume.read(), data)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


@pytest.mark.parametrize("axes", ["zyx", "xyz", "yxz", "zxy"])
@pytest.mark.parametrize("kind", ["npy", "tiff_compressed", "hdf5", "png_folder"])
def test_axis_order_named_by_the_user(tmp_path: Path, axes: str, kind: str) -> None:
    data = grey()
    stored = np.ascontiguousarray(data.transpose(["zyx".index(a) for a in axes]))
    text, _ = globals()[f"write_{kind}"](tmp_path, stored)
    done = import_volume(tmp_path / "out.zarr", raw=text, voxel_size=SIZE, axes=axes)
    assert done.shape == SHAPE
    np.testing.assert_array_equal(read(tmp_path / "out.zarr", "volumes/raw"), data)


def test_voxel_size_of_a_file_follows_the_named_axes(tmp_path: Path) -> None:
    data = grey()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = data.transpose(2, 1, 0)
        file["raw"].attrs["resolution"] = SIZE[::-1]
    assert import_volume(tmp_path / "out.zarr", raw=f"{tmp_path}/a.h5", axes="xyz").voxel_size == SIZE


@settings(max_examples=12, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    chunks=st.tuples(*[st.integers(1, 20)] * 3),
    axes=st.permutations("zyx"),
    memory=st.sampled_from([1, 1 << 29]),
    begin=st.tuples(*[st.integers(0, 12)] * 3),
)
def test_any_shape_chunking_and_place(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int, int],
    chunks: tuple[int, int, int],
    axes: list[str],
    memory: int,
    begin: tuple[int, int, int],
) -> None:
    """Regions, scratch files and pieces put every voxel where it belongs, for small units and any place of labels."""
    folder = tmp_path_factory.mktemp("any")
    labels = np.random.default_rng(1).integers(1, 2**40, shape)
    order = ["zyx".index(a) for a in axes]
    with h5py.File(folder / "labels.h5", "w") as file:
        stored = labels.transpose(order)
        file.create_dataset(
            "l", data=stored, chunks=tuple(min(c, s) for c, s in zip(chunks, stored.shape, strict=True))
        )
    # a source in one order of axes, a raw in the same
    raw = grey(tuple(s + b + 2 for s, b in zip(shape, begin, strict=True)))
    raw_text = save_npy(folder, np.ascontiguousarray(raw.transpose(order)))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("CHUNK", 8), ("SHARD", 16), ("_REGION", 4096), ("_MEMORY", memory)):
            patch.setattr(importer, name, value)
        import_volume(
            folder / "out.zarr",
            raw=raw_text,
            labels=f"{folder}/labels.h5",
            voxel_size=SIZE,
            offset=(80, 80, 80),
            label_offset=[80 + b * s for b, s in zip(begin, SIZE, strict=True)],
            axes="".join(axes),
        )
    np.testing.assert_array_equal(read(folder / "out.zarr", "volumes/raw"), raw)
    expected = np.zeros(raw.shape, np.uint64)
    box = tuple(slice(b, b + s) for b, s in zip(begin, shape, strict=True))
    expected[box] = labels
    np.testing.assert_array_equal(read(folder / "out.zarr", "volumes/labels/neuron_ids"), expected)
    np.testing.assert_array_equal(read(folder / "out.zarr", "volumes/labels/mask"), expected > 0)


def test_large_volumes_are_sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "_SHARD_ABOVE", 1000)
    data = grey((70, 300, 260))
    import_volume(tmp_path / "out.zarr", raw=save_npy(tmp_path, data), voxel_size=SIZE)
    volume = open_volume(tmp_path / "out.zarr", "volumes/raw")
    assert volume.array.shards == (256, 256, 256)
    np.testing.assert_array_equal(volume.read(), data)


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """A stack of compressed sections larger than the memory allowed is imported through a scratch file."""
    code = f"""
import numpy as np, resource, tifffile
from neuroloom.volume.importing import importer
importer._MEMORY = 1 << 22
with tifffile.TiffWriter({str(tmp_path / "a.tif")!r}) as file:
    for i in range(224):
        file.write(np.full((1024, 1024), 1 + i, np.uint8), compression="zlib", contiguous=False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
importer.import_volume({str(tmp_path / "out.zarr")!r}, raw={str(tmp_path / "a.tif")!r}, voxel_size=(8, 8, 8))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    grown = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert grown < 190, f"{grown} MiB for a volume of 224"
    np.testing.assert_array_equal(open_volume(tmp_path / "out.zarr", "volumes/raw").array[:, 5, 7], np.arange(1, 225))


# ---- types and ranges


def test_uint16_is_refused_with_its_range_and_rescaled_on_request(tmp_path: Path) -> None:
    data = np.linspace(1000, 5000, int(np.prod(SHAPE))).reshape(SHAPE).astype(np.uint16)
    text = save_npy(tmp_path, data)
    with pytest.raises(UserError, match=r"uint16 with values from 1000 to 5000.*--rescale 1000,5000"):
        import_volume(tmp_path / "out.zarr", raw=text, voxel_size=SIZE)
    assert not (tmp_path / "out.zarr").exists()
    import_volume(tmp_path / "out.zarr", raw=text, voxel_size=SIZE, rescale=(2000, 4000))
    expected = np.rint(np.clip((data.astype(float) - 2000) / 2000, 0, 1) * 255)
    np.testing.assert_array_equal(read(tmp_path / "out.zarr", "volumes/raw"), expected)


def test_percentiles_ignore_a_few_hot_voxels(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(1000, 50, SHAPE)
    data[0, 0, :5] = 1e6
    import_volume(tmp_path / "o.zarr", raw=save_npy(tmp_path, data), voxel_size=SIZE, rescale="percentiles")
    assert 100 < read(tmp_path / "o.zarr", "volumes/raw").mean() < 155
    low, high = np.percentile(data, (0.1, 99.9))
    assert open_volume(tmp_path / "o.zarr", "volumes/raw").array.attrs["rescaled_from"] == [low, high]


def test_percentiles_of_a_large_file_come_from_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuroloom.volume.importing.conversion._SAMPLE", 2000)
    data = np.linspace(0, 60000, int(np.prod(SHAPE))).reshape(SHAPE).astype(np.uint16)
    with pytest.raises(UserError, match=r"from 0 to 59\d+ \(in a sample\)|from 0 to 60000 \(in a sample\)"):
        import_volume(tmp_path / "o.zarr", raw=save_npy(tmp_path, data), voxel_size=SIZE)


def test_float_inside_the_range_stays_float(tmp_path: Path) -> None:
    data = grey() / np.float64(255)
    import_volume(tmp_path / "o.zarr", raw=save_npy(tmp_path, data), voxel_size=SIZE)
    got = read(tmp_path / "o.zarr", "volumes/raw")
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, data.astype(np.float32))


@pytest.mark.parametrize(("value", "message"), [(1.5, r"\[0, 1\]. Add --rescale"), (-0.1, r"values from -0.1 to")])
def test_float_outside_the_range_is_refused(tmp_path: Path, value: float, message: str) -> None:
    data = np.full(SHAPE, 0.5)
    data[3, 4, 5] = value
    with pytest.raises(UserError, match=message):
        import_volume(tmp_path / "o.zarr", raw=save_npy(tmp_path, data), voxel_size=SIZE)
    assert not (tmp_path / "o.zarr").exists()


@pytest.mark.parametrize("rescale", [None, (0.0, 1.0), "percentiles"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_raw_is_refused(tmp_path: Path, rescale: Any, value: float) -> None:
    data = np.full(SHAPE, 0.5)
    data[0, 0, 0] = 0.4
    data[3, 4, 5] = value
    with pytest.raises(UserError, match="NaN or infinite"):
        import_volume(tmp_path / "o.zarr", raw=save_npy(tmp_path, data), voxel_size=SIZE, rescale=rescale)
    assert not (tmp_path / "o.zarr").exists()


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", ">i4"])
def test_integer_labels_are_widened(tmp_path: Path, dtype: str) -> None:
    top = min(np.iinfo(dtype).max, 2**62)
    labels = np.full(SHAPE, top, dtype)
    labels[0] = 0
    import_volume(tmp_path / "o.zarr", labels=save_npy(tmp_path, labels), voxel_size=SIZE)
    got = read(tmp_path / "o.zarr", "volumes/labels/neuron_ids")
    assert got.dtype == np.uint64
    np.testing.assert_array_equal(got, labels.astype(np.uint64))


def test_negative_labels_are_refused_unless_named_as_background(tmp_path: Path) -> None:
    labels = np.full(SHAPE, 7, np.int32)
    labels[:4] = -1
    text = save_npy(tmp_path, labels)
    with pytest.raises(UserError, match=r"negative ids.*--background -1"):
        import_volume(tmp_path / "o.zarr", labels=text, voxel_size=SIZE)
    import_volume(tmp_path / "o.zarr", labels=text, voxel_size=SIZE, background=[-1])
    np.testing.assert_array_equal(
        read(tmp_path / "o.zarr", "volumes/labels/neuron_ids"), np.where(labels == -1, 0, labels)
    )


@pytest.mark.parametrize(("dtype", "message"), [("f4", "float32 labels; expected integers"), ("?", "--mask")])
def test_labels_of_a_wrong_type_are_refused(tmp_path: Path, dtype: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        import_volume(tmp_path / "o.zarr", labels=save_npy(tmp_path, np.ones(SHAPE, dtype)), voxel_size=SIZE)
    assert not (tmp_path / "o.zarr").exists()


@pytest.mark.parametrize("inside", [True, np.uint8(1), np.uint8(255), np.int32(1)])
def test_masks_of_two_values_become_zero_and_one(tmp_path: Path, inside: Any) -> None:
    mask = np.zeros(SHAPE, np.asarray(inside).dtype)
    mask[2:7] = inside
    import_volume(tmp_path / "o.zarr", mask=save_npy(tmp_path, mask), voxel_size=SIZE)
    got = read(tmp_path / "o.zarr", "volumes/labels/mask")
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, mask != 0)


def test_masks_that_are_none_are_refused(tmp_path: Path) -> None:
    for data, message in (
        (grey(), "expected a mask of 0 and one other"),
        (np.ones(SHAPE, np.float32), "expected a mask of true/false or integers"),
        (np.zeros(SHAPE, bool), "0 everywhere"),
    ):
        with pytest.raises(UserError, match=message):
            import_volume(tmp_path / "o.zarr", mask=save_npy(tmp_path, data), voxel_size=SIZE)
        assert not (tmp_path / "o.zarr").exists()


def test_all_zero_mask_over_the_labels_is_refused(tmp_path: Path) -> None:
    mask = np.ones((20, 20, 20), np.uint8)
    mask[4:10, 4:10, 4:10] = 0
    with pytest.raises(UserError, match="0 everywhere the labels are"):
        import_volume(
            tmp_path / "o.zarr",
            raw=save_npy(tmp_path, grey((20, 20, 20))),
            labels=save_npy(tmp_path, np.ones((6, 6, 6), np.uint8), "labels"),
            mask=save_npy(tmp_path, mask, "mask"),
            voxel_size=(8, 8, 8),
            label_offset=(32, 32, 32),
        )
    assert not (tmp_path / "o.zarr").exists()


def test_empty_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no labels in it"):
        import_volume(tmp_path / "o.zarr", labels=save_npy(tmp_path, np.zeros(SHAPE, np.uint8)), voxel_size=SIZE)


# ---- places


def test_labels_smaller_than_raw_need_a_place(tmp_path: Path) -> None:
    raw, labels = save_npy(tmp_path, grey((20, 30, 40))), save_npy(tmp_path, np.ones((5, 6, 7), "u4"), "labels")
    with pytest.raises(UserError, match=r"5,6,7 voxels, but raw has 20,30,40.*--label-offset"):
        import_volume(tmp_path / "o.zarr", raw=raw, labels=labels, voxel_size=(10, 10, 10))
    with pytest.raises(UserError, match="covers voxels 16,0,0 to 21,6,7"):
        import_volume(tmp_path / "o.zarr", raw=raw, labels=labels, voxel_size=(10, 10, 10), label_offset=(160, 0, 0))
    with pytest.raises(UserError, match="no whole number of voxels"):
        import_volume(tmp_path / "o.zarr", raw=raw, labels=labels, voxel_size=(10, 10, 10), label_offset=(5, 0, 0))


def test_places_written_in_the_files_are_used(tmp_path: Path) -> None:
    """As in the CREMI files: the labels' offset is nm from the raw's corner."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["volumes/raw"] = grey((20, 30, 40))
        file["volumes/labels/neuron_ids"] = np.full((5, 6, 7), 3, np.uint64)
        for name in ("volumes/raw", "volumes/labels/neuron_ids"):
            file[name].attrs["resolution"] = SIZE
        file["volumes/labels/neuron_ids"].attrs["offset"] = (80.0, 24.0, 16.0)
    done = import_volume(tmp_path / "o.zarr", raw=f"{tmp_path}/a.h5", labels=f"{tmp_path}/a.h5", offset=(40, 0, 0))
    assert done.offset == (40.0, 0.0, 0.0)
    got = read(tmp_path / "o.zarr", "volumes/labels/neuron_ids")
    assert got.shape == (20, 30, 40)
    assert got[2:7, 3:9, 4:11].min() == 3
    assert got.sum() == 3 * 5 * 6 * 7


def test_voxel_size_mismatch_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, size in (("raw", SIZE), ("labels", (40, 4, 4))):
            file[name] = grey()
            file[name].attrs["resolution"] = size
    texts = {"raw": f"{tmp_path}/a.h5:raw", "labels": f"{tmp_path}/a.h5:labels"}
    with pytest.raises(UserError, match=r"labels has voxels of 40,4,4 nm, but .*raw of 40,8,4 nm"):
        import_volume(tmp_path / "o.zarr", **texts)
    done = import_volume(tmp_path / "o.zarr", **texts, voxel_size=SIZE)
    assert any("says 40,4,4 nm" in note for note in done.notes)


def test_a_voxel_size_known_in_part_is_asked_for(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", grey(), imagej=True, resolution=(125, 125), metadata={"unit": "um", "axes": "ZYX"}
    )
    with pytest.raises(UserError, match=r"only \?,8,8 nm"):
        import_volume(tmp_path / "o.zarr", raw=f"{tmp_path}/a.tif")


def test_an_unknown_unit_is_named(tmp_path: Path) -> None:
    text, _ = write_zarr3(tmp_path, grey())
    zarr.open_array(str(tmp_path / "a.zarr"), path="image").attrs["units"] = "furlong"
    with pytest.raises(UserError, match="'furlong', which is no known unit"):
        import_volume(tmp_path / "o.zarr", raw=text)


# ---- wrong files


def test_an_array_without_voxels_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "none.npy", np.zeros((0, 4, 5), np.uint8))
    with pytest.raises(UserError, match=r"none.npy has no voxels \(shape \(0, 4, 5\)\)"):
        import_volume(tmp_path / "v.zarr", raw=tmp_path / "none.npy", voxel_size=(8, 8, 8))


def test_channels_are_refused_and_single_ones_dropped(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="3 channels"):
        import_volume(tmp_path / "o.zarr", raw=save_npy(tmp_path, grey((3, *SHAPE))), voxel_size=SIZE)
    with pytest.raises(UserError, match="3 channels"):
        import_volume(tmp_path / "o.zarr", raw=save_npy(tmp_path, grey((*SHAPE, 3))), voxel_size=SIZE, axes="zyxc")
    (tmp_path / "rgb").mkdir()
    Image.fromarray(grey((70, 90, 3))).save(tmp_path / "rgb" / "1.png")
    with pytest.raises(UserError, match="3 channels"):
        import_volume(tmp_path / "o.zarr", raw=f"{tmp_path}/rgb", voxel_size=SIZE)
    data = grey()
    import_volume(
        tmp_path / "o.zarr", raw=save_npy(tmp_path, data.transpose(1, 2, 0)[..., None]), voxel_size=SIZE, axes="yxzc"
    )
    np.testing.assert_array_equal(read(tmp_path / "o.zarr", "volumes/raw"), data)


@pytest.mark.parametrize(("axes", "message"), [("zy", "names 2 axes"), ("zzx", "once"), ("abc", "once")])
def test_senseless_axes_are_refused(tmp_path: Path, axes: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        import_volume(tmp_path / "o.zarr", raw=save_npy(tmp_path, grey()), voxel_size=SIZE, axes=axes)


def test_missing_files_and_datasets_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        import_volume(tmp_path / "o.zarr", raw=f"{tmp_path}/none.h5:x", voxel_size=SIZE)
    for text, _ in (write_hdf5(tmp_path, grey()), write_zarr2(tmp_path, grey()), write_n5(tmp_path, grey())):
        name = text if Path(text).exists() else text.rsplit(":", 1)[0]
        with pytest.raises(UserError, match=r"holds no dataset 'nothing'; it holds .*(raw|em/s0)"):
            import_volume(tmp_path / "o.zarr", raw=f"{name}:nothing", voxel_size=SIZE)
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["a"] = file["b"] = grey()
    with pytest.raises(UserError, match=r"holds a, b. Say which is the labels"):
        import_volume(tmp_path / "o.zarr", labels=f"{tmp_path}/two.h5", voxel_size=SIZE)
    (tmp_path / "a.mrc").write_text("x")
    with pytest.raises(UserError, match=r"no format that can be imported. Expected HDF5"):
        import_volume(tmp_path / "o.zarr", raw=f"{tmp_path}/a.mrc", voxel_size=SIZE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="without PNG or TIFF"):
        import_volume(tmp_path / "o.zarr", raw=f"{tmp_path}/empty", voxel_size=SIZE)
    with pytest.raises(UserError, match="Nothing to import"):
        import_volume(tmp_path / "o.zarr")


@pytest.mark.parametrize("write", WRITERS, ids=lambda w: w.__name__.removeprefix("write_"))
def test_truncated_files_are_refused(tmp_path: Path, write: Callable[[Path, NDArray[Any]], tuple[str, bool]]) -> None:
    """Cut the largest file of every format in half: one sentence, and nothing left that looks whole."""
    text, _ = write(tmp_path, grey())
    largest = max((p for p in tmp_path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    with pytest.raises(UserError, match="truncated"):
        import_volume(tmp_path / "out.zarr", raw=text, voxel_size=SIZE)
    assert not (tmp_path / "out.zarr").exists()


def test_sections_must_agree_and_gaps_are_told(tmp_path: Path) -> None:
    folder = Path(write_png_folder(tmp_path, grey())[0])
    (folder / "section_5.png").unlink()
    done = import_volume(tmp_path / "o.zarr", raw=str(folder), voxel_size=SIZE)
    assert done.shape[0] == SHAPE[0] - 1
    assert any("jump from 4 to 6" in note for note in done.notes)
    Image.fromarray(grey((5, 5))).save(folder / "section_5.png")
    with pytest.raises(UserError, match=r"section_5.png is \(5, 5\) uint8, but section_1.png"):
        import_volume(tmp_path / "o2.zarr", raw=str(folder), voxel_size=SIZE)
    tifffile.imwrite(folder / "a.tif", grey((70, 90)))
    with pytest.raises(UserError, match="PNG and 1 TIFF"):
        import_volume(tmp_path / "o2.zarr", raw=str(folder), voxel_size=SIZE)


def test_natural_order() -> None:
    names = ["s10.png", "s2.png", "S1.png", "a1b20.png", "a1b3.png", "s02.png"]
    assert sorted(names, key=natural_key) == ["a1b3.png", "a1b20.png", "S1.png", "s02.png", "s2.png", "s10.png"]


# ---- outputs


def test_existing_datasets_are_kept_unless_overwritten(tmp_path: Path) -> None:
    old, new = grey(seed=1), grey(seed=2)
    out = tmp_path / "o.zarr"
    import_volume(out, raw=save_npy(tmp_path, old), voxel_size=SIZE)
    with pytest.raises(UserError, match=r"holds volumes/raw already.*--overwrite"):
        import_volume(out, raw=save_npy(tmp_path, new), voxel_size=SIZE)
    np.testing.assert_array_equal(read(out, "volumes/raw"), old)
    import_volume(out, raw=save_npy(tmp_path, new), voxel_size=SIZE, overwrite=True)
    np.testing.assert_array_equal(read(out, "volumes/raw"), new)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.zarr", "raw.npy"]


def test_labels_can_be_added_later(tmp_path: Path) -> None:
    out = tmp_path / "o.zarr"
    import_volume(out, raw=save_npy(tmp_path, grey()), voxel_size=SIZE, offset=(400, 80, 40))
    labels = save_npy(tmp_path, np.full((5, 30, 40), 9, np.int32), "labels")
    with pytest.raises(UserError, match="--label-offset"):
        import_volume(out, labels=labels)
    with pytest.raises(UserError, match="has voxels of 40,8,4 nm, but --voxel-size is 8,8,8"):
        import_volume(out, labels=labels, voxel_size=(8, 8, 8))
    done = import_volume(out, labels=labels, label_offset=(440, 96, 48))
    assert done.voxel_size == SIZE
    got = read(out, "volumes/labels/neuron_ids")
    assert got.shape == SHAPE
    assert got[1:6, 2:32, 2:42].min() == 9
    assert open_volume(out, "volumes/labels/mask").offset == (400.0, 80.0, 40.0)
    assert int(read(out, "volumes/labels/mask").sum()) == 5 * 30 * 40
    with pytest.raises(UserError, match="neuron_ids already"):
        import_volume(out, labels=labels, label_offset=(440, 96, 48))
    import_volume(out, labels=labels, label_offset=(440, 80, 40), overwrite=True)
    assert read(out, "volumes/labels/neuron_ids")[1:6, :30, :40].min() == 9


def test_outputs_that_are_no_zarr_v3_are_refused(tmp_path: Path) -> None:
    text = save_npy(tmp_path, grey())
    (tmp_path / "file.zarr").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "letter.txt").write_text("x")
    zarr.open_group(str(tmp_path / "two.zarr"), mode="w", zarr_format=2)
    for name, message in (("file.zarr", "is a file"), ("folder", "no zarr container"), ("two.zarr", "zarr v2")):
        with pytest.raises(UserError, match=message):
            import_volume(tmp_path / name, raw=text, voxel_size=SIZE, overwrite=True)


def test_an_interrupted_import_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    text = save_npy(tmp_path, grey((100, 200, 200)))

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_volume(tmp_path / "o.zarr", raw=text, voxel_size=SIZE, progress=stop)
    assert [p.name for p in tmp_path.iterdir()] == ["raw.npy"]
    # what a kill -9 leaves is hidden, and gone after the next import
    room = tmp_path / ".o.zarr.import"
    (room / "partial.zarr" / "volumes").mkdir(parents=True)
    import_volume(tmp_path / "o.zarr", raw=text, voxel_size=SIZE)
    assert not room.exists()
    np.testing.assert_array_equal(read(tmp_path / "o.zarr", "volumes/raw"), np.load(text, allow_pickle=False))


def test_an_output_another_run_is_writing_is_refused(tmp_path: Path) -> None:
    text = save_npy(tmp_path, grey())
    seen: list[str] = []

    def second(done: int, total: int) -> None:
        with pytest.raises(UserError, match="Another run is writing") as caught:
            import_volume(tmp_path / "o.zarr", raw=text, voxel_size=SIZE)
        seen.append(str(caught.value))

    import_volume(tmp_path / "o.zarr", raw=text, voxel_size=SIZE, progress=second)
    assert seen
    assert (tmp_path / "o.zarr").exists()


def test_progress_ends_at_the_whole(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    import_volume(
        tmp_path / "o.zarr",
        raw=save_npy(tmp_path, grey()),
        labels=save_npy(tmp_path, grey(), "labels"),
        voxel_size=SIZE,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls[-1] == (3 * int(np.prod(SHAPE)),) * 2
    assert [c[0] for c in calls] == sorted(c[0] for c in calls)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB (where the test may mount one)."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("cannot mount a small file system here")
    yield folder
    # lazily, since a worker that ends may still hold it for a moment
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_told_and_cleaned(tmp_path: Path, tiny_disk: Path) -> None:
    text = save_npy(tmp_path, grey((64, 200, 200)))
    with pytest.raises(UserError, match="No room left on the disk"):
        import_volume(tiny_disk / "o.zarr", raw=text, voxel_size=SIZE)
    assert not (tiny_disk / "o.zarr").exists()
    assert not list(tiny_disk.rglob("partial*"))


def test_a_full_disk_is_told_wherever_it_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **keywords: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    text = save_npy(tmp_path, grey())
    monkeypatch.setattr(zarr.Array, "__setitem__", full)
    with pytest.raises(UserError, match="No room left on the disk"):
        import_volume(tmp_path / "o.zarr", raw=text, voxel_size=SIZE)
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".")) == ["raw.npy"]


def test_a_read_only_folder_is_told(tmp_path: Path) -> None:
    text = save_npy(tmp_path, grey())
    folder = tmp_path / "frozen"
    folder.mkdir()
    if os.geteuid() == 0:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m,ro", "tmpfs", str(folder)], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip("cannot mount a read-only file system here")
    else:
        folder.chmod(0o555)
    try:
        with pytest.raises(UserError, match="cannot be written"):
            import_volume(folder / "o.zarr", raw=text, voxel_size=SIZE)
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
