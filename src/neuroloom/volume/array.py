"""An array with a place in space.

A volume is an array whose last three axes are z, y, x, with optional channels in front, and two attributes in nm, as
the field writes them: `resolution` (the voxel size) and `offset` (of the first voxel's corner). Written ones are zarr;
zarr (v2 and v3), N5, HDF5 and precomputed are read, in folders and behind URLs. Blocks and regions are in voxels of the
array's own grid; nm appear only in these two numbers.

             channels   z  y  x
    shape  = (   c,     Z, Y, X)      world(v) = offset + v * voxel size     [nm]
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numcodecs
import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray

from neuroloom.errors import UserError
from neuroloom.files import explain_os_errors, make_folder
from neuroloom.volume.buffers import use_quick_buffers
from neuroloom.volume.chunks import checked
from neuroloom.volume.formats.file_array import DirectArray, as_direct
from neuroloom.volume.formats.hdf5 import hdf5_datasets, is_hdf5, read_hdf5
from neuroloom.volume.formats.n5 import is_n5, n5_metadata, read_n5
from neuroloom.volume.formats.place import Place
from neuroloom.volume.formats.precomputed import find_scale, read_precomputed, scale_names
from neuroloom.volume.missing import find_missing
from neuroloom.volume.pipeline import use_shared_out
from neuroloom.volume.remote import is_url, open_remote, remote_fingerprint

Triple = tuple[int, int, int]
use_quick_buffers()
use_shared_out()

Nanometres = tuple[float, float, float]
DATASETS = {"raw": "volumes/raw", "labels": "volumes/labels/neuron_ids", "mask": "volumes/labels/mask"}
"""Where the field keeps the image, the truth and the mask in a zarr container."""


@dataclass(frozen=True)
class Volume:
    """An array with voxel size and offset; made by `open_volume` and `create_volume`.

    Attributes:
        array: `(z, y, x)` or `(c, z, y, x)`: a zarr array, or one of another format, which can only be read.
        location: Where it lies, for messages: "path/dataset".
        voxel_size: nm per voxel, z y x.
        offset: nm of the corner of voxel (0, 0, 0), z y x.
    """

    array: zarr.Array | DirectArray
    location: str
    voxel_size: Nanometres
    offset: Nanometres

    @property
    def shape(self) -> Triple:
        """Extent in voxels, z y x, without channels."""
        z, y, x = self.array.shape[-3:]
        return int(z), int(y), int(x)

    @property
    def channels(self) -> int | None:
        """Number of channels, or None for an array without a channel axis."""
        return int(self.array.shape[0]) if self.array.ndim == 4 else None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type."""
        return np.dtype(self.array.dtype)

    def read(self, begin: Sequence[int] = (0, 0, 0), shape: Sequence[int] | None = None) -> NDArray[Any]:
        """Read a region, channels included.

        Args:
            begin: First voxel, z y x.
            shape: Extent in voxels, z y x; to the end of the volume if None.

        Returns:
            The region, `(z, y, x)` or `(c, z, y, x)`.

        Raises:
            UserError: A chunk is truncated or damaged, or the region leaves the volume.
        """
        extent = self._extent(begin, shape)
        selection = (..., *(slice(b, b + e) for b, e in zip(begin, extent, strict=True)))
        try:
            return np.asarray(self.array[selection])
        except Exception as error:  # codecs raise many types; all of them mean a chunk that cannot be decoded
            if is_url(self.location):
                raise UserError(
                    f"{self.location}: the region {tuple(begin)} + {tuple(extent)} cannot be read "
                    f"({type(error).__name__}: {error}). Either the network failed: run the same command again, what "
                    "was finished is kept; or a chunk is damaged there."
                ) from error
            raise UserError(
                f"{self.location}: a chunk in the region {tuple(begin)} + {tuple(extent)} cannot be decoded "
                f"({type(error).__name__}: {error}). The file is truncated or damaged: copy it again; if it is a "
                "result, delete its folder and run again."
            ) from error

    def read_reflected(self, begin: Sequence[int], shape: Sequence[int]) -> NDArray[Any]:
        """Read a region that may leave the volume; outside, the volume is mirrored about its border voxels.

        Args:
            begin: First voxel, z y x; may be negative.
            shape: Extent in voxels, z y x.

        Returns:
            The region, `(z, y, x)` or `(c, z, y, x)`. Along each axis voxel -k is voxel k ("reflect").

        Raises:
            UserError: As `read`.
        """
        indices = [reflect_indices(b, e, size) for b, e, size in zip(begin, shape, self.shape, strict=True)]
        low = [int(i.min()) for i in indices]
        inner = self.read(low, [int(i.max()) + 1 - b for i, b in zip(indices, low, strict=True)])
        for axis, (index, b) in enumerate(zip(indices, low, strict=True)):
            if not np.array_equal(index - b, np.arange(len(index))):
                inner = np.take(inner, index - b, axis=axis + inner.ndim - 3)
        return inner

    def missing_chunks(self, begin: Sequence[int] = (0, 0, 0), shape: Sequence[int] | None = None) -> list[Triple]:
        """Chunks that have no file, and so read as 0: never written because they are 0, or lost in copying.

        Nothing is decoded. Files are asked for by name, behind a URL one request each. Of sharded zarr, whole shards
        are told, not chunks within one. None is told where the format cannot: HDF5 without chunks, sharded precomputed.

        Args:
            begin: First voxel, z y x.
            shape: Extent in voxels, z y x; to the end of the volume if None.

        Returns:
            First voxel, z y x, of each missing chunk that intersects the region, in order.

        Raises:
            UserError: The region leaves the volume, or the URL cannot be reached.
        """
        return find_missing(self.array, begin, self._extent(begin, shape))

    def _extent(self, begin: Sequence[int], shape: Sequence[int] | None) -> list[int]:
        extent = [size - b for size, b in zip(self.shape, begin, strict=True)] if shape is None else list(shape)
        for b, e, size in zip(begin, extent, self.shape, strict=True):
            if b < 0 or e < 0 or b + e > size:
                raise UserError(
                    f"Region {tuple(begin)} + {tuple(extent)} leaves {self.location} of shape {self.shape}."
                )
        return extent

    def write(self, begin: Sequence[int], data: NDArray[Any]) -> None:
        """Write a region; whole chunks, when several processes write.

        Args:
            begin: First voxel, z y x.
            data: `(z, y, x)` or `(c, z, y, x)` as the volume.

        Raises:
            UserError: The disk is full, the folder cannot be written, or the volume is not zarr.
        """
        if isinstance(self.array, DirectArray):
            raise UserError(f"{self.location} is not zarr; volumes of other formats can only be read.")
        selection = (..., *(slice(b, b + e) for b, e in zip(begin, data.shape[-3:], strict=True)))
        with explain_os_errors(self.location):
            self.array[selection] = data

    def delete(self, begin: Sequence[int], shape: Sequence[int]) -> None:
        """Delete the files that lie wholly in a region; there the volume is 0 then. It must lie in a folder.

        Args:
            begin: First voxel, z y x.
            shape: Extent in voxels, z y x.
        """
        assert isinstance(self.array, zarr.Array)
        cut = self.array.shards or self.array.chunks
        ranges = [range(-(-size // c)) for size, c in zip(self.array.shape[:-3], cut[:-3], strict=True)]
        for first, extent, size, c in zip(begin, shape, self.shape, cut[-3:], strict=True):
            end = first + extent
            ranges.append(range(-(-first // c), -(-size // c) if end >= size else end // c))
        folder = Path(str(self.array.store_path.store.root)) / self.array.path
        for place in itertools.product(*ranges):
            (folder / self.array.metadata.encode_chunk_key(place)).unlink(missing_ok=True)


def same_voxel_size(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether two voxel sizes in nm are equal but for rounding."""
    return all(abs(x - y) <= 1e-3 * y for x, y in zip(a, b, strict=True))


def reflect_indices(begin: int, extent: int, size: int) -> NDArray[np.int64]:
    """Indices into an axis of `size` voxels for positions begin … begin + extent, mirrored at the borders.

    The mirror is the border voxel itself (period 2·size - 2), as in `numpy.pad(mode="reflect")`.
    """
    if size == 1:
        return np.zeros(extent, dtype=np.int64)
    period = 2 * size - 2
    position = np.arange(begin, begin + extent, dtype=np.int64) % period
    return np.where(position < size, position, period - position)


def open_volume(path: str | Path, dataset: str) -> Volume:
    """Open an existing volume for reading and, where it is zarr and the file system allows, writing.

    Args:
        path: A folder or URL with zarr (v2 or v3), N5 or precomputed, or an HDF5 file.
        dataset: The array's name in it, such as "volumes/raw"; "." for the path itself. Of precomputed, the key of a
            scale; see `formats.precomputed`.

    Raises:
        UserError: Missing container or dataset, wrong number of axes, missing or senseless voxel size.
    """
    name = _normal(dataset)
    location = f"{path}/{name}" if name else str(path)
    place = Place(str(path))
    array: zarr.Array | DirectArray | None
    if is_url(path):
        array = _open_url(place, name, location)
    elif not Path(path).exists():
        raise UserError(f"{path} does not exist. Check the path; `neuroloom import` makes volumes from other files.")
    elif is_hdf5(path):
        array = as_direct(read_hdf5(Path(path), name, location))
    elif not Path(path).is_dir():
        raise UserError(
            f"{path} is a file of a format that is not read in place; expected HDF5, or a folder with zarr, N5 or "
            "precomputed. Bring it in with `neuroloom import`."
        )
    else:
        array = None if _is_zarr(place, name) else _open_other(place, name, location)
        array = _open_zarr(Path(path), name) if array is None else array
    if array.ndim not in (3, 4):
        raise UserError(f"{location} has {array.ndim} axes; expected z, y, x with an optional channel axis in front.")
    if isinstance(array, DirectArray):
        return Volume(array, location, *_placement_of_file(array, location))
    return Volume(array, location, *_placement(array, location))


def _open_url(place: Place, name: str, location: str) -> zarr.Array | DirectArray:
    if is_hdf5(place.root):
        raise UserError(
            f"{place.root}: HDF5 files are not read behind URLs. Download it, or have it written as zarr, which is."
        )
    # asked for first: zarr asks for several files at once and leaves the failures of all but one to the event loop
    if _is_zarr(place, name):
        return open_remote(place.root, name)
    array = _open_other(place, name, location)
    if array is None:
        scales = ", ".join(scale_names(place))
        what = (
            f"; it holds {scales}. Name one of them." if scales else ". Check the URL, the name and your credentials."
        )
        raise UserError(f"{place.root} holds no dataset {name!r}{what}")
    return array


def _open_other(place: Place, name: str, location: str) -> DirectArray | None:
    """An N5 or precomputed array; None where there is neither."""
    if is_n5(place, name):
        return as_direct(read_n5(place, name, location))
    scale = find_scale(place, name)
    return None if scale is None else as_direct(read_precomputed(place, scale, location))


def _open_zarr(container: Path, name: str) -> zarr.Array:
    try:
        node = zarr.open(str(container), path=name, mode="r+" if _is_writable(container) else "r")
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise UserError(
            f"{container} holds no dataset {name!r}; it holds {', '.join(datasets(container)) or 'no arrays'}. "
            "Name one of them."
        ) from error
    if not isinstance(node, zarr.Array):
        inside = ", ".join(found for found in datasets(container) if found.startswith(name))
        raise UserError(f"{container}/{name} is a group, not an array; it holds {inside or 'no arrays'}. Name one.")
    return checked(node, container, name)


def _is_zarr(place: Place, name: str) -> bool:
    return any(place.exist([f"{name}/{file}" if name else file for file in ("zarr.json", ".zarray")]))


def _normal(dataset: str) -> str:
    return "" if dataset == "." else dataset.strip("/")


def create_volume(
    path: str | Path,
    dataset: str,
    shape: Sequence[int],
    dtype: DTypeLike,
    voxel_size: Sequence[float],
    offset: Sequence[float] = (0.0, 0.0, 0.0),
    *,
    chunks: Sequence[int] = (64, 64, 64),
    shards: Sequence[int] | None = None,
    attributes: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    zarr_format: Literal[2, 3] = 3,
    named_axes: bool = False,
    level: int = 3,
) -> Volume:
    """Make a new, empty volume (zarr, zstd) filled with zeros.

    Args:
        path: The zarr container; made when missing.
        dataset: The array's name in it.
        shape: `(z, y, x)` or `(c, z, y, x)` in voxels.
        dtype: Element type.
        voxel_size: nm, z y x.
        offset: nm, z y x.
        chunks: Chunk extent z y x in voxels; all channels lie in one chunk. Cut to the volume's extent.
        shards: Voxels z y x kept in one file, multiples of `chunks`; None for one file per chunk.
        attributes: Further attributes (provenance).
        overwrite: Replace an existing array of that name.
        zarr_format: 3, or 2 for programs that do not read 3; its chunks lie in folders ("/").
        named_axes: Whether axes are named in zarr's own metadata, too, as OME-NGFF wants it.
        level: Of zstd. Labels become a third smaller or more from 1 to 3; affinities 1 % smaller, in twice the time.

    Raises:
        UserError: The array exists, the container is of the other format, or the folder cannot be written.
        ValueError: Shards in format 2, which has none.
    """
    if zarr_format == 2 and shards is not None:
        raise ValueError("zarr v2 has no shards; expected None")
    container = Path(path)
    if (container / (".zgroup" if zarr_format == 3 else "zarr.json")).exists():
        raise UserError(
            f"{container} is zarr v{5 - zarr_format}; no v{zarr_format} array can be put into it. Choose another name."
        )
    spatial = tuple(int(s) for s in shape[-3:])
    channels = tuple(int(s) for s in shape[:-3])
    chunk = (*channels, *(max(1, min(int(c), s)) for c, s in zip(chunks, spatial, strict=True)))
    shard = None if shards is None else (*channels, *(int(s) for s in shards))
    location = f"{container}/{dataset.strip('/')}"
    make_folder(container.parent)
    with explain_os_errors(container):
        if (container / dataset.strip("/")).exists():
            if not overwrite:
                raise UserError(f"{location} exists already. Choose another name, or delete it first.")
            shutil.rmtree(container / dataset.strip("/"))
        zarr.open_group(str(container), mode="a", zarr_format=zarr_format)
        array = zarr.create_array(
            str(container),
            name=dataset.strip("/"),
            shape=(*channels, *spatial),
            dtype=np.dtype(dtype),
            chunks=chunk,
            shards=shard,
            compressors=zarr.codecs.ZstdCodec(level=level) if zarr_format == 3 else numcodecs.Zstd(level=level),
            chunk_key_encoding={"name": "default" if zarr_format == 3 else "v2", "separator": "/"},
            fill_value=0,
            zarr_format=zarr_format,
            dimension_names=[*("c" for _ in channels), "z", "y", "x"] if named_axes else None,
            attributes={
                "resolution": [float(v) for v in voxel_size],
                "offset": [float(v) for v in offset],
                "units": "nm",
                "axis_names": [*(["c"] if channels else []), "z", "y", "x"],
                **(attributes or {}),
            },
        )
    z, y, x = (float(v) for v in voxel_size)
    oz, oy, ox = (float(v) for v in offset)
    return Volume(array, location, (z, y, x), (oz, oy, ox))


def has_dataset(path: str | Path, dataset: str) -> bool:
    """Whether a container holds something of that name; it may still be damaged. An HDF5 file that is holds nothing.

    Args:
        path: The container: a folder, a file or a URL.
        dataset: The array's name in it.

    Raises:
        UserError: The URL cannot be reached.
    """
    name, place = _normal(dataset), Place(str(path))
    if is_url(path):
        return _is_zarr(place, name) or is_n5(place, name) or find_scale(place, name) is not None
    if is_hdf5(path):
        try:
            return name in hdf5_datasets(Path(path))
        except UserError:
            return False
    return (Path(path) / name).exists() or find_scale(place, name) is not None


def datasets(path: str | Path) -> list[str]:
    """Names of all arrays in a folder or an HDF5 file, sorted."""
    container = Path(path)
    if is_hdf5(container):
        return hdf5_datasets(container)
    found: list[str] = []
    for folder, inner, files in os.walk(container):
        name = Path(folder).relative_to(container).as_posix()
        place = Place(folder)
        is_array = ".zarray" in files or ("attributes.json" in files and is_n5(place, ""))
        if "zarr.json" in files:
            is_array = (place.read_json("zarr.json") or {}).get("node_type") == "array"
        scales = scale_names(place) if "info" in files else []
        found += [name] if is_array else [key if name == "." else f"{name}/{key}" for key in scales]
        if is_array or scales:
            inner.clear()  # chunks, perhaps millions of them
    return sorted(found)


def volume_fingerprint(path: str | Path, dataset: str) -> str:
    """Hash of what tells one state of an input array from another: path, metadata, and each file's size and time.

    Args:
        path: The container.
        dataset: The array's name in it.

    Returns:
        SHA-256 as hexadecimal text.

    Raises:
        UserError: The URL cannot be reached.
    """
    name, place = _normal(dataset), Place(str(path))
    if is_url(path):
        if not _is_zarr(place, name):
            scale = None if is_n5(place, name) else find_scale(place, name)
            return remote_fingerprint(place.root, dataset, [n5_metadata(name) if scale is None else scale.info])
        return remote_fingerprint(place.root, dataset)
    folder = Path(path).resolve() / name
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    if is_hdf5(path):
        files = [Path(path)]
    elif not _is_zarr(place, name) and (scale := find_scale(place, name)) is not None:
        folder = Path(path).resolve() / scale.files
        files = [Path(path) / scale.info, *sorted(p for p in folder.rglob("*") if p.is_file())]
    digest = hashlib.sha256(str(folder).encode())
    for file in files:
        status = file.stat()
        digest.update(f"{os.path.relpath(file, folder)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _is_writable(container: Path) -> bool:
    return os.access(container, os.W_OK)


def _placement_of_file(array: DirectArray, location: str) -> tuple[Nanometres, Nanometres]:
    axes = array.order[-3:]
    size = [array.file.voxel_size[axis] for axis in axes]
    if any(v is None or not np.isfinite(v) or v <= 0 for v in size):
        order = ", ".join(name for name in array.file.axes if name in "zyx")
        raise UserError(
            f"{location} does not say its voxel size. Add the attribute `resolution` (nm per voxel, {order}) to it, or "
            "bring the volume in with `neuroloom import --voxel-size Z,Y,X`."
        )
    z, y, x = (float(v or 0.0) for v in size)
    oz, oy, ox = (float(array.file.offset[axis] or 0.0) for axis in axes)
    return (z, y, x), (oz, oy, ox)


def _placement(array: zarr.Array, location: str) -> tuple[Nanometres, Nanometres]:
    attributes = dict(array.attrs)
    values: list[Nanometres] = []
    for names, default in ((("resolution", "voxel_size"), None), (("offset",), (0.0, 0.0, 0.0))):
        raw = next((attributes[name] for name in names if name in attributes), default)
        if raw is None:
            raise UserError(
                f"{location} has no attribute `resolution` (nm per voxel, z y x). "
                "Add it, or bring the volume in with `neuroloom import --voxel-size Z,Y,X`."
            )
        try:
            z, y, x = (float(v) for v in raw)
        except (TypeError, ValueError) as error:
            raise UserError(f"{location}: attribute `{names[0]}` is {raw!r}; expected three numbers in nm.") from error
        values.append((z, y, x))
    if not all(np.isfinite(v) and v > 0 for v in values[0]):
        raise UserError(f"{location}: voxel size {values[0]} nm; expected three numbers above 0.")
    return values[0], values[1]
