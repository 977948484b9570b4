"""An array with a place in space.

A volume is a zarr array (v2 or v3) whose last three axes are z, y, x, with optional channels in front, and two
attributes in nm, as the field writes them: `resolution` (the voxel size) and `offset` (of the first voxel's corner).
Blocks and regions are in voxels of the array's own grid; nm appear only in these two numbers.

             channels   z  y  x
    shape  = (   c,     Z, Y, X)      world(v) = offset + v * voxel size     [nm]
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray

from neuroloom.errors import UserError
from neuroloom.files import explain_os_errors, make_folder
from neuroloom.volume.chunks import checked
from neuroloom.volume.remote import is_url, open_remote, remote_exists, remote_fingerprint

Triple = tuple[int, int, int]
Nanometres = tuple[float, float, float]
DATASETS = {"raw": "volumes/raw", "labels": "volumes/labels/neuron_ids", "mask": "volumes/labels/mask"}
"""Where the field keeps the image, the truth and the mask in a zarr container."""


@dataclass(frozen=True)
class Volume:
    """A zarr array with voxel size and offset; made by `open_volume` and `create_volume`.

    Attributes:
        array: The zarr array, `(z, y, x)` or `(c, z, y, x)`.
        location: Where it lies, for messages: "path/dataset".
        voxel_size: nm per voxel, z y x.
        offset: nm of the corner of voxel (0, 0, 0), z y x.
    """

    array: zarr.Array
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
        extent = [size - b for size, b in zip(self.shape, begin, strict=True)] if shape is None else list(shape)
        for b, e, size in zip(begin, extent, self.shape, strict=True):
            if b < 0 or e < 0 or b + e > size:
                raise UserError(
                    f"Region {tuple(begin)} + {tuple(extent)} leaves {self.location} of shape {self.shape}."
                )
        selection = (..., *(slice(b, b + e) for b, e in zip(begin, extent, strict=True)))
        try:
            return np.asarray(self.array[selection])
        except Exception as error:  # codecs raise many types; all of them mean a chunk that cannot be decoded
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

    def write(self, begin: Sequence[int], data: NDArray[Any]) -> None:
        """Write a region; whole chunks, when several processes write.

        Args:
            begin: First voxel, z y x.
            data: `(z, y, x)` or `(c, z, y, x)` as the volume.

        Raises:
            UserError: The disk is full or the folder cannot be written.
        """
        selection = (..., *(slice(b, b + e) for b, e in zip(begin, data.shape[-3:], strict=True)))
        with explain_os_errors(self.location):
            self.array[selection] = data


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
    """Open an existing volume for reading and, where the file system allows, writing.

    Args:
        path: A zarr container (v2 or v3), a folder or a URL.
        dataset: The array's name in it, such as "volumes/raw".

    Raises:
        UserError: Missing container or dataset, wrong number of axes, missing or senseless voxel size.
    """
    if is_url(path):
        node = open_remote(str(path), dataset)
        return _volume(node, f"{path}/{dataset.strip('/')}")
    container = Path(path)
    if not container.exists():
        raise UserError(
            f"{container} does not exist. Check the path; `neuroloom import` makes volumes from other files."
        )
    try:
        node = zarr.open(str(container), path=dataset.strip("/"), mode="r+" if _is_writable(container) else "r")
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise UserError(
            f"{container} holds no dataset {dataset!r}; it holds {', '.join(datasets(container)) or 'no arrays'}. "
            "Name one of them."
        ) from error
    if not isinstance(node, zarr.Array):
        inside = ", ".join(name for name in datasets(container) if name.startswith(dataset.strip("/")))
        raise UserError(f"{container}/{dataset} is a group, not an array; it holds {inside or 'no arrays'}. Name one.")
    return _volume(checked(node, container, dataset.strip("/")), f"{container}/{dataset.strip('/')}")


def _volume(array: zarr.Array, location: str) -> Volume:
    if array.ndim not in (3, 4):
        raise UserError(f"{location} has {array.ndim} axes; expected z, y, x with an optional channel axis in front.")
    return Volume(array, location, *_placement(array, location))


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
) -> Volume:
    """Make a new, empty volume (zarr v3, zstd) filled with zeros.

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

    Raises:
        UserError: The array exists, or the folder cannot be written.
    """
    container = Path(path)
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
        zarr.open_group(str(container), mode="a", zarr_format=3)
        array = zarr.create_array(
            str(container),
            name=dataset.strip("/"),
            shape=(*channels, *spatial),
            dtype=np.dtype(dtype),
            chunks=chunk,
            shards=shard,
            compressors=zarr.codecs.ZstdCodec(level=3),
            fill_value=0,
            zarr_format=3,
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
    """Whether a zarr container holds something of that name; it may still be damaged.

    Args:
        path: The zarr container, a folder or a URL.
        dataset: The array's name in it.

    Raises:
        UserError: The URL cannot be reached.
    """
    return remote_exists(str(path), dataset) if is_url(path) else (Path(path) / dataset.strip("/")).exists()


def datasets(path: str | Path) -> list[str]:
    """Names of all arrays in a zarr container, sorted."""
    container = Path(path)
    found: list[str] = []
    for folder, inner, files in os.walk(container):
        is_array = ".zarray" in files
        if "zarr.json" in files:
            try:
                is_array = json.loads((Path(folder) / "zarr.json").read_text()).get("node_type") == "array"
            except (OSError, ValueError, AttributeError):
                continue
        if is_array:
            found.append(Path(folder).relative_to(container).as_posix())
            inner.clear()  # chunks, perhaps millions of them
    return sorted(found)


def volume_fingerprint(path: str | Path, dataset: str) -> str:
    """Hash of what tells one state of an input array from another: path, metadata, and each chunk's size and time.

    Args:
        path: The zarr container.
        dataset: The array's name in it.

    Returns:
        SHA-256 as hexadecimal text.
    """
    if is_url(path):
        return remote_fingerprint(str(path), dataset)
    folder = Path(path).resolve() / dataset.strip("/")
    digest = hashlib.sha256(str(folder).encode())
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        status = file.stat()
        digest.update(f"{file.relative_to(folder)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _is_writable(container: Path) -> bool:
    return os.access(container, os.W_OK)


def _placement(array: zarr.Array, location: str) -> tuple[Nanometres, Nanometres]:
    attributes = dict(array.attrs)
    values: list[Nanometres] = []
    for names, default in ((("resolution", "voxel_size"), None), (("offset",), (0.0, 0.0, 0.0))):
        raw = next((attributes[name] for name in names if name in attributes), default)
        if raw is None:
            raise UserError(
                f"{location} has no attribute `resolution` (nm per voxel, z y x). "
                "Bring it in with `neuroloom import --voxel-size Z,Y,X`."
            )
        try:
            z, y, x = (float(v) for v in raw)
        except (TypeError, ValueError) as error:
            raise UserError(f"{location}: attribute `{names[0]}` is {raw!r}; expected three numbers in nm.") from error
        values.append((z, y, x))
    if not all(np.isfinite(v) and v > 0 for v in values[0]):
        raise UserError(f"{location}: voxel size {values[0]} nm; expected three numbers above 0.")
    return values[0], values[1]
