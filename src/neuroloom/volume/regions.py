"""Which parts of a volume to look at: all of a small one, evenly spread regions of one too large to read.

small: the whole, in slabs          large:  [] . [] . []     3 x 3 x 3 regions of 192 voxels
       of whole chunks                      .   .    .
                                            [] . [] . []
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from neuroloom.volume.array import Triple, Volume
from neuroloom.volume.formats.file_array import DirectArray

WHOLE = 1 << 28  # voxels; larger volumes are sampled
SAMPLE = 192  # voxels
PER_AXIS = 3
_SLAB = 1 << 23  # voxels read at once

Box = tuple[Triple, Triple]
"""First voxel and extent, z y x."""


def regions_of(box: Box) -> list[Box]:
    """The box itself, or regions evenly spread over it when it is too large to be read whole.

    Args:
        box: First voxel and extent in voxels.

    Returns:
        Boxes that do not overlap, in z, y, x order.
    """
    begin, shape = box
    if math.prod(shape) <= WHOLE:
        return [box]
    spans = []
    for b, s in zip(begin, shape, strict=True):
        extent = min(SAMPLE, s)
        count = min(PER_AXIS, s // extent)
        room = s - count * extent
        # as much room before the first as between them and after the last
        spans.append([(b + (i + 1) * room // (count + 1) + i * extent, extent) for i in range(count)])
    return [((z, y, x), (sz, sy, sx)) for z, sz in spans[0] for y, sy in spans[1] for x, sx in spans[2]]


def slabs_of(box: Box, chunk: int) -> Iterator[Box]:
    """Cut a box into slabs of whole sections, whole chunks thick where memory allows."""
    (z, y, x), (depth, height, width) = box
    thickness = max(1, _SLAB // max(1, height * width))
    if thickness >= chunk:
        thickness -= thickness % chunk
    first = z
    while first < z + depth:
        stop = min(z + depth, first + thickness - first % thickness)
        yield (first, y, x), (stop - first, height, width)
        first = stop


def stored_box(volume: Volume) -> Box:
    """The smallest box of whole chunks that holds everything ever written to a volume.

    Chunks that hold only zeros have no file, so a small labelled block in a large volume is found without reading it.

    Args:
        volume: A zarr volume in a local folder; the whole is returned for any other.
    """
    array = volume.array
    if isinstance(array, DirectArray) or math.prod(volume.shape) <= WHOLE:
        return (0, 0, 0), volume.shape
    root = getattr(array.store_path.store, "root", None)
    folder = Path(root) / array.path if root is not None else None
    if folder is None or not folder.is_dir():
        return (0, 0, 0), volume.shape
    grid = (array.shards or array.chunks)[-3:]
    low, high = list(volume.shape), [0, 0, 0]
    for file in folder.rglob("*"):
        numbers = re.findall(r"\d+", file.relative_to(folder).as_posix())
        if len(numbers) != array.ndim or not file.is_file():
            continue
        for axis, (number, size) in enumerate(zip(numbers[-3:], grid, strict=True)):
            low[axis] = min(low[axis], int(number) * size)
            high[axis] = max(high[axis], min((int(number) + 1) * size, volume.shape[axis]))
    if high[0] == 0:
        return (0, 0, 0), volume.shape
    return (low[0], low[1], low[2]), (high[0] - low[0], high[1] - low[1], high[2] - low[2])
