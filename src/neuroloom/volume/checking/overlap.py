"""Is a piece of one volume in another? By their place, and by content where places are not known.

    probes: short rows of voxels from a grid in B, looked for byte by byte in A;
    a hit counts when the three-dimensional neighbourhoods agree too.

Noise makes a row of 48 voxels unlike any other, so a crop is found wherever it was cut from.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from neuroloom.volume.array import Triple, Volume
from neuroloom.volume.regions import WHOLE, slabs_of

_PROBE = 48  # voxels along x
_LEAST = 16  # different voxels in a row, so that an even area is no probe
_PATCH = (4, 16, 48)  # voxels compared around a hit


@dataclass(frozen=True)
class Overlap:
    """A part that two volumes share.

    Attributes:
        shift: Voxels, z y x: voxel v of the second is voxel v + shift of the first.
        voxels: How many voxels they share.
        fraction: Of the second volume.
        by_place: Whether their offsets say so too.
    """

    shift: Triple
    voxels: int
    fraction: float
    by_place: bool


def find_overlap(first: Volume, second: Volume) -> Overlap | None:
    """Look for a part of the second volume in the first.

    Args:
        first: An image without channels.
        second: Another.

    Returns:
        The shared part, or None. Volumes of more than 2**28 voxels are compared by their places alone.

    Raises:
        UserError: A chunk is damaged.
    """
    if first.dtype != second.dtype:
        return None
    shift = _shift_by_place(first, second)
    if shift is not None and (box := _shared(first.shape, second.shape, shift)) and _same(first, second, shift, box):
        return Overlap(shift, math.prod(box[1]), math.prod(box[1]) / math.prod(second.shape), True)
    if math.prod(first.shape) > WHOLE or math.prod(second.shape) > WHOLE:
        return None
    # probes of the smaller one are more likely to lie in the part they share
    swapped = math.prod(first.shape) < math.prod(second.shape)
    found = _search(second, first) if swapped else _search(first, second)
    if found is None:
        return None
    shift = (-found[0], -found[1], -found[2]) if swapped else found
    shared = _shared(first.shape, second.shape, shift)
    assert shared is not None
    return Overlap(shift, math.prod(shared[1]), math.prod(shared[1]) / math.prod(second.shape), False)


def _search(large: Volume, small: Volume) -> Triple | None:
    """Look for probes of one volume in the other; returns where voxel 0, 0, 0 of the first lies there."""
    probes = _probes(small)
    for begin, shape in slabs_of(((0, 0, 0), large.shape), large.array.chunks[-3]):
        slab = np.ascontiguousarray(large.read(begin, shape))
        data, size = slab.tobytes(), slab.itemsize
        for place, probe in probes:
            at = data.find(probe)
            while at >= 0:
                z, y, x = (int(i) for i in np.unravel_index(at // size, shape))
                shift = (z + begin[0] - place[0], y - place[1], x - place[2])
                box = _shared(large.shape, small.shape, shift)
                if at % size == 0 and box is not None and _same(large, small, shift, box, place):
                    return shift
                at = data.find(probe, at + 1)
    return None


def _shift_by_place(first: Volume, second: Volume) -> Triple | None:
    if not np.allclose(first.voxel_size, second.voxel_size, rtol=1e-3):
        return None
    z, y, x = ((b - a) / s for a, b, s in zip(first.offset, second.offset, first.voxel_size, strict=True))
    if any(abs(v - round(v)) > 0.01 for v in (z, y, x)):
        return None
    return round(z), round(y), round(x)


def _shared(first: Triple, second: Triple, shift: Triple) -> tuple[Triple, Triple] | None:
    """The part of the second volume that lies in the first: first voxel, in the second, and extent."""
    low = [max(0, -s) for s in shift]
    high = [min(b, a - s) for a, b, s in zip(first, second, shift, strict=True)]
    if any(h <= v for h, v in zip(high, low, strict=True)):
        return None
    return (low[0], low[1], low[2]), (high[0] - low[0], high[1] - low[1], high[2] - low[2])


def _same(
    first: Volume, second: Volume, shift: Triple, box: tuple[Triple, Triple], around: Triple | None = None
) -> bool:
    """Whether the shared part looks the same in both, in a patch around a voxel (or in the middle)."""
    low, extent = box
    middle = around or tuple(b + e // 2 for b, e in zip(low, extent, strict=True))
    size = [min(p, e) for p, e in zip(_PATCH, extent, strict=True)]
    begin = [min(max(m - s // 2, b), b + e - s) for m, s, b, e in zip(middle, size, low, extent, strict=True)]
    mine = second.read(begin, size)
    return bool(mine.min() != mine.max()) and np.array_equal(
        mine, first.read([b + s for b, s in zip(begin, shift, strict=True)], size)
    )


def _probes(volume: Volume) -> list[tuple[Triple, bytes]]:
    """Rows that are unlike any other, from a 3 x 3 x 3 grid."""
    length = min(_PROBE, volume.shape[2])
    places = [sorted({n // 6, n // 2, n - 1 - n // 6}) for n in (*volume.shape[:2], volume.shape[2] - length + 1)]
    probes = []
    for z, y, x in itertools.product(*places):
        row = volume.read((z, y, x), (1, 1, length)).ravel()
        if len(np.unique(row)) >= min(_LEAST, length // 2):
            probes.append(((z, y, x), row.tobytes()))
    return probes
