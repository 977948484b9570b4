"""What can be imported: HDF5, TIFF (file or folder), PNG folder, NPY, zarr v2 and v3, N5.

Each reader turns "FILE" or "FILE:DATASET" into an array that is read region by region, never as a whole, with the
voxel size where the file states it. Sections (TIFF, PNG) are in `sections`.

Sources of the attributes: CREMI's HDF5 (`resolution`, `offset`, nm z y x), Fiji's and BigDataViewer's HDF5
(`element_size_um`), the N5 conventions of Janelia (`resolution`, `pixelResolution`, x y z) and OME-NGFF 0.4 and 0.5
(`multiscales`: axes with units, scale, translation).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import tensorstore
import zarr
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.volume.array import DATASETS, datasets
from neuroloom.volume.chunks import checked
from neuroloom.volume.importing.sections import SECTION_SUFFIXES, read_folder, read_tiff
from neuroloom.volume.importing.source import FileArray, Lengths, Source, along_axes, as_zyx, default_axes, readable
from neuroloom.volume.units import nanometres_per

Role = Literal["raw", "labels", "mask"]
_HDF5 = (".h5", ".hdf5", ".hdf", ".he5")
_FORMATS = "HDF5 (.h5), TIFF, PNG or TIFF folder, NPY, zarr v2 or v3, N5"


def open_source(text: str, role: Role, axes: str | None = None) -> Source:
    """Open a file for import.

    Args:
        text: "FILE" or "FILE:DATASET".
        role: What it will be; chooses among several datasets of a file when none is named.
        axes: Order of the axes in the file; None for what the file says (N5: x y z; others: z y x).

    Raises:
        UserError: Missing file or dataset, unknown format, damaged file, more than one channel.
    """
    path, dataset = split_dataset(text)
    if not path.exists():
        raise UserError(f"{path} does not exist. Check the path of the {role}.")
    return as_zyx(_open(path, dataset, role), axes)


def split_dataset(text: str) -> tuple[Path, str | None]:
    """Split "FILE:DATASET" into both; a colon that belongs to an existing path is left there."""
    if Path(text).exists() or ":" not in text:
        return Path(text), None
    name, dataset = text.rsplit(":", 1)
    return Path(name), dataset.strip("/")


def _open(path: Path, dataset: str | None, role: Role) -> FileArray:
    suffix = path.suffix.lower()
    if path.is_dir():
        if suffix == ".n5" or (path / "attributes.json").exists():
            return _read_n5(path, dataset, role)
        if any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zarray", ".zattrs")):
            return _read_zarr(path, dataset, role)
        if dataset is None and any(p.suffix.lower() in SECTION_SUFFIXES for p in path.iterdir()):
            return read_folder(path)
        raise UserError(f"{path} is a folder without zarr or N5 metadata and without PNG or TIFF sections.")
    if suffix in _HDF5:
        return _read_hdf5(path, dataset, role)
    if dataset is not None:
        raise UserError(f"{path} holds one array; leave out :{dataset}. Only HDF5, zarr and N5 have datasets.")
    if suffix in (".tif", ".tiff"):
        return read_tiff(path)
    if suffix == ".npy":
        return _read_npy(path)
    raise UserError(f"{path} is of no format that can be imported. Expected {_FORMATS}.")


def _choose(path: Path, found: Sequence[str], dataset: str | None, role: Role) -> str:
    """The dataset that was named, or the only sensible one."""
    listing = ", ".join(found[:20]) + (" …" if len(found) > 20 else "") if found else "no arrays"
    if dataset is not None:
        if dataset not in found:
            raise UserError(f"{path} holds no dataset {dataset!r}; it holds {listing}. Name one of them.")
        return dataset
    if len(found) == 1:
        return found[0]
    if DATASETS[role] in found:
        return DATASETS[role]
    raise UserError(f"{path} holds {listing}. Say which is the {role}: {path}:DATASET.")


def _numbers(values: Any) -> list[float] | None:
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError):
        return None


def _in_nanometres(values: Any, units: Any, axes: str, location: str) -> Lengths:
    """Values per spatial axis, in the file's order, with one unit for all or one for each."""
    numbers = _numbers(values)
    if numbers is None:
        return (None,) * len(axes)
    names = [units] * len(numbers) if isinstance(units, str) else [str(unit) for unit in units]
    lengths: list[float | None] = []
    for number, name in zip(numbers, names, strict=False):
        factor = nanometres_per(name, location)
        lengths.append(None if factor is None else number * factor)
    return along_axes(lengths, axes)


