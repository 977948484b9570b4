"""N5 by tensorstore. Its axes lie x, y, z; so do the numbers of its attributes.

Source of the attributes: the conventions of Janelia (`resolution`, `pixelResolution`, `downsamplingFactors`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.volume.formats.file_array import (
    FileArray,
    Index,
    Lengths,
    default_axes,
    in_nanometres,
    numbers,
    readable,
    units_of,
)
from neuroloom.volume.formats.place import Place

_ATTRIBUTES = "attributes.json"
_METADATA = ("dimensions", "blockSize", "dataType", "compression")


def is_n5(place: Place, name: str) -> bool:
    """Whether an N5 array of that name lies in a container.

    Raises:
        UserError: The URL cannot be reached.
    """
    return "dimensions" in _attributes(place, name)


def read_n5(place: Place, name: str, location: str) -> FileArray:
    """One array of a container.

    Args:
        place: The container.
        name: The array's name in it; "" for the container itself.
        location: What to call it in messages.

    Raises:
        UserError: Its metadata are damaged, or the URL cannot be reached.
    """
    attributes = _attributes(place, name)
    # given rather than read again: tensorstore refuses a `resolution` that is not one number for each axis
    metadata = {key: attributes[key] for key in _METADATA if key in attributes}
    with readable(location):
        store = place.open("n5", name, metadata=metadata, assume_metadata=True)
        axes = default_axes(3)[::-1] if store.rank == 3 else ("xyzct" + "?" * store.rank)[: store.rank]
        above = _attributes(place, name.rpartition("/")[0]) if name else {}
        voxel_size, offset = _placement(attributes, above, axes, location)
    chunks = tuple(size or 1 for size in store.chunk_layout.read_chunk.shape or (1,) * store.rank)
    return FileArray(
        location,
        tuple(store.shape),
        np.dtype(store.dtype.numpy_dtype),
        axes,
        chunks,
        partial(read_store, store),
        voxel_size,
        offset,
        stored=partial(_stored, place, name),
    )


def read_store(store: Any, at: tuple[slice, ...]) -> NDArray[Any]:
    """A region of a tensorstore."""
    return np.asarray(store[at].read().result())


def n5_metadata(name: str) -> str:
    """The file of an array's attributes in its container."""
    return _within(name, _ATTRIBUTES)


def _stored(place: Place, name: str, chunks: Sequence[Index]) -> list[bool]:
    return place.exist([_within(name, "/".join(str(i) for i in index)) for index in chunks])


def _within(name: str, file: str) -> str:
    return f"{name}/{file}" if name else file


def _attributes(place: Place, name: str) -> dict[str, Any]:
    return place.read_json(n5_metadata(name)) or {}


def _placement(
    attributes: Mapping[str, Any], above: Mapping[str, Any], axes: str, location: str
) -> tuple[Lengths, Lengths]:
    nothing: Lengths = (None,) * len(axes)
    # an array's `resolution` is its own; what stands in the group above, or in `pixelResolution`, is of full scale
    factors = numbers(attributes.get("downsamplingFactors")) or [1.0] * 3
    for found, scaled in ((attributes, False), (above, True)):
        for key in ("resolution", "pixelResolution"):
            value: Any = found.get(key)
            units = units_of(found)
            if isinstance(value, dict):
                value, units = value.get("dimensions"), value.get("unit", "")
            elif key == "pixelResolution" and "units" not in found and "unit" not in found:
                continue  # a length without a unit is no length
            given = numbers(value)
            if given is None:
                continue
            if scaled or key == "pixelResolution":
                given = [n * f for n, f in zip(given, factors, strict=False)]
            offset = in_nanometres(attributes.get("offset"), units_of(attributes), axes, location)
            return in_nanometres(given, units, axes, location), offset
    return nothing, nothing
