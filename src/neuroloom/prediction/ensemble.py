"""Affinities averaged over several networks, each of which errs elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.prediction.interface import PredictsAffinities, Report
from neuroloom.volume import Volume
from neuroloom.volume.array import Triple


class EnsemblePredictor:
    """Like a `Predictor`, but the mean of several; they run one after the other.

    Args:
        members: Predict the volume, trained on voxels of one size.

    Attributes:
        voxel_size: nm, z y x, of the raw that they were trained on.
        factor: Regions must begin at multiples of it, in voxels from the volume's begin, z y x.
        margin: Voxels of raw read before a region's begin, z y x.
        neighborhood: Offsets of the affinities that all of them give, z y x.
        channels: Affinities per voxel.
    """

    def __init__(self, members: Sequence[PredictsAffinities]) -> None:
        self.members = members
        first, *others = members
        self.voxel_size = first.voxel_size
        z, y, x = (math.lcm(*along) for along in zip(*(member.factor for member in members), strict=True))
        self.factor: Triple = (z, y, x)
        z, y, x = (max(along) for along in zip(*(member.margin for member in members), strict=True))
        self.margin: Triple = (z, y, x)
        self.neighborhood = [
            offset for offset in first.neighborhood if all(offset in other.neighborhood for other in others)
        ]
        self.channels = len(self.neighborhood)

    def check_volume(self, raw: Volume, resample: bool = False) -> None:
        """See `PredictsAffinities`."""
        for member in self.members:
            member.check_volume(raw, resample)

    def input_shape(self, shape: Triple) -> Triple:
        """See `PredictsAffinities`."""
        needed = [
            [own - before for own, before in zip(member.input_shape(shape), member.margin, strict=True)]
            for member in self.members
        ]
        z, y, x = (margin + max(along) for margin, along in zip(self.margin, zip(*needed, strict=True), strict=True))
        return z, y, x

    def __call__(self, raw: NDArray[Any], shape: Triple, report: Report = lambda share: None) -> NDArray[np.uint8]:
        """See `PredictsAffinities`."""
        total = np.zeros((self.channels, *shape), np.uint16)
        for number, member in enumerate(self.members):
            extents = zip(self.margin, member.margin, member.input_shape(shape), strict=True)
            window = tuple(slice(margin - own, margin - own + n) for margin, own, n in extents)

            def told(share: float, before: int = number) -> None:
                report((before + share) / len(self.members))

            found = member(raw[window], shape, told)
            for channel, offset in enumerate(self.neighborhood):
                total[channel] += found[member.neighborhood.index(offset)]
        return ((total + len(self.members) // 2) // len(self.members)).astype(np.uint8)
