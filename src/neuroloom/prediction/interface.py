"""What predicts affinities, whatever networks are behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neuroloom.volume.array import Triple

Report = Callable[[float], None]
"""Called with the share that is done, 0 … 1."""


class PredictsAffinities(Protocol):
    """Affinities of any region of raw; the same ones however regions are cut, as long as they begin at multiples.

    Attributes:
        factor: Regions must begin at multiples of it, in voxels from the volume's begin, z y x.
        margin: Voxels of raw read before a region's begin, z y x.
        neighborhood: Offsets of the affinities, z y x.
    """

    factor: Triple
    margin: Triple
    neighborhood: list[list[int]]

    def input_shape(self, shape: Triple) -> Triple:
        """Extent of raw needed for a region, in voxels."""

    def __call__(self, raw: NDArray[Any], shape: Triple, report: Report = ...) -> NDArray[np.uint8]:
        """Predict a region, `(channels, z, y, x)`, from raw that begins `margin` voxels before it."""
