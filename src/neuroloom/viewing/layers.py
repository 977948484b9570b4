"""What is shown, and where: a volume, how to draw it, and how its voxels lie in space.

    array voxel v  ->  nm = offset + v * voxel size

The viewer is told each layer's own voxel size, and as translation its offset counted in these voxels. Voxel v fills
[v, v + 1), here as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import zarr
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.viewing.as_zarr import zarr_file
from neuroloom.viewing.server import ArrayFiles
from neuroloom.volume.array import Nanometres, Volume
from neuroloom.volume.formats.file_array import DirectArray
from neuroloom.volume.remote import remote_file

Kind = Literal["image", "affinities", "labels"]

LARGEST_LOOKUP = 50_000
"""Fragments of a lookup table that the browser still applies without a pause; it travels as text with every change."""

_CODECS = {"bytes", "transpose", "blosc", "zlib", "gzip", "zstd", "crc32c", "sharding_indexed"}
_TYPES = {"uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32"}
"""What neuroglancer's reader of zarr decodes."""

_REMOTE_FILES = 4
"""Files of an array behind a URL that are kept in memory."""

_PROBE = 64
"""Voxels per axis that are looked at to choose the grey window."""


@dataclass(frozen=True)
class Layer:
    """One volume in the viewer.

    Attributes:
        name: What it is called there.
        kind: "image" `(z, y, x)`; "affinities" `(c, z, y, x)`, the first three channels as red, green and blue;
            "labels" `(z, y, x)` integers, 0 = transparent.
        volume: The voxels and their place.
        visible: Whether it is switched on at the start.
        lookup: Labels only: `(2, n) uint64`, fragments and their segments. Fragments of one segment then share its
            colour, without a segmentation on the disk.
        copies: Whether smaller copies of the volume lie beside it, told of by the container as OME-NGFF; they are
            shown from afar.
    """

    name: str
    kind: Kind
    volume: Volume
    visible: bool = True
    lookup: NDArray[np.uint64] | None = None
    copies: bool = False


def layer_kind(name: str, volume: Volume) -> Kind:
    """How to draw a volume nobody said anything about: channels are affinities, 32-bit integers and wider are labels.

    Args:
        name: What it is called; names that speak of labels win for small integers, which may be either.
        volume: The volume.
    """
    if volume.channels is not None:
        return "affinities"
    words = ("label", "seg", "fragment", "truth", "neuron_ids")
    if volume.dtype.kind in "iu" and (volume.dtype.itemsize >= 4 or any(word in name.lower() for word in words)):
        return "labels"
    return "image"


def check_layers(layers: Sequence[Layer]) -> None:
    """Refuse what the viewer could not draw, before anything is opened.

    Raises:
        UserError: No layers, two of one name, axes or element type that do not fit the kind, a volume that is
            neither in a folder nor behind a URL, or a lookup table that is too large for the browser.
    """
    if not layers:
        raise UserError(
            "There is nothing to show. Name at least one volume, such as --layer raw=volume.zarr:volumes/raw."
        )
    names = [layer.name for layer in layers]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"Two layers are called {name!r}. Give each a name of its own.")
    for layer in layers:
        _check(layer)


def _check(layer: Layer) -> None:
    volume, location, dtype = layer.volume, layer.volume.location, layer.volume.dtype
    if layer.kind not in get_args(Kind):
        raise UserError(f"Layer {layer.name}: kind {layer.kind!r} is unknown; expected {', '.join(get_args(Kind))}.")
    if layer.kind == "affinities" and volume.channels is None:
        raise UserError(f"{location} has no channels; expected (c, z, y, x) to show it as affinities.")
    if layer.kind != "affinities" and volume.channels is not None:
        raise UserError(
            f"{location} has channels; expected (z, y, x) to show it as {layer.kind}. Show it as affinities."
        )
    if layer.kind == "labels" and dtype.kind not in "iu":
        raise UserError(f"{location} is {dtype}; labels are whole numbers. Show it as an image, or write it as uint64.")
    if dtype.name not in _TYPES or (layer.kind != "labels" and dtype == np.uint64):
        raise UserError(
            f"{location} is {dtype}, which the viewer cannot draw as {layer.kind}; expected 8 to 32 bits, or uint64 "
            "for labels. Bring it in again with `neuroloom import`."
        )
    unknown = codecs(volume) - _CODECS
    if unknown:
        raise UserError(
            f"{location} is compressed with {', '.join(sorted(unknown))}, which a browser cannot decode; it reads "
            "zstd, gzip and blosc. Bring it in again with `neuroloom import`."
        )
    if layer.lookup is not None:
        if layer.kind != "labels":
            raise UserError(f"Layer {layer.name}: a lookup table belongs to labels, not to {layer.kind}.")
        if layer.lookup.shape[1] > LARGEST_LOOKUP:
            raise UserError(
                f"The lookup table of {location} has {layer.lookup.shape[1]} fragments; a browser applies up to "
                f"{LARGEST_LOOKUP}. Show the segmentation instead (`neuroloom segment` writes it)."
            )
    array_files(volume)


