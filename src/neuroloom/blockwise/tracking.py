"""Care for daisy's done-bytes: room for them, and mending them after a master that was killed while writing.

daisy keeps a zarr array with one byte per block, and writes its files in place. Killed in the middle of that, it leaves
a file that cannot be read, and no later run would start. A block that runs twice is harmless, so what cannot be read is
deleted and counts as not done.

It writes through mapped memory, where a full disk is no error but the end of the process (SIGBUS): its files are given
their room on the disk before the first block.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

ROOM = 2**20
"""Bytes that must be free, for logs and what workers tell."""

BYTES_PER_BLOCK = 8
"""daisy's files take five, for whole rows of blocks."""


def check_room(folder: Path, blocks: int = 0) -> None:
    """Refuse a disk that is all but full.

    Args:
        folder: Where a stage's results lie.
        blocks: How many there are, if room for their bytes is needed, too.

    Raises:
        OSError: There is too little room.
    """
    probe = folder / "room.partial"
    try:
        with probe.open("wb") as file:
            file.write(bytes(ROOM + BYTES_PER_BLOCK * blocks))
    finally:
        probe.unlink(missing_ok=True)


def reserve(folder: Path) -> None:
    """Give what daisy has just made its room on the disk; otherwise it gets it when a byte is first written.

    Args:
        folder: What daisy was given as `tracking_path`.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    for chunk in folder.glob("*/c/**/*"):
        if chunk.is_file():
            with chunk.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, chunk.stat().st_size)


def mend_tracking(folder: Path) -> None:
    """Delete done-bytes that cannot be read.

    Args:
        folder: What daisy was given as `tracking_path`; may be missing.
    """
    # both descriptions are written before the first block: without them, nothing is done
    array = folder / "done"
    try:
        json.loads((folder / "zarr.json").read_text())
        description = json.loads((array / "zarr.json").read_text())
    except (OSError, ValueError):
        shutil.rmtree(folder, ignore_errors=True)
        return
    size = math.prod(description["chunk_grid"]["configuration"]["chunk_shape"])
    size *= np.dtype(description["data_type"]).itemsize
    for chunk in (array / "c").rglob("*"):
        if chunk.is_file() and chunk.stat().st_size != size:
            chunk.unlink()


def done_blocks(folder: Path, grid: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Which blocks are marked as done.

    Args:
        folder: What daisy was given as `tracking_path`; may be missing.
        grid: Number of blocks along z, y, x.

    Returns:
        `(z, y, x)`.
    """
    if not (folder / "done" / "zarr.json").exists():
        return np.zeros(grid, dtype=bool)
    z, y, x = grid  # daisy's array has room for the context, too
    return np.asarray(zarr.open_array(folder / "done", mode="r")[:z, :y, :x]) != 0


def take_back(folder: Path, places: Iterable[tuple[int, int, int]]) -> None:
    """Mark blocks as not done.

    Args:
        folder: What daisy was given as `tracking_path`; may be missing.
        places: Their places in the grid, z y x.
    """
    if not (folder / "done" / "zarr.json").exists():
        return
    done = zarr.open_array(folder / "done", mode="r+")
    for place in places:
        done[place] = 0
