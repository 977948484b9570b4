"""A volume whose voxels are of another size than those that networks were trained on: raw and affinities resampled.

    volume      |  0  |  1  |  2  |  3  |   raw of a network's voxel: the mean over what it covers, at least one voxel
    networks    |0|1|2|3|4|5|6|7|8|9|...    of the volume wide: linear where networks' voxels are smaller

An affinity lies in the middle of its edge, on the face between two voxels; what the volume gets there is the mean of
the networks' over as much as an edge of the volume is long, likewise at least one edge of theirs. Only the affinities
of nearest neighbours are left: edges of several of the networks' voxels would end anywhere in the volume's.

Weights of means are whole 4096ths, so that sums are exact in any order and results do not depend on blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.prediction.tiles import round_up
from neuroloom.project import NEAREST
from neuroloom.volume import Volume
from neuroloom.volume.array import Nanometres, Triple, same_voxel_size

FINEST = 4.0
"""Networks' voxels in one of the volume along an axis, at most: what is blurred more shows no membranes."""

PARTS = 4096
"""Of which weights are whole multiples."""

SLAB = 32
"""Planes that are resampled at once, so that only few are there as float64."""


@dataclass(frozen=True)
class Resampling:
    """Between a volume's voxels and those of networks; both begin at the volume's begin.

    Attributes:
        ratio: Networks' voxels in one of the volume, z y x.
    """

    ratio: tuple[float, float, float]

    @classmethod
    def between(cls, volume: Nanometres, trained: Nanometres) -> Resampling | None:
        """What turns voxels of a size into those that networks were trained on; None where they are the same.

        Args:
            volume: Voxel size in nm, z y x.
            trained: Likewise.

        Raises:
            UserError: The volume's are too large.
        """
        if same_voxel_size(volume, trained):
            return None
        z, y, x = (own / theirs for own, theirs in zip(volume, trained, strict=True))
        if max(z, y, x) > FINEST:
            raise UserError(
                f"Voxels of {volume} nm cannot be resampled to the {trained} nm that the network was trained on: more "
                f"than {FINEST:g} times as fine along an axis would show nothing new. Train a network on such volumes."
            )
        return cls((z, y, x))

    def region(self, begin: Triple, shape: Triple, factor: Triple) -> Region:
        """What networks have to predict for a region of the volume.

        Args:
            begin: The region's first voxel, z y x.
            shape: Its extent in voxels.
            factor: Networks' regions begin at multiples of it.
        """
        firsts, lasts = [], []
        for axis in range(3):
            reach = [_reach(*self._centres(begin[axis], shape[axis], axis, offset)) for offset in NEAREST]
            firsts.append(math.floor(min(first for first, _ in reach) / factor[axis]) * factor[axis])
            lasts.append(max(last for _, last in reach))
        z, y, x = (last + 1 - first for first, last in zip(firsts, lasts, strict=True))
        return Region((firsts[0], firsts[1], firsts[2]), (z, y, x))

    def shape(self, shape: Triple) -> Triple:
        """Extent in networks' voxels of an extent of the volume, rounded up."""
        z, y, x = (math.ceil(n * ratio) for n, ratio in zip(shape, self.ratio, strict=True))
        return z, y, x

    def block(self, networks: Triple, shape: Triple, grain: int) -> Triple:
        """A block of the volume that is no larger, about, than one of networks.

        Args:
            networks: Extent of a networks' block in their voxels.
            shape: The volume's extent in voxels.
            grain: Voxels of which a block with neighbours is a multiple.
        """
        parts = [-(-n // b) for n, b in zip(self.shape(shape), networks, strict=True)]
        even = [-(-n // p) for n, p in zip(shape, parts, strict=True)]
        return round_up(even, [grain if p > 1 else 1 for p in parts])

    def read(self, raw: Volume, begin: Sequence[int], shape: Triple) -> NDArray[Any]:
        """Raw as networks want it; where it leaves the volume, the volume is mirrored.

        Args:
            raw: The volume, without channels.
            begin: First of the networks' voxels, z y x.
            shape: Extent in their voxels.

        Returns:
            `(z, y, x)` of the volume's number type, integers rounded to the nearest.
        """
        centres, steps = [], []
        for b, n, ratio in zip(begin, shape, self.ratio, strict=True):
            centres.append((np.arange(b, b + n) + 0.5) / ratio - 0.5)
            steps.append(1 / ratio)
        reach = [_reach(c, s) for c, s in zip(centres, steps, strict=True)]
        first = [low for low, _ in reach]
        values = raw.read_reflected(first, [high + 1 - low for low, high in reach])
        return _mean(
            values, [_weights(c, s, f, n) for c, s, f, n in zip(centres, steps, first, values.shape, strict=True)]
        )

    def back(self, affinities: NDArray[np.uint8], seen: Region, begin: Triple, shape: Triple) -> NDArray[np.uint8]:
        """Affinities of a region of the volume from those of networks' voxels.

        Args:
            affinities: `(channels, z, y, x)` of what `region` says, nearest neighbours first.
            seen: What it says.
            begin: The region's first voxel, z y x.
            shape: Its extent in voxels.

        Returns:
            `(3, z, y, x)` of the region, rounded to the nearest.
        """
        result = np.empty((len(NEAREST), *shape), np.uint8)
        for channel, offset in enumerate(NEAREST):
            weights = []
            for axis in range(3):
                centres, step = self._centres(begin[axis], shape[axis], axis, offset)
                weights.append(_weights(centres, step, seen.begin[axis], seen.shape[axis]))
            result[channel] = _mean(affinities[channel], weights)
        return result

    def _centres(self, begin: int, size: int, axis: int, offset: Triple) -> tuple[NDArray[np.floating], float]:
        """Where affinities of the volume's voxels lie among those of the networks', along an axis, and how wide."""
        ratio, middle = self.ratio[axis], 0.5 + offset[axis] / 2
        return (np.arange(begin, begin + size) + middle) * ratio - middle, ratio


@dataclass(frozen=True)
class Region:
    """What networks predict.

    Attributes:
        begin: First voxel, z y x.
        shape: Extent in voxels.
    """

    begin: Triple
    shape: Triple


def _reach(centres: NDArray[np.floating], step: float) -> tuple[int, int]:
    """First and last voxel that means about some places take part of.

    Args:
        centres: The places, rising; the middle of voxel i is i.
        step: Voxels over which a mean goes; at least one.
    """
    half = max(step, 1.0) / 2
    return math.floor(centres[0] - half + 0.5), math.ceil(centres[-1] + half - 0.5)


def _weights(centres: NDArray[np.floating], step: float, first: int, size: int) -> NDArray[np.floating]:
    """Weights of means, `(places, size)`, whole parts of `PARTS`, together as much.

    Args:
        centres: As for `_reach`.
        step: Likewise.
        first: The voxel of the first weight.
        size: Voxels in all.
    """
    width = max(step, 1.0)
    voxels = np.arange(first, first + size)
    low = np.maximum(voxels - 0.5, centres[:, None] - width / 2)
    high = np.minimum(voxels + 0.5, centres[:, None] + width / 2)
    weights = np.rint(np.maximum(high - low, 0) / width * PARTS)
    # what rounding leaves over goes to the largest
    weights[np.arange(len(weights)), weights.argmax(1)] += PARTS - weights.sum(1)
    return weights


def _mean(values: NDArray[Any], weights: list[NDArray[np.floating]]) -> NDArray[Any]:
    """Means along all axes, of the values' number type.

    Args:
        values: `(z, y, x)`.
        weights: For each axis.
    """
    along_z, along_y, along_x = weights
    result = np.empty([len(w) for w in weights], values.dtype)
    for begin in range(0, len(along_z), SLAB):
        part = along_z[begin : begin + SLAB]
        (used,) = np.nonzero(part.any(0))
        planes = values[used[0] : used[-1] + 1].astype(np.float64)
        means = np.tensordot(part[:, used[0] : used[-1] + 1], along_y @ planes @ along_x.T, 1) / PARTS**3
        result[begin : begin + SLAB] = np.rint(means) if values.dtype.kind in "ui" else means
    return result
