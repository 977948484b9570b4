"""From skeletons to space: which neurite each voxel belongs to, how far its membrane is, and where its organelles lie.

    score of a neurite at v   =  min over the points c of its skeleton of  |v - c| - radius(c)    [nm]
    label(v)                  =  the neurite of the lowest score: an additively weighted Voronoi diagram
    membrane(v)               =  (second lowest - lowest) / |difference of the two unit gradients|

The straight line from v to the point c that gives its score stays in the neurite (triangle inequality): a neurite is
one piece wherever its skeleton is inside it. No tissue is left over and hardly any neurite is torn.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from neuroloom.volume.sample.mend import RAISED_MAX
from neuroloom.volume.sample.neurites import LINK_MAX, Skeletons

Float32 = NDArray[np.float32]

SCORE_MAX = 380.0  # nm; links with a higher score at a voxel have no say there
REACH = SCORE_MAX + RAISED_MAX  # nm; how far from a block `skeletons_near` must know the thin neurites
FAR = 1000.0  # nm; stands for "no membrane near"


class Cells(NamedTuple):
    """What the tissue is at each voxel; all `(z, y, x)`.

    Attributes:
        neurite: int64 index into `Skeletons.neurite`'s sorted distinct ids; -1 where no neurite reaches.
        membrane: float32 nm to the nearest membrane's middle.
        mitochondrion: float32 nm inside (positive) or outside of the neurite's mitochondrion.
        across_a, across_b: float32 nm, place in the plane across the neurite.
        girth: float32 nm, the neurite's radius here.
    """

    neurite: NDArray[np.int64]
    membrane: Float32
    mitochondrion: Float32
    across_a: Float32
    across_b: Float32
    girth: Float32


def fill_space(
    skeletons: Skeletons,
    index: NDArray[np.int64],
    begin: NDArray[np.int64],
    shape: NDArray[np.int64],
    voxel_size: NDArray[np.float64],
    scale: float,
    shift: NDArray[np.float32],
) -> Cells:
    """Find the neurite, the membrane and the organelles at each voxel of a block.

    Args:
        skeletons: All nodes near the block.
        index: `(n,)` number of each node's neurite.
        begin: First voxel, z y x.
        shape: Extent in voxels, z y x.
        voxel_size: nm, z y x.
        scale: nm of tissue per nm of the skeletons.
        shift: `(3, z, y, x)` nm (of the skeletons): the place that is looked at, away from the voxel's centre.

    Returns:
        The cells.
    """
    links = np.flatnonzero(skeletons.before >= 0)
    step = skeletons.position[links] - skeletons.position[skeletons.before[links]]
    squared = step[:, 0] * step[:, 0] + step[:, 1] * step[:, 1] + step[:, 2] * step[:, 2]
    last = links[(squared <= LINK_MAX * LINK_MAX) & (squared > 1e-6)]
    first = skeletons.before[last]
    start = skeletons.position[first]
    along = skeletons.position[last] - start
    squared = along[:, 0] * along[:, 0] + along[:, 1] * along[:, 1] + along[:, 2] * along[:, 2]
    length = np.sqrt(squared)
    slope = np.clip((skeletons.radius[last] - skeletons.radius[first]) / length, -0.9, 0.9)
    table = np.empty((len(last), 12), np.float64)
    table[:, 0:3] = start
    table[:, 3:6] = along
    table[:, 6] = 1.0 / squared
    table[:, 7] = skeletons.radius[first]
    table[:, 8] = slope * length
    table[:, 9] = skeletons.mitochondrion[first]
    table[:, 10] = skeletons.mitochondrion[last] - skeletons.mitochondrion[first]
    table[:, 11] = slope / np.sqrt(1.0 - slope * slope) / length
    extent = tuple(int(s) for s in shape)
    cells = Cells(np.full(extent, -1, np.int64), *(np.zeros(extent, np.float32) for _ in range(5)))
    tile = np.maximum(1, np.round(36.0 * scale / voxel_size)).astype(np.int64)
    _fill(table, index[last], begin, voxel_size / scale, tile, shift, scale, *cells)
    return cells


@njit(cache=True, nogil=True)
def _fill(  # type: ignore[no-untyped-def]
    table, owner, begin, voxel, tile, shift, scale, neurite, membrane, mitochondrion, across_a, across_b, girth
):
    """Boxes within boxes within boxes: each keeps of the links of the one around it those that have a say in it."""
    nz, ny, nx = neurite.shape
    n = len(table)
    everything, score = np.arange(n), np.empty(n, np.float64)
    large, middle, small = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    place = (begin, voxel, shift)
    big, mid = 16 * tile, 4 * tile
    for z0 in range(0, nz, big[0]):
        for y0 in range(0, ny, big[1]):
            for x0 in range(0, nx, big[2]):
                z1, y1, x1 = min(nz, z0 + big[0]), min(ny, y0 + big[1]), min(nx, x0 + big[2])
                many = _prune(table, owner, everything, n, place, (z0, y0, x0, z1, y1, x1), score, large)
                for z2 in range(z0, z1, mid[0]):
                    for y2 in range(y0, y1, mid[1]):
                        for x2 in range(x0, x1, mid[2]):
                            z3, y3, x3 = min(z1, z2 + mid[0]), min(y1, y2 + mid[1]), min(x1, x2 + mid[2])
                            some = _prune(table, owner, large, many, place, (z2, y2, x2, z3, y3, x3), score, middle)
                            for z4 in range(z2, z3, tile[0]):
                                for y4 in range(y2, y3, tile[1]):
                                    for x4 in range(x2, x3, tile[2]):
                                        box = (
                                            z4,
                                            y4,
                                            x4,
                                            min(z3, z4 + tile[0]),
                                            min(y3, y4 + tile[1]),
                                            min(x3, x4 + tile[2]),
                                        )
                                        few = _prune(table, owner, middle, some, place, box, score, small)
                                        _fill_box(
                                            table,
                                            owner,
                                            small,
                                            few,
                                            place,
                                            box,
                                            scale,
                                            neurite,
                                            membrane,
                                            mitochondrion,
                                            across_a,
                                            across_b,
                                            girth,
                                        )


@njit(cache=True, nogil=True)
def _prune(table, owner, links, many, place, box, score, kept):  # type: ignore[no-untyped-def]
    """Keep the links that may give the lowest or, of another neurite, the second lowest score somewhere in a box.

    A score changes by at most 1 nm per nm, so those at the box's centre bound those at its voxels.
    """
    begin, voxel, shift = place
    z0, y0, x0, z1, y1, x1 = box
    cz = (begin[0] + 0.5 * (z0 + z1)) * voxel[0]
    cy = (begin[1] + 0.5 * (y0 + y1)) * voxel[1]
    cx = (begin[2] + 0.5 * (x0 + x1)) * voxel[2]
    az, ay, ax = (z1 - z0) * voxel[0], (y1 - y0) * voxel[1], (x1 - x0) * voxel[2]
    half = 0.5 * math.sqrt(az * az + ay * ay + ax * ax) + _longest(shift, box)
    one, two, one_owner = 1e9, 1e9, -1
    for k in range(many):
        f, _, _ = _score(table, links[k], cz, cy, cx)
        score[k] = f
        if owner[links[k]] == one_owner:
            one = min(one, f)
        elif f < one:
            one, two, one_owner = f, one, owner[links[k]]
        elif f < two:
            two = f
    limit = min(two + half, SCORE_MAX) + half + 1.0
    few = 0
    for k in range(many):
        if score[k] <= limit:
            kept[few] = links[k]
            few += 1
    return few


@njit(cache=True, nogil=True)
def _fill_box(  # type: ignore[no-untyped-def]
    table, owner, near, many, place, box, scale, neurite, membrane, mitochondrion, across_a, across_b, girth
):
    begin, voxel, shift = place
    z0, y0, x0, z1, y1, x1 = box
    for z in range(z0, z1):
        for y in range(y0, y1):
            for x in range(x0, x1):
                pz = (begin[0] + z + 0.5) * voxel[0] + shift[0, z, y, x]
                py = (begin[1] + y + 0.5) * voxel[1] + shift[1, z, y, x]
                px = (begin[2] + x + 0.5) * voxel[2] + shift[2, z, y, x]
                f1, f2 = 1e9, 1e9
                k1, k2 = -1, -1
                n1 = -1
                for m in range(many):
                    k = near[m]
                    f, _, _ = _score(table, k, pz, py, px)
                    if f > SCORE_MAX:
                        continue
                    if owner[k] == n1:
                        if f < f1:
                            f1, k1 = f, k
                    elif f < f1:
                        f2, k2 = f1, k1
                        f1, k1, n1 = f, k, owner[k]
                    elif f < f2:
                        f2, k2 = f, k
                neurite[z, y, x] = n1
                membrane[z, y, x] = FAR
                mitochondrion[z, y, x] = -FAR
                if k1 < 0:
                    continue
                _, d1, s1 = _score(table, k1, pz, py, px)
                uz = pz - table[k1, 0] - s1 * table[k1, 3]
                uy = py - table[k1, 1] - s1 * table[k1, 4]
                ux = px - table[k1, 2] - s1 * table[k1, 5]
                to_membrane = FAR
                if k2 >= 0:
                    _, d2, s2 = _score(table, k2, pz, py, px)
                    d1, d2 = max(d1, 1e-6), max(d2, 1e-6)
                    gz = (pz - table[k2, 0] - s2 * table[k2, 3]) / d2 - uz / d1
                    gy = (py - table[k2, 1] - s2 * table[k2, 4]) / d2 - uy / d1
                    gx = (px - table[k2, 2] - s2 * table[k2, 5]) / d2 - ux / d1
                    steep = max(0.35, math.sqrt(gz * gz + gy * gy + gx * gx))
                    to_membrane = (f2 - f1) / steep * scale
                membrane[z, y, x] = to_membrane
                inside = (table[k1, 9] + s1 * table[k1, 10] - d1) * scale
                mitochondrion[z, y, x] = min(inside, to_membrane - 30.0)
                girth[z, y, x] = (table[k1, 7] + s1 * table[k1, 8]) * scale
                # place across the link, in a frame that turns as little as the link does
                tz, ty, tx = table[k1, 3], table[k1, 4], table[k1, 5]
                norm = math.sqrt(table[k1, 6])
                tz, ty, tx = tz * norm, ty * norm, tx * norm
                if abs(tz) < 0.7:
                    ez, ey, ex = 0.0, tx, -ty
                else:
                    ez, ey, ex = ty, -tz, 0.0
                size = math.sqrt(ez * ez + ey * ey + ex * ex)
                ez, ey, ex = ez / size, ey / size, ex / size
                across_a[z, y, x] = (uz * ez + uy * ey + ux * ex) * scale
                across_b[z, y, x] = (
                    uz * (ty * ex - tx * ey) + uy * (tx * ez - tz * ex) + ux * (tz * ey - ty * ez)
                ) * scale


@njit(cache=True, nogil=True)
def _longest(shift, box):  # type: ignore[no-untyped-def]
    """Length in nm of the longest shift in a box."""
    z0, y0, x0, z1, y1, x1 = box
    longest = 0.0
    for z in range(z0, z1):
        for y in range(y0, y1):
            for x in range(x0, x1):
                a, b, c = float(shift[0, z, y, x]), float(shift[1, z, y, x]), float(shift[2, z, y, x])
                longest = max(longest, a * a + b * b + c * c)
    return math.sqrt(longest) + 1e-6


@njit(cache=True, nogil=True, inline="always")
def _score(table, k, pz, py, px):  # type: ignore[no-untyped-def]
    """Score of link k (a cone with round ends) at a place, the distance it comes from, and where along the link."""
    wz, wy, wx = pz - table[k, 0], py - table[k, 1], px - table[k, 2]
    s = (wz * table[k, 3] + wy * table[k, 4] + wx * table[k, 5]) * table[k, 6]
    vz, vy, vx = wz - s * table[k, 3], wy - s * table[k, 4], wx - s * table[k, 5]
    s += math.sqrt(vz * vz + vy * vy + vx * vx) * table[k, 11]  # lean towards the wider end
    s = min(1.0, max(0.0, s))
    wz, wy, wx = wz - s * table[k, 3], wy - s * table[k, 4], wx - s * table[k, 5]
    distance = math.sqrt(wz * wz + wy * wy + wx * wx)
    return distance - table[k, 7] - s * table[k, 8], distance, s
