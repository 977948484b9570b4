"""What benchmarks run on: real tissue where there is some, made tissue elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuroloom.volume import open_volume
from neuroloom.volume.array import Triple
from neuroloom.volume.sample import SampleParameters, make_block

VOXEL_SIZE = (8.0, 8.0, 8.0)
"""nm, of the real and of the made volumes."""


@dataclass(frozen=True)
class Options:
    """How a benchmark is run.

    Attributes:
        data: Folder of real volumes; it need not exist.
        quick: Small and rough.
    """

    data: Path
    quick: bool


def tissue(options: Options, name: str, extent: int | Triple) -> tuple[str, NDArray[np.uint8], NDArray[np.uint64]]:
    """The middle of a volume.

    Args:
        options: Say where volumes are.
        name: Of the real volume, such as "fib25-val".
        extent: In voxels, z y x, or of a cube; smaller where the volume is.

    Returns:
        What it is, in words; raw (z, y, x); labels (z, y, x).
    """
    path = options.data / f"{name}.zarr"
    extents = (extent, extent, extent) if isinstance(extent, int) else extent
    if not path.exists():
        raw, labels = make_block(SampleParameters(seed=1), (0, 0, 0), extents)
        return f"{' x '.join(map(str, extents))} voxels of made tissue ({path} is not there)", raw, labels
    volumes = [open_volume(path, dataset) for dataset in ("volumes/raw", "volumes/labels/neuron_ids")]
    begin = tuple(max(0, (size - n) // 2) for size, n in zip(volumes[1].shape, extents, strict=True))
    shape = tuple(min(n, size) for size, n in zip(volumes[1].shape, extents, strict=True))
    raw, labels = (volume.read(begin, shape) for volume in volumes)
    return f"{' x '.join(map(str, shape))} voxels from the middle of {path.name}", raw, labels.astype(np.uint64)
