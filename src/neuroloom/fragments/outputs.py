"""The label array a stage fills: chunks that no two blocks share, placed in space as its input."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuroloom.blockwise.stage import Source, Stage
from neuroloom.volume import Volume, create_volume

_LARGEST_CHUNK = 64


def make_label_volume(output: Source, stage: Stage, like: Volume) -> None:
    """Make a stage's label array, unless it is there already.

    Args:
        output: Where it shall lie, and the stage's fingerprint.
        stage: Gives shape and blocks.
        like: Gives voxel size and offset.

    Raises:
        UserError: The disk is full or the folder cannot be written.
    """
    # the metadata is written last, so an array without it was interrupted while being made
    if (Path(output.path) / output.dataset / "zarr.json").exists():
        return
    create_volume(
        output.path,
        output.dataset,
        stage.shape,
        np.uint64,
        like.voxel_size,
        like.offset,
        chunks=[chunk_extent(extent) for extent in stage.block_shape],
        attributes={"fingerprint": output.fingerprint, "block_shape": list(stage.block_shape)},
        overwrite=True,
    )


def chunk_extent(block_extent: int) -> int:
    """The largest divisor of a block's extent up to 64: whole chunks belong to one block."""
    return max(extent for extent in range(1, min(block_extent, _LARGEST_CHUNK) + 1) if block_extent % extent == 0)
