"""Snapshots: what the network sees and says, as a picture to look at and arrays to open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.files import write_bytes
from neuroloom.pictures import contact_sheet
from neuroloom.volume import create_volume
from neuroloom.volume.array import Nanometres


def write_snapshot(folder: Path, iteration: int, arrays: Mapping[str, NDArray[Any]], voxel_size: Nanometres) -> Path:
    """Write `<iteration>.zarr` with one dataset per array, and the contact sheet `<iteration>.png`.

    Args:
        folder: Where snapshots lie.
        iteration: Names the files.
        arrays: By name: raw `(z, y, x)` in [0, 1], labels `(z, y, x)` uint64, others `(c, z, y, x)` in [0, 1].
        voxel_size: nm, z y x.

    Returns:
        The picture.

    Raises:
        UserError: The disk is full or the folder cannot be written.
    """
    name = f"{iteration:07d}"
    for key, values in arrays.items():
        stored = values if values.dtype.kind in "ui" else np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
        volume = create_volume(
            folder / f"{name}.zarr",
            key,
            stored.shape,
            stored.dtype,
            voxel_size,
            chunks=stored.shape[-3:],
            overwrite=True,
        )
        volume.write((0, 0, 0), stored)
    picture = folder / f"{name}.png"
    write_bytes(picture, contact_sheet(arrays, voxel_size=voxel_size))
    return picture
