"""Where fragments go on across the borders of blocks, which cut them.

    block k - 1 | block k        Block k reads both sides, with its context, and crops its watershed to its own. Where
    a a a a a a | b b b b b      that had one fragment on both sides of a face of the border before it, it says so
    a a a a a a | b b c c c      before it forgets: here in rows 1 and 2. Agglomeration takes a and b for one then.
    d d d d d d | c c c c c

Faces of all borders across an axis are one array beside the fragments, `continues_z`, `_y` or `_x`, 1 = goes on: its
plane k along that axis lies between the rows of blocks k and k + 1. Where one block is as long as the volume, there is
none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from funlib.geometry import Roi
from numpy.typing import NDArray

from neuroloom.blockwise.stage import Block, Source, Stage
from neuroloom.errors import UserError
from neuroloom.volume import Volume, create_volume, open_volume

_NAMES = ("continues_z", "continues_y", "continues_x")


@dataclass(frozen=True)
class Border:
    """The part of a border that lies in an array.

    Attributes:
        axis: That it lies across.
        place: The array's first voxel behind it, along that axis.
        goes_on: Which of its faces are within a fragment, the array's extent long, and 1 along the axis.
    """

    axis: int
    place: int
    goes_on: NDArray[np.bool_]


def make_borders(output: Source, stage: Stage, like: Volume) -> None:
    """Make the arrays of borders beside a stage's fragments, unless they are there already.

    Args:
        output: The fragments.
        stage: Gives shape and blocks.
        like: Gives voxel size and offset.

    Raises:
        UserError: The disk is full or the folder cannot be written.
    """
    for axis, name in enumerate(_NAMES):
        if stage.grid[axis] == 1 or (Path(output.path) / name / "zarr.json").exists():
            continue
        shape, chunks, spacing = list(stage.shape), list(stage.block_shape), list(like.voxel_size)
        shape[axis], chunks[axis] = stage.grid[axis] - 1, 1
        spacing[axis] *= stage.block_shape[axis]
        offset = [o + (s if a == axis else 0) for a, (o, s) in enumerate(zip(like.offset, spacing, strict=True))]
        attributes = {"fingerprint": output.fingerprint}
        create_volume(
            output.path, name, shape, np.uint8, spacing, offset, chunks=chunks, attributes=attributes, overwrite=True
        )


def check_borders(output: Source, shape: Sequence[int], block_shape: Sequence[int]) -> None:
    """Refuse fragments without their borders.

    Args:
        output: The fragments.
        shape: Extent of the volume in voxels.
        block_shape: Of the fragments' blocks.

    Raises:
        UserError: The array of an axis is missing.
    """
    for name, extent, block in zip(_NAMES, shape, block_shape, strict=True):
        if extent > block and not (Path(output.path) / name / "zarr.json").exists():
            raise UserError(
                f"{output.path} has no dataset '{name}', which says where fragments go on across borders of blocks. "
                f"Delete {Path(output.path).parent} and run `neuroloom fragments` again."
            )


def write_borders(output: Source, block: Block, labels: NDArray[np.uint32], roi: Roi) -> None:
    """Write what a block knows of the borders before it.

    Args:
        output: The fragments.
        block: It.
        labels: `(z, y, x)`, the watershed, before it is cropped.
        roi: Of `labels`.
    """
    for axis, name in enumerate(_NAMES):
        if block.write_roi.begin[axis] == roi.begin[axis]:  # the volume's border, or no context to see across
            continue
        begin, end = (np.array(block.write_roi.begin) - roi.begin), (np.array(block.write_roi.end) - roi.begin)
        end[axis] = begin[axis] + 1
        here = labels[tuple(slice(b, e) for b, e in zip(begin, end, strict=True))]
        begin[axis], end[axis] = begin[axis] - 1, end[axis] - 1
        before = labels[tuple(slice(b, e) for b, e in zip(begin, end, strict=True))]
        place = list(block.write_roi.begin)
        place[axis] = block.index[axis] - 1
        open_volume(output.path, name).write(place, ((here == before) & (here != 0)).astype(np.uint8))


def read_borders(output: Source, roi: Roi, block_shape: tuple[int, ...]) -> Iterator[Border]:
    """All borders within a part of the volume.

    Args:
        output: The fragments.
        roi: The part, inside the volume.
        block_shape: Of the fragments' blocks.
    """
    for axis, name in enumerate(_NAMES):
        size = block_shape[axis]
        first, last = roi.begin[axis] // size, (roi.end[axis] - 1) // size
        for plane in range(first, last):
            begin, shape = list(roi.begin), list(roi.shape)
            begin[axis], shape[axis] = plane, 1
            faces = open_volume(output.path, name).read(begin, shape)
            yield Border(axis, (plane + 1) * size - roi.begin[axis], faces != 0)
