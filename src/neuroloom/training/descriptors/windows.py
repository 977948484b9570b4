"""The windows descriptors are taken over: their kernels, and how far they reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from neuroloom.training.descriptors.arguments import check

Window = Literal["gaussian", "sphere"]

TRUNCATION = 3.0
"""Radius of the Gaussian window in standard deviations."""

SURFACE = 1e-9
"""Part of the squared radius by which the sphere is larger, so that rounding cannot move voxels on its surface out."""


def context(
    sigma_nm: float | tuple[float, ...],
    voxel_size: tuple[float, ...],
    downsample: int = 1,
    window: Window = "gaussian",
) -> tuple[int, ...]:
    """How many voxels around a place its descriptors depend on, along each axis.

    Args:
        sigma_nm: standard deviation of the Gaussian or radius of the sphere in nm, one for all axes or one per axis.
        voxel_size: nm per voxel along each axis.
        downsample: the factor the descriptors are computed with.
        window: "gaussian" or "sphere".

    Returns:
        Voxels on every side, a multiple of `downsample`, so that a crop enlarged by them keeps its phase.

    Raises:
        ValueError: sigma, voxel size, downsample or window make no sense, or do not fit each other.
    """
    sigma = check(len(voxel_size), sigma_nm, voxel_size, downsample, window)
    radius = gaussian_radius if window == "gaussian" else sphere_radius
    return tuple(
        downsample * radius(deviation / (size * downsample)) for deviation, size in zip(sigma, voxel_size, strict=True)
    )


def gaussian_radius(sigma: float) -> int:
    """Voxels from the centre of the Gaussian window to its end, for sigma in voxels."""
    return int(TRUNCATION * sigma + 0.5)


def sphere_radius(sigma: float) -> int:
    """Voxels from the centre of the spherical window to its end, for sigma in voxels."""
    return int(sigma * math.sqrt(1 + SURFACE))


def gaussian_moments(sigma: float) -> NDArray[np.float64]:
    """The kernels g, t g and t^2 g of a Gaussian truncated at 3 sigma and normalised to sum 1.

    Args:
        sigma: standard deviation in voxels.

    Returns:
        (3, 2 r + 1) float64 with r = 3 sigma, rounded.
    """
    radius = gaussian_radius(sigma)
    offset = np.arange(-radius, radius + 1, dtype=np.float64)
    weight = np.exp(-0.5 * (offset / sigma) ** 2)
    weight /= weight.sum()
    return np.stack([weight, offset * weight, offset**2 * weight])


def half_widths(sigma: Sequence[float]) -> NDArray[np.int64]:
    """The spherical window as a stack of rows along x, each from -h to h.

    Args:
        sigma: radii along z, y, x in voxels.

    Returns:
        h for each offset in z and y, (2 r_z + 1, 2 r_y + 1), -1 where the window has no row.
    """
    z, y = (np.arange(-sphere_radius(s), sphere_radius(s) + 1) / s for s in sigma[:2])
    left = 1 + SURFACE - z[:, None] ** 2 - y[None, :] ** 2
    return np.where(left >= 0, np.floor(np.sqrt(np.maximum(left, 0)) * sigma[2]), -1).astype(np.int64)
