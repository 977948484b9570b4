"""Affinities averaged over a volume and its mirror images (test-time augmentation).

An affinity belongs to an edge: that of voxel v and offset o joins v and v + o. In an image that is mirrored about every
axis along which o leads, the same edge is found at v + o:

    volume         v-1 <--o-- v              o = -1:  the edge is kept at v
    its mirror     v' --o--> v'-1            v' is the mirror image of v - 1: the same edge is kept there

So what comes out is not just flipped back, but moved by o along the mirrored axes. Where o leads along a mirrored axis
and one that is not, the mirror image has no such edge, and does not count for this affinity.

Mirror images are cut into the network's cells where the volume is, so results do not depend on blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.prediction.interface import PredictsAffinities, Report
from neuroloom.prediction.tiles import round_up
from neuroloom.volume.array import Triple

Axes = tuple[int, ...]
"""Axes that are mirrored, of 0 z, 1 y, 2 x."""

MIRRORS: dict[int, tuple[Axes, ...]] = {
    1: ((),),
    2: ((), (0, 1, 2)),
    4: ((), (0, 1), (0, 2), (1, 2)),
    8: ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)),
}
"""By how many predictions are averaged; always some that are far apart."""


def mirrored(predictor: PredictsAffinities, number: int) -> PredictsAffinities | MirroredPredictor:
    """A predictor, or the mean of its predictions of mirror images.

    Args:
        predictor: Predicts the volume alone.
        number: How many images; 1 is the volume alone.
    """
    return predictor if number == 1 else MirroredPredictor(predictor, number)


class MirroredPredictor:
    """Like a `Predictor`, but the mean over mirror images.

    Args:
        predictor: Predicts each of them.
        number: How many; a key of `MIRRORS`.

    Attributes:
        margin: Voxels of raw read before a region's begin, z y x.
    """

    def __init__(self, predictor: PredictsAffinities, number: int) -> None:
        self.predictor = predictor
        self.images = MIRRORS[number]
        offsets = predictor.neighborhood
        # how far edges lead from a region, in whole cells of the network
        self._low = round_up([max(0, *(-o[axis] for o in offsets)) for axis in range(3)], predictor.factor)
        self._high = round_up([max(0, *(o[axis] for o in offsets)) for axis in range(3)], predictor.factor)
        begins = [self._window(axes, predictor.factor)[0] for axes in self.images]
        z, y, x = (max(-begin[axis] for begin in begins) for axis in range(3))
        self.margin: Triple = (z, y, x)

    def input_shape(self, shape: Triple) -> Triple:
        """Extent of raw needed for a region, in voxels.

        Args:
            shape: The region's extent in voxels.
        """
        ends = [self._window(axes, shape)[1] for axes in self.images]
        z, y, x = (self.margin[axis] + max(end[axis] for end in ends) for axis in range(3))
        return z, y, x

    def __call__(self, raw: NDArray[Any], shape: Triple, report: Report = lambda share: None) -> NDArray[np.uint8]:
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
        offsets = self.predictor.neighborhood
        total = np.zeros((len(offsets), *shape), np.uint16)
        count = np.zeros(len(offsets), np.uint16)
        for number, axes in enumerate(self.images):
            begin, end = self._window(axes, shape)
            window = tuple(slice(m + b, m + e) for m, b, e in zip(self.margin, begin, end, strict=True))

            def told(share: float, before: int = number) -> None:
                report((before + share) / len(self.images))

            of_image = self.predictor(np.flip(raw[window], axes), self._region(axes, shape), told)
            found = np.flip(of_image, tuple(axis + 1 for axis in axes))
            for channel, offset in enumerate(offsets):
                along = {axis for axis in range(3) if offset[axis]}
                if not along <= set(axes) and along & set(axes):
                    continue
                moved = [offset[axis] if along <= set(axes) else 0 for axis in range(3)]
                first = [(self._low[axis] if axis in axes else 0) + moved[axis] for axis in range(3)]
                place = tuple(slice(f, f + n) for f, n in zip(first, shape, strict=True))
                total[channel] += found[channel][place]
                count[channel] += 1
        half = (count // 2)[:, None, None, None]
        return ((total + half) // count[:, None, None, None]).astype(np.uint8)

    def _region(self, axes: Axes, shape: Triple) -> Triple:
        """What is predicted of a mirror image: with the ends of all edges."""
        cells = round_up(shape, self.predictor.factor)
        z, y, x = (cells[a] + (self._low[a] + self._high[a] if a in axes else 0) for a in range(3))
        return z, y, x

    def _window(self, axes: Axes, shape: Triple) -> tuple[Triple, Triple]:
        """Begin and end of the raw that a mirror image needs, in voxels from a region's begin."""
        region = self._region(axes, shape)
        margin, needed = self.predictor.margin, self.predictor.input_shape(region)
        begins, ends = [], []
        for axis in range(3):
            if axis in axes:
                end = region[axis] - self._low[axis] + margin[axis]
                begins.append(end - needed[axis])
                ends.append(end)
            else:
                begins.append(-margin[axis])
                ends.append(needed[axis] - margin[axis])
        return (begins[0], begins[1], begins[2]), (ends[0], ends[1], ends[2])
