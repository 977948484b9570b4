"""What can be imported: HDF5, TIFF (file or folder), PNG folder, NPY, zarr v2 and v3, N5.

Each reader turns "FILE" or "FILE:DATASET" into an array that is read region by region, never as a whole, with the
voxel size where the file states it. Sections (TIFF, PNG) are in `sections`, HDF5 and N5 in `volume.formats`.

Source of zarr's attributes: OME-NGFF 0.4 and 0.5 (`multiscales`: axes with units, scale, translation).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.volume.array import DATASETS, datasets
from neuroloom.volume.chunks import checked
from neuroloom.volume.formats.file_array import (
    FileArray,
    Lengths,
    default_axes,
    first,
    in_nanometres,
    readable,
    units_of,
)
from neuroloom.volume.formats.hdf5 import SUFFIXES, hdf5_datasets, read_hdf5
from neuroloom.volume.formats.n5 import read_n5
from neuroloom.volume.formats.place import Place
from neuroloom.volume.importing.sections import SECTION_SUFFIXES, read_folder, read_tiff
from neuroloom.volume.importing.source import Source, as_zyx
from neuroloom.volume.units import nanometres_per

Role = Literal["raw", "labels", "mask"]
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
            name = _choose(path, datasets(path), dataset, role)
            inside = "" if name == "." else name
            return read_n5(Place(str(path)), inside, f"{path}:/{inside}" if inside else str(path))
        if any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zarray", ".zattrs")):
            return _read_zarr(path, dataset, role)
        if dataset is None and any(p.suffix.lower() in SECTION_SUFFIXES for p in path.iterdir()):
            return read_folder(path)
        raise UserError(f"{path} is a folder without zarr or N5 metadata and without PNG or TIFF sections.")
    if suffix in SUFFIXES:
        name = _choose(path, hdf5_datasets(path), dataset, role)
        return read_hdf5(path, name, f"{path}:/{name}")
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
        units = units_of(attributes)
        voxel_size = in_nanometres(first(attributes, "resolution", "voxel_size"), units, axes, location)
        offset = in_nanometres(attributes.get("offset"), units, axes, location)

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
