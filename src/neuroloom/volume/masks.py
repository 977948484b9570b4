"""Where there is something to look at: masks, which may be coarser than what they mask, and blank parts of images."""

from __future__ import annotations

import numpy as np
from funlib.geometry import Roi
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.volume.array import Triple, Volume

CELL = 16
"""Voxels along each axis of the cells that are blank or not: that many equal values are no chance in an image."""


def blank_cells(raw: Volume, begin: Triple, shape: Triple) -> NDArray[np.bool_]:
    """Voxels of a region that lie in cells of one single value, as around tissue and where sections are lost.

    Args:
        raw: The image. Cells are counted from its first voxel, so that they do not depend on the region; those at its
            end are cut.
        begin: First voxel of the region, z y x.
        shape: Its extent in voxels.

    Returns:
        `(z, y, x)`, True where blank.
    """
    low = [b // CELL * CELL for b in begin]
    high = [min(-(-(b + n) // CELL) * CELL, size) for b, n, size in zip(begin, shape, raw.shape, strict=True)]
    values = raw.read(low, [h - b for h, b in zip(high, low, strict=True)])
    smallest, largest = values, values
    for axis in range(3):
        starts = np.arange(0, values.shape[axis], CELL)
        smallest = np.minimum.reduceat(smallest, starts, axis=axis)
        largest = np.maximum.reduceat(largest, starts, axis=axis)
    blank: NDArray[np.bool_] = smallest == largest
    for axis in range(3):
        blank = np.repeat(blank, CELL, axis=axis)
    z, y, x = (slice(b - o, b - o + n) for b, o, n in zip(begin, low, shape, strict=True))
    return blank[z, y, x]


def read_mask(mask: Volume, grid: Volume, roi: Roi) -> NDArray[np.bool_]:
    """Read a mask on the grid of another volume.

    Args:
        mask: Its voxels are as large as the grid's, or larger by whole factors.
        grid: The volume whose voxels are asked for.
        roi: In voxels of the grid.

    Returns:
        `(z, y, x)` of the roi's shape; False outside of the mask.

    Raises:
        UserError: The factors are not whole.
    """
    indices = []
    for axis in range(3):
        factor = mask.voxel_size[axis] / grid.voxel_size[axis]
        if round(factor) < 1 or abs(factor - round(factor)) > 1e-3:
            raise UserError(
                f"{mask.location} has voxels of {mask.voxel_size} nm, which are no whole multiples of the "
                f"{grid.voxel_size} nm of {grid.location}. Resample the mask."
            )
        centres = np.arange(roi.begin[axis], roi.end[axis]) + 0.5
        world = grid.offset[axis] + centres * grid.voxel_size[axis]
        indices.append(np.floor((world - mask.offset[axis]) / mask.voxel_size[axis]).astype(np.int64))
    inside = [(index >= 0) & (index < size) for index, size in zip(indices, mask.shape, strict=True)]
    result = np.zeros(tuple(roi.shape), dtype=np.bool_)
    if not all(axis.any() for axis in inside):
        return result
    wanted = [index[axis] for index, axis in zip(indices, inside, strict=True)]
    begin = [int(index[0]) for index in wanted]
    values = mask.read(begin, [int(index[-1]) + 1 - first for index, first in zip(wanted, begin, strict=True)])
    result[np.ix_(*inside)] = values[np.ix_(*(index - first for index, first in zip(wanted, begin, strict=True)))] != 0
    return result
