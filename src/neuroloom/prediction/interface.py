"""What predicts affinities, whatever networks are behind it, and what all of them do alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.volume import Volume
from neuroloom.volume.array import Nanometres, Triple, same_voxel_size

Report = Callable[[float], None]
"""Called with the share that is done, 0 … 1."""


class PredictsAffinities(Protocol):
    """Affinities of any region of raw; the same ones however regions are cut, as long as they begin at multiples.

    Attributes:
        voxel_size: nm, z y x, of the raw that networks were trained on.
        factor: Regions must begin at multiples of it, in voxels from the volume's begin, z y x.
        margin: Voxels of raw read before a region's begin, z y x.
        neighborhood: Offsets of the affinities, z y x; nearest neighbours first.
        channels: Affinities per voxel.
    """

    voxel_size: Nanometres
    factor: Triple
    margin: Triple
    neighborhood: list[list[int]]
    channels: int

    def check_volume(self, raw: Volume, resample: bool = False) -> None:
        """Refuse raw that networks were not trained for, and networks that do not do what is said of them.

        Args:
            raw: The image.
            resample: Whether its voxels are brought to the size that networks were trained on.

        Raises:
            UserError: Another voxel size or number type; another extent, number of channels or range comes out.
        """

    def input_shape(self, shape: Triple) -> Triple:
        """Extent of raw needed for a region, in voxels.

        Args:
            shape: The region's extent in voxels.
        """

    def __call__(self, raw: NDArray[Any], shape: Triple, report: Report = ...) -> NDArray[np.uint8]:
        """Predict a region.

        Args:
            raw: `(z, y, x)` of `input_shape(shape)`, beginning `margin` voxels before the region.
            shape: The region's extent in voxels.
            report: Called now and then with the share of the work that is done.

        Returns:
            `(channels, z, y, x)`, 0 … 255 for affinities 0 … 1, rounded to the nearest.

        Raises:
            UserError: Raw holds NaN.
        """


def check_raw(raw: Volume, trained: Nanometres, path: Path, resample: bool = False) -> None:
    """Refuse raw that networks were not trained for.

    Args:
        raw: The image.
        trained: Voxel size in nm, z y x, that they were trained on.
        path: Where they lie.
        resample: Whether raw is brought to that voxel size.

    Raises:
        UserError: Another voxel size or number type.
    """
    if not resample and not same_voxel_size(raw.voxel_size, trained):
        raise UserError(
            f"{raw.location} has voxels of {raw.voxel_size} nm, but {path} was trained on {trained} nm. "
            "Predict with `--resample`, predict volumes of that voxel size, or train on this one."
        )
    if raw.dtype not in (np.uint8, np.float32) or raw.channels is not None:
        raise UserError(
            f"{raw.location} is {raw.dtype}{' with channels' if raw.channels else ''}; expected uint8, or float32 "
            "in [0, 1], without channels. Bring it in with `neuroloom import`."
        )


def check_values(raw: NDArray[Any]) -> None:
    """Refuse raw of which networks would make nothing.

    Raises:
        UserError: It holds NaN.
    """
    if not np.isfinite(raw).all():
        raise UserError("Raw holds NaN or infinite values. Mend the volume (`neuroloom check` names the places).")