def _first(attributes: Mapping[str, Any], *names: str) -> Any:
    return next((attributes[name] for name in names if name in attributes), None)


# ---- NPY


def _read_npy(path: Path) -> FileArray:
    with readable(str(path)):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim < 2:
        raise UserError(f"{path} has {array.ndim} axes; expected z, y, x.")
    axes = default_axes(array.ndim)
    nothing: Lengths = (None,) * array.ndim
    # contiguous on the disk: any region is as good as any other
    return FileArray(
        str(path), array.shape, array.dtype, axes, (1,) * array.ndim, lambda at: np.array(array[at]), nothing, nothing
    )


# ---- HDF5


def _read_hdf5(path: Path, dataset: str | None, role: Role) -> FileArray:
    with readable(str(path)):
        file = h5py.File(path, "r")
        found: list[str] = []
        file.visititems(lambda name, node: found.append(name) if _is_image(node) else None)
    name = _choose(path, sorted(found), dataset, role)
    node = file[name]
    location = f"{path}:/{name}"
    axes = default_axes(node.ndim)
    attributes = {key: node.attrs[key] for key in node.attrs}
    if "element_size_um" in attributes:
        voxel_size = _in_nanometres(attributes["element_size_um"], "um", axes, location)
    else:
        voxel_size = _in_nanometres(_first(attributes, "resolution", "voxel_size"), _units(attributes), axes, location)
    offset = _in_nanometres(attributes.get("offset"), _units(attributes), axes, location)
    chunks = node.chunks or (1,) * node.ndim
    # the closure keeps the file open
    return FileArray(location, node.shape, node.dtype, axes, chunks, lambda at: file[name][at], voxel_size, offset)


def _is_image(node: Any) -> bool:
    return isinstance(node, h5py.Dataset) and node.ndim >= 2 and node.dtype.kind in "buif"


def _units(attributes: Mapping[str, Any]) -> Any:
    """The unit beside `resolution`; nm, as the field writes it, when there is none."""
    units = _first(attributes, "units", "unit")
    if units is None:
        return "nm"
    if isinstance(units, bytes):
        return units.decode()
    if isinstance(units, str):
        return units
    return [unit.decode() if isinstance(unit, bytes) else str(unit) for unit in units]


# ---- zarr


def _read_zarr(path: Path, dataset: str | None, role: Role) -> FileArray:
    arrays = datasets(path)
    finest = {name: image for image in _multiscales(path, arrays) for name in [_finest(image)] if name in arrays}
    if dataset is not None and dataset not in arrays:
        below = [name for name in finest if name.startswith(f"{dataset}/")]
        dataset = below[0] if len(below) == 1 else dataset
    if dataset is None and len(arrays) > 1 and len(finest) == 1:
        dataset = next(iter(finest))
    name = _choose(path, arrays, dataset, role)
    location = f"{path}:/{name}" if name != "." else str(path)
    with readable(location):
        inside = "" if name == "." else name
        node = checked(zarr.open_array(str(path), path=inside, mode="r"), path, inside)
        attributes = dict(node.attrs)
    image = next((i for i in _multiscales(path, arrays) if name in _scales(i)), None)
    axes = _axis_names(image) if image else default_axes(node.ndim)
    if len(axes) != node.ndim:
        axes = default_axes(node.ndim)
    if image:
        voxel_size, offset = _multiscale_placement(image, name, axes, location)
    else:
        units = _units(attributes)
        voxel_size = _in_nanometres(_first(attributes, "resolution", "voxel_size"), units, axes, location)
        offset = _in_nanometres(attributes.get("offset"), units, axes, location)

    def read(at: tuple[slice, ...]) -> NDArray[Any]:
        return np.asarray(node[at])

    return FileArray(location, node.shape, np.dtype(node.dtype), axes, node.chunks, read, voxel_size, offset)


def _multiscales(path: Path, arrays: Sequence[str]) -> list[dict[str, Any]]:
    """The first image of each OME-Zarr group above an array, with its "group"."""
    images = []
    for group in sorted({str(Path(name).parent) for name in arrays}):
        for file, place in ((".zattrs", ()), ("zarr.json", ("attributes", "ome")), ("zarr.json", ("attributes",))):
            try:
                content: Any = json.loads((path / group / file).read_text())
                for key in place:
                    content = content[key]
                images.append({**content["multiscales"][0], "group": group})
                break
            except (OSError, ValueError, KeyError, IndexError, TypeError):
                continue
    return images


