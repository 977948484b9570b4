"""A volume of another format as the browser wants it: as files of a zarr v2 array, made when they are asked for.

.zarray     shape, element type, chunks; no compression
0.3.1       the voxels of that chunk, whole also at the end of the volume (filled up with 0)
"""

from __future__ import annotations

import json
import math

import numpy as np

from neuroloom.errors import UserError
from neuroloom.volume import Volume

_CHUNK = 64  # voxels
_SMALLEST, _LARGEST = 1 << 15, 1 << 22  # voxels


def zarr_file(volume: Volume, name: str) -> bytes | None:
    """One file of the volume as a zarr v2 array.

    Args:
        volume: The volume.
        name: ".zarray", or a chunk such as "0.3.1".

    Returns:
        Its content; None where there is none.

    Raises:
        OSError: The volume cannot be read there.
    """
    chunks = _chunks(volume)
    if name == ".zarray":
        metadata = {
            "zarr_format": 2,
            "shape": list(volume.array.shape),
            "chunks": list(chunks),
            "dtype": volume.dtype.newbyteorder("<").str,
            "compressor": None,
            "filters": None,
            "fill_value": 0,
            "order": "C",
        }
        return json.dumps(metadata).encode()
    index = name.split(".")
    if len(index) != len(chunks) or not all(number.isdecimal() for number in index):
        return None
    begin = [int(number) * chunk for number, chunk in zip(index, chunks, strict=True)][-3:]
    shape = [min(chunk, size - b) for chunk, size, b in zip(chunks[-3:], volume.shape, begin, strict=True)]
    if min(shape) < 1:
        return None
    try:
        voxels = volume.read(begin, shape)
    except UserError as error:
        raise OSError(str(error)) from error
    whole = np.zeros(chunks, volume.dtype.newbyteorder("<"))
    z, y, x = shape
    whole[..., :z, :y, :x] = voxels
    return whole.tobytes()


def _chunks(volume: Volume) -> tuple[int, ...]:
    """What one file holds: what is decoded together, where that is neither tiny nor large; all channels."""
    own = tuple(volume.array.chunks[-3:])
    fits = _SMALLEST <= math.prod(own) <= _LARGEST
    spatial = own if fits else tuple(min(_CHUNK, size) for size in volume.shape)
    return (*volume.array.shape[:-3], *spatial)
