"""The skeletons of the sample's neurites: fibres that have made room for each other.

      grown          thick ones push     thin ones go         thin ones push      torn ones
      independently  each other      ->  round the thick  ->  each other      ->  are mended

Fibres of different families would run through each other. A fixed number of small steps moves them apart. A step looks
only as far as `reach` and moves by `move` nm at most, so a region made with a margin of that much per step is exact,
whatever region it was made for: a node that is in the smaller box afterwards has felt only nodes that are exact, too.

All lengths in nm of tissue of the reference calibre.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from neuroloom.volume.sample.fibres import (
    BRANCH_REACH,
    FRAMES,
    THICK_FAMILIES,
    THICK_RADIUS_MAX,
    THICK_STEP,
    THIN_RADIUS_MAX,
    THIN_STEP,
    dot,
    grow,
)
from neuroloom.volume.sample.mend import bins, cut_long_links, mend
from neuroloom.volume.sample.noise import key_of

Floats = NDArray[np.float64]

THICK_ROUNDS, THICK_REACH, THICK_MOVE = 4, 700.0, 60.0
THIN_ROUNDS, THIN_REACH, THIN_MOVE = 5, 215.0, 35.0
ASIDE = THICK_RADIUS_MAX + THIN_RADIUS_MAX  # how far a thin node is put aside by a thick one, at most
LINK_MAX = 240.0  # links longer than this are left out: they would join nodes that were pushed apart


class Skeletons(NamedTuple):
    """Nodes of all neurites near a box; each node is linked to the one before it.

    Attributes:
        position: `(n, 3)` nm, z y x.
        radius: `(n,)` nm; how far the neurite claims space round its node.
        mitochondrion: `(n,)` nm, radius of the mitochondrion at the node; negative where there is none.
        neurite: `(n,)` uint64, the neurite's id, unique over the unbounded volume, never 0.
        before: `(n,)` index of the node before, -1 at the beginning.
    """

    position: Floats
    radius: Floats
    mitochondrion: Floats
    neurite: NDArray[np.uint64]
    before: NDArray[np.int64]


def skeletons_near(seed: int, low: Floats, high: Floats) -> Skeletons:
    """All skeletons of which a link may touch a box.

    Args:
        seed: Names the tissue.
        low: `(3,)` nm, the box's lowest corner, z y x.
        high: `(3,)` nm, its highest.

    Returns:
        The nodes within `LINK_MAX` of the box; they and their links do not depend on the box.
    """
    margin = 2 * LINK_MAX + 2 * THIN_RADIUS_MAX  # a link, and those that a mended one feels
    low, high = low - margin, high + margin
    margin = THIN_ROUNDS * (THIN_REACH + 2 * THIN_MOVE)
    relaxed_low, relaxed_high = low - margin, high + margin
    margin = 2 * ASIDE + 3 * THIN_STEP
    thin_low, thin_high = relaxed_low - margin, relaxed_high + margin
    margin = ASIDE + 3 * THICK_STEP + THICK_ROUNDS * (THICK_REACH + THICK_MOVE)
    margin = max(margin, BRANCH_REACH)
    thick_low, thick_high = thin_low - margin, thin_high + margin

    key = key_of(seed, 1)
    position, radius, mitochondrion, neurite, before, after, thick_count = grow(
        key, FRAMES, THICK_FAMILIES, thick_low, thick_high, thin_low, thin_high
    )
    thick = np.arange(thick_count)
    for _ in range(THICK_ROUNDS):
        position = _push(position, radius, neurite, before, after, thick, THICK_REACH, THICK_MOVE)
    position = _put_aside(position, radius, neurite, before, after, thick_count)
    position, radius, mitochondrion, neurite, before, after = cut_long_links(
        position, radius, mitochondrion, neurite, before, after, thick_count, 150.0, 2 * ASIDE
    )
    thin = np.arange(thick_count, len(position))
    thin = thin[_inside(position[thin], relaxed_low, relaxed_high)]
    for round_number in range(1, THIN_ROUNDS + 1):
        position = _push(position, radius, neurite, before, after, thin, THIN_REACH, THIN_MOVE)
        position = _keep_out(position, radius, neurite, thin, thick_count, THIN_MOVE)
        shrink = round_number * (THIN_REACH + 2 * THIN_MOVE)
        thin = thin[_inside(position[thin], relaxed_low + shrink, relaxed_high - shrink)]
    thick = thick[_inside(position[thick], low - 2 * ASIDE, high + 2 * ASIDE)]
    kept = np.concatenate([thick, thin])
    renumber = np.full(len(position) + 1, -1, np.int64)
    renumber[kept] = np.arange(len(kept))
    nodes = (position[kept], radius[kept], mitochondrion[kept], neurite[kept])
    mended = mend(*nodes, renumber[before[kept]], renumber[after[kept]], len(thick), LINK_MAX)
    return Skeletons(*mended[:5])


def _inside(position: Floats, low: Floats, high: Floats) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = np.all((position >= low) & (position <= high), axis=1)
    return inside


@njit(cache=True, nogil=True)
def _tangent(out, position, before, after, n, longest):  # type: ignore[no-untyped-def]
    """Direction of a skeleton at node n from its neighbours in the same run; False where it has none."""
    b = before[n] if before[n] >= 0 and after[before[n]] == n else n
    a = after[n] if after[n] >= 0 else n
    if a == b:
        return False
    for c in range(3):
        out[c] = position[a, c] - position[b, c]
    length = math.sqrt(dot(out, out))
    if length < 1e-6 or length > 2 * longest:
        return False
    for c in range(3):
        out[c] /= length
    return True


@njit(cache=True, nogil=True)
def _push(position, radius, neurite, before, after, part, reach, move):  # type: ignore[no-untyped-def]
    """One step in which the nodes of `part` push nodes of other neurites away and straighten their own run.

    Two skeletons that cross are pushed along the common perpendicular, so that they pass each other.
    """
    out = position.copy()
    if len(part) == 0:
        return out
    lowest, extent, starts, nodes = bins(position, part, reach)
    own, other, u, force = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for k in range(len(part)):
        n = part[k]
        own_known = _tangent(own, position, before, after, n, reach)
        force[:] = 0.0
        weight = 0.0
        bz = math.floor(position[n, 0] / reach) - lowest[0]
        by = math.floor(position[n, 1] / reach) - lowest[1]
        bx = math.floor(position[n, 2] / reach) - lowest[2]
        for z in range(max(0, bz - 1), min(extent[0], bz + 2)):
            for y in range(max(0, by - 1), min(extent[1], by + 2)):
                for x in range(max(0, bx - 1), min(extent[2], bx + 2)):
                    flat = (z * extent[1] + y) * extent[2] + x
                    for s in range(starts[flat], starts[flat + 1]):
                        m = nodes[s]
                        if neurite[m] == neurite[n]:
                            continue
                        for c in range(3):
                            u[c] = position[n, c] - position[m, c]
                        rest = min(reach, 1.05 * (radius[n] + radius[m]))
                        distance = dot(u, u)
                        if distance >= rest * rest or distance < 1e-6:
                            continue
                        distance = math.sqrt(distance)
                        amount = (rest - distance) * radius[m] / (radius[n] + radius[m])
                        nz, ny, nx = u[0] / distance, u[1] / distance, u[2] / distance
                        if own_known and _tangent(other, position, before, after, m, reach):
                            cz = own[1] * other[2] - own[2] * other[1]
                            cy = own[2] * other[0] - own[0] * other[2]
                            cx = own[0] * other[1] - own[1] * other[0]
                            length = math.sqrt(cz * cz + cy * cy + cx * cx)
                            if length > 0.3:
                                if cz * u[0] + cy * u[1] + cx * u[2] < 0.0:
                                    length = -length
                                nz, ny, nx = cz / length, cy / length, cx / length
                        w = (rest - distance) / rest
                        force[0] += w * amount * nz
                        force[1] += w * amount * ny
                        force[2] += w * amount * nx
                        weight += w
        if weight > 0.0:
            for c in range(3):
                force[c] *= 1.5 / (weight + 0.2)
        b = before[n] if before[n] >= 0 and after[before[n]] == n else -1
        a = after[n]
        if a >= 0 and b >= 0:
            far = 0.0
            for c in range(3):
                far = max(far, abs(position[a, c] - position[n, c]), abs(position[b, c] - position[n, c]))
            if far < 0.57 * reach:  # neighbours beyond reach do not count
                for c in range(3):
                    force[c] += 0.2 * (0.5 * (position[a, c] + position[b, c]) - position[n, c])
        length = math.sqrt(dot(force, force))
        scale = move / length if length > move else 1.0
        for c in range(3):
            out[n, c] += force[c] * scale
    return out


@njit(cache=True, nogil=True)
def _put_aside(position, radius, neurite, before, after, thick_count):  # type: ignore[no-untyped-def]
    """Thin nodes that lie in a thick neurite are moved to its surface, all of one passage to the same side.

    before  ------(--x--)------          after   -----/--(     )--\\-----
    """
    out = position.copy()
    if thick_count == 0:
        return out
    size = THICK_RADIUS_MAX + THIN_RADIUS_MAX
    lowest, extent, starts, nodes = bins(position, np.arange(thick_count), size)
    own, other, u = np.empty(3), np.empty(3), np.empty(3)
    for n in range(thick_count, len(position)):
        best, deepest = -1, 0.0
        bz = math.floor(position[n, 0] / size) - lowest[0]
        by = math.floor(position[n, 1] / size) - lowest[1]
        bx = math.floor(position[n, 2] / size) - lowest[2]
        for z in range(max(0, bz - 1), min(extent[0], bz + 2)):
            for y in range(max(0, by - 1), min(extent[1], by + 2)):
                for x in range(max(0, bx - 1), min(extent[2], bx + 2)):
                    flat = (z * extent[1] + y) * extent[2] + x
                    for s in range(starts[flat], starts[flat + 1]):
                        m = nodes[s]
                        if neurite[m] == neurite[n]:
                            continue
                        for c in range(3):
                            u[c] = position[n, c] - position[m, c]
                        depth = radius[m] + radius[n] - math.sqrt(dot(u, u))
                        if depth > deepest:
                            best, deepest = m, depth
        if best < 0 or not _tangent(other, position, before, after, best, THICK_REACH):
            continue
        for c in range(3):
            u[c] = position[n, c] - position[best, c]
        along = min(THICK_STEP, max(-THICK_STEP, dot(u, other)))
        for c in range(3):
            u[c] -= along * other[c]
        target = radius[best] + radius[n]
        missing = target * target - dot(u, u)
        if missing <= 0.0:
            continue
        if _tangent(own, position, before, after, n, THIN_REACH):
            cz = own[1] * other[2] - own[2] * other[1]
            cy = own[2] * other[0] - own[0] * other[2]
            cx = own[0] * other[1] - own[1] * other[0]
            length = math.sqrt(cz * cz + cy * cy + cx * cx)
            if length > 0.35:
                side = (cz * u[0] + cy * u[1] + cx * u[2]) / length
                amount = math.sqrt(side * side + missing) - abs(side)
                if side < 0.0:
                    amount = -amount
                out[n, 0] += amount * cz / length
                out[n, 1] += amount * cy / length
                out[n, 2] += amount * cx / length
                continue
        length = math.sqrt(dot(u, u))
        if length > 1e-6:
            for c in range(3):
                out[n, c] += u[c] * (target / length - 1.0)
    return out


@njit(cache=True, nogil=True)
def _keep_out(position, radius, neurite, part, thick_count, move):  # type: ignore[no-untyped-def]
    """One step in which thin nodes are moved straight out of the thick neurite they are deepest in."""
    out = position.copy()
    if thick_count == 0 or len(part) == 0:
        return out
    size = THICK_RADIUS_MAX + THIN_RADIUS_MAX
    lowest, extent, starts, nodes = bins(position, np.arange(thick_count), size)
    for k in range(len(part)):
        n = part[k]
        best, deepest = -1, 0.0
        bz = math.floor(position[n, 0] / size) - lowest[0]
        by = math.floor(position[n, 1] / size) - lowest[1]
        bx = math.floor(position[n, 2] / size) - lowest[2]
        for z in range(max(0, bz - 1), min(extent[0], bz + 2)):
            for y in range(max(0, by - 1), min(extent[1], by + 2)):
                for x in range(max(0, bx - 1), min(extent[2], bx + 2)):
                    flat = (z * extent[1] + y) * extent[2] + x
                    for s in range(starts[flat], starts[flat + 1]):
                        m = nodes[s]
                        if neurite[m] == neurite[n]:
                            continue
                        dz = position[n, 0] - position[m, 0]
                        dy = position[n, 1] - position[m, 1]
                        dx = position[n, 2] - position[m, 2]
                        depth = radius[m] + 0.8 * radius[n] - math.sqrt(dz * dz + dy * dy + dx * dx)
                        if depth > deepest:
                            best, deepest = m, depth
        if best >= 0:
            distance = radius[best] + 0.8 * radius[n] - deepest
            if distance > 1e-6:
                amount = min(move, deepest) / distance
                for c in range(3):
                    out[n, c] += (position[n, c] - position[best, c]) * amount
    return out
