"""How thick labelled neurites are, and the σ of the descriptors that fits them.

    σ = 1.2 times the median diameter: the window sees more than the local cross-section

The diameter at a place on a neurite's middle line is twice the distance to its border there. The published σ of 80 nm
was chosen for tissue (FIB-25) whose median diameter, measured like this, is 66 nm: hence the factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from neuroloom.volume.array import Volume
from neuroloom.volume.regions import Box, stored_box

SIGMA_PER_DIAMETER = 1.2
_REGION = 160  # voxels; thickness is measured in regions of this extent
_ROUND = 10.0  # nm
_LEAST_VOXELS = 3  # σ in voxels, at least; below, the window holds too little to describe a shape


@dataclass(frozen=True)
class Thickness:
    """Diameters along the middle lines of labelled neurites, in nm: median, and the quartiles around it."""

    quarter: float
    median: float
    three_quarters: float

    def __str__(self) -> str:
        return (
            f"labelled neurites are {self.median:.0f} nm thick in the median, half of them {self.quarter:.0f} to "
            f"{self.three_quarters:.0f} nm"
        )

    def sigma(self, voxel_size: Sequence[float]) -> float:
        """σ of the local shape descriptors in nm, a multiple of 10, of at least three voxels (nm, z y x)."""
        least = math.ceil(_LEAST_VOXELS * min(voxel_size) / _ROUND) * _ROUND
        return max(_ROUND, round(SIGMA_PER_DIAMETER * self.median / _ROUND) * _ROUND, least)


def measure_thickness(volumes: Sequence[tuple[Volume, Volume | None]], voxel_size: Sequence[float]) -> Thickness | None:
    """Measure the labelled neurites of some volumes, in up to three regions of each.

    Args:
        volumes: Labels and mask (None for 1 everywhere) of each.
        voxel_size: nm, z y x.

    Returns:
        None where nothing can be measured: no label has a border in sight and a middle line.

    Raises:
        UserError: A chunk is damaged.
    """
    diameters = np.concatenate([d for labels, mask in volumes for d in _diameters(labels, mask, voxel_size)])
    if not len(diameters):
        return None
    return Thickness(*(float(d) for d in np.percentile(diameters, (25, 50, 75))))


def local_diameters(
    labels: NDArray[Any], voxel_size: Sequence[float], mask: NDArray[Any] | None = None
) -> NDArray[np.float64]:
    """Diameters of labelled objects along their middle lines.

    Args:
        labels: `(z, y, x)` ids.
        voxel_size: nm, z y x; of sections twice as thick as their pixels or more, each is measured on its own.
        mask: `(z, y, x)`; where it is 0 nothing is measured, but borders are left as they are.

    Returns:
        `(n,)` nm, one for each voxel that is farthest from the border among its neighbours within two voxels.
    """
    found = []
    flat = voxel_size[0] >= 2 * min(voxel_size[1:])
    for part, inside in _sections(labels, mask) if flat else [(labels, mask)]:
        size = tuple(voxel_size[1:] if flat else voxel_size)
        # the volume's own border cuts neurites and says nothing of their thickness
        distance = edt.edt(np.ascontiguousarray(part), anisotropy=size, black_border=False)
        ridge = (distance == ndimage.maximum_filter(distance, 5)) & (distance > 0) & np.isfinite(distance)
        if inside is not None:
            ridge &= inside != 0
        found.append(2.0 * distance[ridge].astype(np.float64))
    values = np.concatenate(found)
    # a label without any border in sight is as far from it as the block is long, or farther
    longest = math.dist((0, 0, 0), [s * v for s, v in zip(labels.shape, voxel_size, strict=True)])
    # what is thinner than three voxels is a jag of the annotation
    return values[(values <= longest) & (values > 3 * min(voxel_size))]


def _sections(labels: NDArray[Any], mask: NDArray[Any] | None) -> Iterator[tuple[NDArray[Any], NDArray[Any] | None]]:
    for z, section in enumerate(labels):
        yield section, None if mask is None else mask[z]


def _diameters(labels: Volume, mask: Volume | None, voxel_size: Sequence[float]) -> Iterator[NDArray[np.float64]]:
    yield np.zeros(0)
    for begin, shape in _spread(stored_box(mask or labels)):
        yield local_diameters(labels.read(begin, shape), voxel_size, None if mask is None else mask.read(begin, shape))


def _spread(box: Box) -> Iterator[Box]:
    """Up to three regions along the diagonal of a box."""
    begin, shape = box
    extent = [min(_REGION, s) for s in shape]
    corners = []
    for part in (0.5, 0.0, 1.0):
        corner = tuple(b + round((s - e) * part) for b, s, e in zip(begin, shape, extent, strict=True))
        if corner not in corners:
            corners.append(corner)
    for z, y, x in corners:
        yield (z, y, x), (extent[0], extent[1], extent[2])
