"""A segmentation that is not on the disk: fragments, which a table turns into segments as they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.segmentation.lookup import relabel
from neuroloom.volume import Volume
from neuroloom.volume.formats.file_array import FileArray, as_direct


def mapped(fragments: Volume, table: tuple[NDArray[np.uint64], NDArray[np.uint64]]) -> Volume:
    """See fragments as segments.

    Args:
        fragments: `(z, y, x) uint64`.
        table: From `map_lookup`.

    Returns:
        `(z, y, x) uint64`, to be read only.
    """

    def read(region: tuple[slice, ...]) -> NDArray[Any]:
        return relabel(np.asarray(fragments.array[region]), table)

    array = FileArray(
        location=fragments.location,
        shape=fragments.shape,
        dtype=np.dtype(np.uint64),
        axes="zyx",
        chunks=tuple(int(extent) for extent in fragments.array.chunks),
        read=read,
        voxel_size=fragments.voxel_size,
        offset=fragments.offset,
    )
    return Volume(as_direct(array), fragments.location, fragments.voxel_size, fragments.offset)