def _scales(image: Mapping[str, Any]) -> list[str]:
    return [(Path(image["group"]) / scale["path"]).as_posix() for scale in image.get("datasets", [])]


def _finest(image: Mapping[str, Any]) -> str:
    return next(iter(_scales(image)), "")


def _axis_names(image: Mapping[str, Any]) -> str:
    return "".join(str(axis["name"] if isinstance(axis, dict) else axis)[:1].lower() for axis in image.get("axes", []))


def _multiscale_placement(image: Mapping[str, Any], name: str, axes: str, location: str) -> tuple[Lengths, Lengths]:
    scale = image["datasets"][_scales(image).index(name)]
    size, offset = np.ones(len(axes)), np.zeros(len(axes))
    # the array's own transformations first, then those of the whole image
    for steps in (scale.get("coordinateTransformations", []), image.get("coordinateTransformations", [])):
        for step in steps:
            size *= np.asarray(step.get("scale", 1.0), dtype=float)
            offset *= np.asarray(step.get("scale", 1.0), dtype=float)
            offset += np.asarray(step.get("translation", 0.0), dtype=float)
    named = [axis if isinstance(axis, dict) else {} for axis in image.get("axes", [])]
    factors = [
        nanometres_per(str(axis.get("unit", "")), location) if letter in "zyx" else None
        for axis, letter in zip(named, axes, strict=False)
    ] or [None] * len(axes)
    voxel_size = tuple(None if f is None else float(s) * f for s, f in zip(size, factors, strict=True))
    return voxel_size, tuple(None if f is None else float(o) * f for o, f in zip(offset, factors, strict=True))


# ---- N5


def _read_n5(path: Path, dataset: str | None, role: Role) -> FileArray:
    name = _choose(path, sorted(_n5_datasets(path)), dataset, role)
    location = f"{path}:/{name}" if name != "." else str(path)
    with readable(location):
        store = tensorstore.open(
            {"driver": "n5", "kvstore": {"driver": "file", "path": str(path / name)}}, open=True, read=True
        ).result()
        attributes = json.loads((path / name / "attributes.json").read_text())
    # N5 counts its axes from the fastest: x, y, z
    axes = default_axes(3)[::-1] if store.rank == 3 else "xyzct"[: store.rank]
    parent = path / name
    above = _read_attributes(parent.parent) if parent != path else {}
    voxel_size, offset = _n5_placement(attributes, above, axes, location)
    chunks = tuple(size or 1 for size in store.chunk_layout.read_chunk.shape or (1,) * store.rank)

    def read(at: tuple[slice, ...]) -> NDArray[Any]:
        return np.asarray(store[at].read().result())

    return FileArray(
        location, tuple(store.shape), np.dtype(store.dtype.numpy_dtype), axes, chunks, read, voxel_size, offset
    )


def _read_attributes(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "attributes.json").read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _n5_datasets(path: Path) -> Iterator[str]:
    """Names of all arrays of an N5 container; folders of chunks are not searched."""
    pending = [path]
    while pending:
        folder = pending.pop()
        if "dimensions" in _read_attributes(folder):
            yield folder.relative_to(path).as_posix()
            continue
        pending += [entry for entry in folder.iterdir() if entry.is_dir()]


def _n5_placement(
    attributes: Mapping[str, Any], above: Mapping[str, Any], axes: str, location: str
) -> tuple[Lengths, Lengths]:
    nothing: Lengths = (None,) * len(axes)
    # an array's `resolution` is its own; what stands in the group above, or in `pixelResolution`, is of full scale
    factors = _numbers(attributes.get("downsamplingFactors")) or [1.0] * 3
    for found, scaled in ((attributes, False), (above, True)):
        for key in ("resolution", "pixelResolution"):
            value: Any = found.get(key)
            units = _units(found)
            if isinstance(value, dict):
                value, units = value.get("dimensions"), value.get("unit", "")
            elif key == "pixelResolution" and "units" not in found and "unit" not in found:
                continue  # a length without a unit is no length
            numbers = _numbers(value)
            if numbers is None:
                continue
            if scaled or key == "pixelResolution":
                numbers = [n * f for n, f in zip(numbers, factors, strict=False)]
            offset = _in_nanometres(attributes.get("offset"), _units(attributes), axes, location)
            return _in_nanometres(numbers, units, axes, location), offset
    return nothing, nothing
