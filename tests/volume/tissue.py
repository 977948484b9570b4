"""A toy tissue for tests: Voronoi cells with dark membranes and noise, and volumes made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from neuroloom.volume import create_volume

NAMES = {"raw": "volumes/raw", "labels": "volumes/labels/neuron_ids", "mask": "volumes/labels/mask"}


def tissue(
    shape: tuple[int, int, int] = (48, 64, 64), cells: int = 40, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """raw uint8 and labels uint64 that fit each other."""
    random = np.random.default_rng(seed)
    centres = random.uniform(0, 1, (cells, 3)) * shape
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1).reshape(-1, 3)
    labels = (cKDTree(centres).query(grid)[1] + 1).reshape(shape).astype(np.uint64)
    low, high = ndimage.minimum_filter(labels, 3), ndimage.maximum_filter(labels, 3)
    grey = np.where(low != high, 60.0, 170.0)
    raw = ndimage.gaussian_filter(grey, 0.7) + random.normal(0, 12, shape)
    return np.clip(raw, 1, 254).astype(np.uint8), labels


def write(
    path: Path,
    raw: NDArray[Any] | None,
    labels: NDArray[Any] | None = None,
    mask: NDArray[Any] | None = None,
    voxel_size: tuple[float, float, float] = (8.0, 8.0, 8.0),
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Path:
    """A zarr volume of what is given."""
    for name, data in (("raw", raw), ("labels", labels), ("mask", mask)):
        if data is not None:
            create_volume(path, NAMES[name], data.shape, data.dtype, voxel_size, offset).write((0, 0, 0), data)
    return path
