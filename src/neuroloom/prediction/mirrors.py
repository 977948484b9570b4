"""Affinities averaged over a volume, its mirror images, and these with axes exchanged (test-time augmentation).

An affinity belongs to an edge: that of voxel v and offset o joins v and v + o. In an image that is mirrored about every
axis along which o leads, the same edge is found at v + o:

    volume         v-1 <--o-- v              o = -1:  the edge is kept at v
    its mirror     v' --o--> v'-1            v' is the mirror image of v - 1: the same edge is kept there

So what comes out is not just flipped back, but moved by o along the mirrored axes. Where o leads along a mirrored axis
and one that is not, the mirror image has no such edge, and does not count for this affinity.

Mirror images are cut into the network's cells where the volume is, so results do not depend on blocks.

With y and x exchanged, an edge along y is one along x: its affinity is that of the channel whose offset is exchanged
likewise. Where there is none, such an image does not count for this affinity.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.prediction.interface import PredictsAffinities, Report
from neuroloom.prediction.tiles import round_up
from neuroloom.volume import Volume
from neuroloom.volume.array import Triple

Axes = tuple[int, ...]
"""Axes that are mirrored, of 0 z, 1 y, 2 x."""

Order = tuple[int, int, int]
"""Which axis of the volume lies along z, y and x of an image."""

_ALL: tuple[Axes, ...] = ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))
_SAME, _EXCHANGED = (0, 1, 2), (0, 2, 1)

MIRRORS: dict[int, tuple[tuple[Order, Axes], ...]] = {
    1: ((_SAME, ()),),
    2: ((_SAME, ()), (_SAME, (0, 1, 2))),
    4: ((_SAME, ()), (_SAME, (0, 1)), (_SAME, (0, 2)), (_SAME, (1, 2))),
    8: tuple((_SAME, axes) for axes in _ALL),
    16: tuple((order, axes) for order in (_SAME, _EXCHANGED) for axes in _ALL),
    48: tuple(((z, y, x), axes) for z, y, x in itertools.permutations(_SAME) for axes in _ALL),
}
"""By how many predictions are averaged; always some that are far apart. An image's axes are put in order, then
mirrored: 16 also exchanges y and x, 48 all axes."""


def check_images(number: int, factor: Triple, voxel_size: Sequence[float]) -> None:
    """Make sure that axes may be exchanged as the images of a number do.

    Args:
        number: A key of `MIRRORS`.
        factor: Of the networks, in voxels, z y x.
        voxel_size: Of raw, in nm, z y x.

    Raises:
        UserError: They differ along the axes.
    """
    if not _are_alike(number, factor, voxel_size):
        fewer = max(other for other in MIRRORS if other < number and _are_alike(other, factor, voxel_size))
        raise UserError(
            f"`prediction.mirrors = {number}` exchanges axes along which voxels or networks differ (voxels of "
            f"{tuple(voxel_size)} nm, pooling by {tuple(factor)}, z y x). Take {fewer} or fewer."
        )


def _are_alike(number: int, *extents: Sequence[float]) -> bool:
    """Whether extents are equal along axes that images exchange."""
    return all(
        abs(values[axis] - own) <= 1e-3 * own
        for order, _ in MIRRORS[number]
        for values in extents
        for axis, own in zip(order, values, strict=True)
    )


def mirrored(predictor: PredictsAffinities, number: int) -> PredictsAffinities:
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
        voxel_size: As the predictor's, and so on.
        factor: Regions must begin at multiples of it, in voxels from the volume's begin, z y x.
        margin: Voxels of raw read before a region's begin, z y x.
        neighborhood: Offsets of the affinities, z y x.
        channels: Affinities per voxel.
    """

    def __init__(self, predictor: PredictsAffinities, number: int) -> None:
        self.predictor = predictor
        self.images = MIRRORS[number]
        self.voxel_size, self.factor = predictor.voxel_size, predictor.factor
        self.neighborhood, self.channels = predictor.neighborhood, predictor.channels
        offsets = predictor.neighborhood
        # how far edges lead from a region, in whole cells of the network
        self._low = round_up([max(0, *(-o[axis] for o in offsets)) for axis in range(3)], predictor.factor)
        self._high = round_up([max(0, *(o[axis] for o in offsets)) for axis in range(3)], predictor.factor)
        begins = [self._in_volume(image, predictor.factor)[0] for image in self.images]
        z, y, x = (max(-begin[axis] for begin in begins) for axis in range(3))
        self.margin: Triple = (z, y, x)

    def check_volume(self, raw: Volume, resample: bool = False) -> None:
        """See `PredictsAffinities`."""
        self.predictor.check_volume(raw, resample)

    def input_shape(self, shape: Triple) -> Triple:
        """See `PredictsAffinities`."""
        ends = [self._in_volume(image, shape)[1] for image in self.images]
        z, y, x = (self.margin[axis] + max(end[axis] for end in ends) for axis in range(3))
        return z, y, x

    def __call__(self, raw: NDArray[Any], shape: Triple, report: Report = lambda share: None) -> NDArray[np.uint8]:
        """See `PredictsAffinities`."""
        offsets = self.predictor.neighborhood
        total = np.zeros((len(offsets), *shape), np.uint16)
        count = np.zeros(len(offsets), np.uint16)
        for number, image in enumerate(self.images):
            order, axes = image
            begin, end = self._in_volume(image, shape)
            window = tuple(slice(m + b, m + e) for m, b, e in zip(self.margin, begin, end, strict=True))

            def told(share: float, before: int = number) -> None:
                report((before + share) / len(self.images))

            extent = _ordered(shape, order)
            values = np.flip(raw[window].transpose(order), axes)
            found = np.flip(self.predictor(values, self._region(axes, extent), told), tuple(a + 1 for a in axes))
            back = tuple(order.index(axis) for axis in range(3))
            for channel, offset in enumerate(offsets):
                ordered = list(_ordered(offset, order))
                along = {axis for axis in range(3) if ordered[axis]}
                if ordered not in offsets or (not along <= set(axes) and along & set(axes)):
                    continue
                moved = [ordered[axis] if along <= set(axes) else 0 for axis in range(3)]
                first = [(self._low[axis] if axis in axes else 0) + moved[axis] for axis in range(3)]
                place = tuple(slice(f, f + n) for f, n in zip(first, extent, strict=True))
                total[channel] += found[offsets.index(ordered)][place].transpose(back)
                count[channel] += 1
        half = (count // 2)[:, None, None, None]
        return ((total + half) // count[:, None, None, None]).astype(np.uint8)

    def _in_volume(self, image: tuple[Order, Axes], shape: Triple) -> tuple[Triple, Triple]:
        """Begin and end of the raw that an image needs, along the volume's axes, in voxels from a region's begin."""
        order, axes = image
        begin, end = self._window(axes, _ordered(shape, order))
        back = (order.index(0), order.index(1), order.index(2))
        return _ordered(begin, back), _ordered(end, back)

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


def _ordered(extent: Sequence[int], order: Order) -> Triple:
    """Extents along the axes of an image."""
    z, y, x = (int(extent[axis]) for axis in order)
    return z, y, x