def array_files(volume: Volume) -> ArrayFiles:
    """Where the array's metadata and chunks are read: its folder, or a function of a file's name.

    Raises:
        UserError: The array is zarr that lies neither in a folder nor behind a URL.
    """
    array = volume.array
    if isinstance(array, DirectArray):
        return partial(zarr_file, volume)
    store = array.store_path.store
    if isinstance(store, zarr.storage.LocalStore):
        return (Path(store.root) / array.path).resolve()
    if isinstance(store, zarr.storage.ObjectStore):
        # the browser asks for the chunks of a shard one after the other, in ranges
        return lru_cache(_REMOTE_FILES)(partial(remote_file, array))
    raise UserError(f"{volume.location} lies neither in a folder nor behind a URL; the viewer cannot read it.")


def layer_files(layer: Layer) -> ArrayFiles:
    """Where a layer's files are read: the folder that holds all copies, or as `array_files`."""
    array = layer.volume.array
    if not layer.copies or isinstance(array, DirectArray):
        return array_files(layer.volume)
    return Path(array.store_path.store.root).resolve()


def has_copies(volume: Volume) -> bool:
    """Whether a volume's container tells of smaller copies of it, as segmentations have them."""
    array = volume.array
    if isinstance(array, DirectArray) or not isinstance(array.store_path.store, zarr.storage.LocalStore):
        return False
    try:
        ome = zarr.open_group(array.store_path.store, mode="r").attrs["ome"]
        return bool(ome["multiscales"][0]["datasets"][0]["path"] == array.path)
    except (FileNotFoundError, KeyError, IndexError, TypeError):
        return False


def zarr_format(volume: Volume) -> int:
    """2 or 3; other formats are shown as 2."""
    return 2 if isinstance(volume.array, DirectArray) else int(volume.array.metadata.zarr_format)


def codecs(volume: Volume) -> set[str]:
    """Names of all codecs that a chunk of the array passes through on its way to the browser."""
    if isinstance(volume.array, DirectArray):
        return set()
    metadata = volume.array.metadata
    if zarr_format(volume) == 2:
        return {codec.codec_id for codec in (*(metadata.filters or ()), metadata.compressor) if codec is not None}
    found: set[str] = set()
    waiting = [codec.to_dict() for codec in metadata.codecs]
    while waiting:
        codec = waiting.pop()
        found.add(codec["name"])
        # a shard holds chunks with codecs of their own
        configuration = codec.get("configuration") or {}
        waiting += [*configuration.get("codecs", ()), *configuration.get("index_codecs", ())]
    return found


def axis_names(volume: Volume) -> list[str]:
    """What the viewer calls the array's axes: their own names if they have some, else its substitutes."""
    if isinstance(volume.array, DirectArray) or zarr_format(volume) == 2:
        names, prefix = volume.array.attrs.get("_ARRAY_DIMENSIONS"), "d"
    else:
        names, prefix = volume.array.metadata.dimension_names, "dim_"
    return [name or f"{prefix}{axis}" for axis, name in enumerate(names or [None] * volume.array.ndim)]


def translation(volume: Volume) -> tuple[float, float, float]:
    """Where the corner of voxel (0, 0, 0) lies, z y x, in the volume's own voxels."""
    z, y, x = (o / v for o, v in zip(volume.offset, volume.voxel_size, strict=True))
    return z, y, x


def bounds(volume: Volume) -> tuple[Nanometres, Nanometres]:
    """First and last corner in nm, z y x."""
    z, y, x = (o + s * v for o, s, v in zip(volume.offset, volume.shape, volume.voxel_size, strict=True))
    return volume.offset, (z, y, x)


def grey_window(volume: Volume) -> tuple[float, float]:
    """The values drawn black and white: 0.5 % and 99.5 % of the voxels in the middle of the volume.

    Where the middle is blank, the whole range of the element type (0 to 1 for floats).
    """
    shape = [min(_PROBE, s) for s in volume.shape]
    voxels = volume.read([(s - p) // 2 for s, p in zip(volume.shape, shape, strict=True)], shape)
    low, high = (float(v) for v in np.percentile(voxels, (0.5, 99.5)))
    if np.isfinite([low, high]).all() and low < high:
        return low, high
    if volume.dtype.kind == "f":
        return 0.0, 1.0
    return float(np.iinfo(volume.dtype).min), float(np.iinfo(volume.dtype).max)


def groups(lookup: NDArray[np.uint64]) -> list[list[int]]:
    """Fragments of one segment together; segments of a single fragment are left out.

    Args:
        lookup: `(2, n)`: fragments and their segments.

    Returns:
        Groups of fragments, by their segment's id.
    """
    order = np.lexsort((lookup[0], lookup[1]))
    fragments, segments = lookup[0][order], lookup[1][order]
    pieces = np.split(fragments, np.flatnonzero(np.diff(segments)) + 1)
    return [[int(f) for f in piece] for piece in pieces if len(piece) > 1]
