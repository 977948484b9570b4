"""The skeletons of the sample's neurites: endless wandering fibres in ten directions, with branches.

    lattice of one family, seen along its fibres      one fibre, from the side
      +-------+-------+-------+                          gap (one neurite ends, the next begins)
      | .     |     . |  .    |                        ~~~~~~~~~~~. .~~~~~~~~~~~~~~~~~~~~~~~
      +-------+-------+-------+                            \\              /
      |   .   | .     |     . |                             \\~~~ branch  /~~~~~~

A fibre is named by its family and lattice cell; a neurite by that and by the number of the piece between two gaps. All
is a function of (seed, name), so the fibres near any place are found by listing the lattice cells near it. Fibres of
different families would run through each other: thick ones push each other aside first, then the thin ones go round
the thick, then the thin ones push each other, in a fixed number of small steps. A step looks only as far as
`reach + step` nm, so a region made with a margin of that much per step is exact, whatever region it was made for.

All lengths in nm of tissue of the reference calibre.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from neuroloom.volume.sample_noise import curve_noise, hashed, uniform

Floats = NDArray[np.float64]

# Directions of the families: six axes of the icosahedron (thin) and four diagonals of the cube (thick), turned a little.
_GOLDEN = 1.618033988749895
_THIN_AXES = ((0, 1, _GOLDEN), (0, 1, -_GOLDEN), (1, _GOLDEN, 0), (1, -_GOLDEN, 0), (_GOLDEN, 0, 1), (_GOLDEN, 0, -1))
_THICK_AXES = ((1, 1, 1), (1, 1, -1), (1, -1, 1), (-1, 1, 1))
_TURN = ((0.36, 0.48, -0.8), (-0.8, 0.6, 0.0), (0.48, 0.64, 0.6))

THIN_SPACING, THICK_SPACING = 680.0, 1750.0  # between fibres of one family
THIN_STEP, THICK_STEP = 70.0, 100.0  # between nodes
THIN_WANDER, THICK_WANDER = 420.0, 600.0  # greatest sideways displacement, slow part
THIN_WAVE, THICK_WAVE = 800.0, 2000.0  # nm along the fibre between two displacements, slow part
RIPPLE, RIPPLE_WAVE = 110.0, 260.0  # fast part
PIECE = 9000.0  # mean length of a neurite along its fibre
GAP = 60.0  # half of the gap between two neurites of one fibre
THIN_RADIUS_MAX, THICK_RADIUS_MAX = 115.0, 330.0
BRANCH_STEPS_MAX = 32
BRANCH_REACH = BRANCH_STEPS_MAX * THIN_STEP + 500.0
NO_MITOCHONDRION = -300.0

THICK_ROUNDS, THICK_REACH, THICK_MOVE = 4, 700.0, 60.0
THIN_ROUNDS, THIN_REACH, THIN_MOVE = 5, 215.0, 35.0
ASIDE = THICK_RADIUS_MAX + THIN_RADIUS_MAX  # how far a thin node is put aside by a thick one, at most
LINK_MAX = 500.0  # links longer than this are left out: they would join nodes that were pushed apart


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
    low, high = low - LINK_MAX, high + LINK_MAX
    margin = THIN_ROUNDS * (THIN_REACH + THIN_MOVE)
    relaxed_low, relaxed_high = low - margin, high + margin
    margin = ASIDE + 3 * THIN_STEP
    thin_low, thin_high = relaxed_low - margin, relaxed_high + margin
    margin = THICK_RADIUS_MAX + THIN_RADIUS_MAX + THICK_STEP + THICK_ROUNDS * (THICK_REACH + THICK_MOVE)
    margin = max(margin, BRANCH_REACH)
    thick_low, thick_high = thin_low - margin, thin_high + margin

    key = hashed(np.uint64(seed), 1, 0, 0)
    position, radius, mitochondrion, neurite, before, after, thick_count = _grow(
        key, _FRAMES, len(_THICK_AXES), thick_low, thick_high, thin_low, thin_high
    )
    thick = np.arange(thick_count)
    for _ in range(THICK_ROUNDS):
        position = _push(position, radius, neurite, before, after, thick, THICK_REACH, THICK_MOVE)
    position = _put_aside(position, radius, neurite, before, after, thick_count)
    thin = np.arange(thick_count, len(position))
    thin = thin[np.all((position[thin] >= relaxed_low) & (position[thin] <= relaxed_high), axis=1)]
    for round_number in range(1, THIN_ROUNDS + 1):
        position = _push(position, radius, neurite, before, after, thin, THIN_REACH, THIN_MOVE)
        position = _keep_out(position, radius, neurite, thin, thick_count, THIN_MOVE)
        shrink = round_number * (THIN_REACH + 2 * THIN_MOVE)
        exact = (position[thin] >= relaxed_low + shrink) & (position[thin] <= relaxed_high - shrink)
        thin = thin[np.all(exact, axis=1)]
    kept = np.flatnonzero(np.all((position[:thick_count] >= low) & (position[:thick_count] <= high), axis=1))
    kept = np.concatenate([kept, thin])
    renumber = np.full(len(position) + 1, -1, np.int64)
    renumber[kept] = np.arange(len(kept))
    return Skeletons(position[kept], radius[kept], mitochondrion[kept], neurite[kept], renumber[before[kept]])


def _frame(axis: tuple[float, float, float]) -> list[list[float]]:
    """A fibre's direction and two directions across it, turned away from the volume's axes; by plain arithmetic."""
    turned = [sum(row[i] * axis[i] for i in range(3)) for row in _TURN]
    along = _unit(turned)
    helper = [1.0, 0.0, 0.0] if abs(along[0]) < 0.6 else [0.0, 1.0, 0.0]
    across = _unit(_cross(along, helper))
    return [along, across, _cross(along, across)]


def _unit(v: list[float]) -> list[float]:
    length = math.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])
    return [c / length for c in v]


def _cross(a: list[float], b: list[float]) -> list[float]:
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]


_FRAMES: Floats = np.array([_frame(axis) for axis in (*_THICK_AXES, *_THIN_AXES)])


@njit(cache=True, nogil=True, inline="always")
def _dot(v, w):  # type: ignore[no-untyped-def]
    return v[0] * w[0] + v[1] * w[1] + v[2] * w[2]


@njit(cache=True, nogil=True)
def _within(p, low, high):  # type: ignore[no-untyped-def]
    return (
        low[0] <= p[0] <= high[0] and low[1] <= p[1] <= high[1] and low[2] <= p[2] <= high[2]
    )


@njit(cache=True, nogil=True)
def _place_on_fibre(p, frame, line, i, j, n, thick):  # type: ignore[no-untyped-def]
    """Position of node n of the fibre in lattice cell (i, j), before anything is pushed."""
    spacing = THICK_SPACING if thick else THIN_SPACING
    step = THICK_STEP if thick else THIN_STEP
    wander = THICK_WANDER if thick else THIN_WANDER
    wave = THICK_WAVE if thick else THIN_WAVE
    t = n * step
    fast = RIPPLE_WAVE * (3.0 if thick else 1.0)
    a = (i + uniform(hashed(line, 1, 0, 0))) * spacing
    b = (j + uniform(hashed(line, 2, 0, 0))) * spacing
    a += wander * curve_noise(line, 3, t / wave) + RIPPLE * curve_noise(line, 5, t / fast)
    b += wander * curve_noise(line, 4, t / wave) + RIPPLE * curve_noise(line, 6, t / fast)
    for c in range(3):
        p[c] = frame[0, c] * t + frame[1, c] * a + frame[2, c] * b


@njit(cache=True, nogil=True)
def _piece_of(line, t):  # type: ignore[no-untyped-def]
    """Number of the neurite at t along its fibre, and the distance in nm to the nearest gap."""
    q = int(math.floor(t / PIECE))
    end = (q + 0.2 + 0.6 * uniform(hashed(line, 7, q, 0))) * PIECE
    if t < end:
        other = (q - 0.8 + 0.6 * uniform(hashed(line, 7, q - 1, 0))) * PIECE
        return q, min(end - t, t - other)
    other = (q + 1.2 + 0.6 * uniform(hashed(line, 7, q + 1, 0))) * PIECE
    return q + 1, min(t - end, other - t)


@njit(cache=True, nogil=True)
def _girth(line, t, thick):  # type: ignore[no-untyped-def]
    """Radius of a fibre at t, and of its mitochondrion there (negative where there is none)."""
    u = uniform(hashed(line, 8, 0, 0))
    swell = curve_noise(line, 9, t / 500.0)
    if thick:
        radius = (170.0 + 120.0 * u * u) * (1.0 + 0.25 * curve_noise(line, 10, t / 900.0) + 0.1 * swell)
        radius = min(radius, THICK_RADIUS_MAX)
    else:
        radius = min((45.0 + 50.0 * u * u) * (1.0 + 0.35 * swell), THIN_RADIUS_MAX)
    period = 2300.0 if thick else 4200.0
    slot = int(math.floor(t / period))
    key = hashed(line, 11, slot, 0)
    mitochondrion = NO_MITOCHONDRION
    if uniform(hashed(key, 0, 0, 0)) < (0.8 if thick else 0.45):
        half = period * (0.12 + 0.3 * uniform(hashed(key, 1, 0, 0)) * (1.0 if thick else 0.4))
        centre = (slot + 0.5 + 0.08 * (2.0 * uniform(hashed(key, 2, 0, 0)) - 1.0)) * period
        x = (t - centre) / half
        if -1.0 < x < 1.0:
            round_off = 1.0 - x * x * x * x
            if not thick:
                radius = min(radius + 55.0 * round_off, THIN_RADIUS_MAX)
            mitochondrion = radius * round_off * (0.55 + 0.3 * uniform(hashed(key, 3, 0, 0)))
    return radius, mitochondrion


@njit(cache=True, nogil=True)
def _name(family, i, j, piece):  # type: ignore[no-untyped-def]
    """The neurite's id: family + 1 (5 bits), lattice cell (22 + 22 bits), piece (15 bits)."""
    low22 = np.uint64(0x3FFFFF)
    bits = np.uint64(family + 1) << np.uint64(59)
    bits |= (np.uint64(i + 2097152) & low22) << np.uint64(37)
    bits |= (np.uint64(j + 2097152) & low22) << np.uint64(15)
    return bits | (np.uint64(piece + 16384) & np.uint64(0x7FFF))


@njit(cache=True, nogil=True)
def _clip_fibre(frame, a, b, slack, low, high):  # type: ignore[no-untyped-def]
    """Where the straight line at (a, b) enters and leaves the box grown by slack; first > last if it misses."""
    first, last = -1e300, 1e300
    for c in range(3):
        at = frame[1, c] * a + frame[2, c] * b
        direction = frame[0, c]
        one, two = low[c] - slack - at, high[c] + slack - at
        if abs(direction) < 1e-9:
            if one > 0 or two < 0:
                return 1.0, 0.0
            continue
        one, two = one / direction, two / direction
        first = max(first, min(one, two))
        last = min(last, max(one, two))
    return first, last


@njit(cache=True, nogil=True)
def _grow(key, frames, thick_families, thick_low, thick_high, thin_low, thin_high):  # type: ignore[no-untyped-def]
    """Nodes of all fibres in their boxes, thick ones first, in an order that does not depend on the boxes."""
    position = np.empty((1024, 3), np.float64)
    radius = np.empty(1024, np.float64)
    mitochondrion = np.empty(1024, np.float64)
    neurite = np.empty(1024, np.uint64)
    before = np.empty(1024, np.int64)
    after = np.empty(1024, np.int64)
    roots = np.empty((256, 6), np.int64)  # family, i, j, node, index of the thick node, piece
    root_count = 0
    count = 0
    thick_count = 0
    p = np.empty(3, np.float64)
    for family in range(frames.shape[0]):
        thick = family < thick_families
        frame = frames[family]
        step = THICK_STEP if thick else THIN_STEP
        spacing = THICK_SPACING if thick else THIN_SPACING
        slack = (THICK_WANDER if thick else THIN_WANDER) + RIPPLE
        slack *= 1.4143  # both sideways directions at once
        low = thick_low if thick else thin_low - BRANCH_REACH
        high = thick_high if thick else thin_high + BRANCH_REACH
        if family == thick_families:  # twigs of the thick fibres, after all thick nodes
            thick_count = count
            for r in range(root_count):
                if count + BRANCH_STEPS_MAX > len(radius):
                    position, radius, mitochondrion, neurite, before, after = _room(
                        position, radius, mitochondrion, neurite, before, after
                    )
                f, i, j, n = roots[r, 0], roots[r, 1], roots[r, 2], roots[r, 3]
                line = hashed(hashed(key, f, 0, 0), i, j, 0)
                count = _branch(
                    line, frames[f], i, j, n, True, neurite[roots[r, 4]], roots[r, 4], thin_low, thin_high,
                    count, position, radius, mitochondrion, neurite, before, after,
                )
        range_a_low, range_a_high, range_b_low, range_b_high = 0.0, 0.0, 0.0, 0.0
        for c in range(3):
            for axis in range(1, 3):
                one, two = frame[axis, c] * (low[c] - slack), frame[axis, c] * (high[c] + slack)
                if axis == 1:
                    range_a_low += min(one, two)
                    range_a_high += max(one, two)
                else:
                    range_b_low += min(one, two)
                    range_b_high += max(one, two)
        for i in range(int(math.floor(range_a_low / spacing)) - 1, int(math.floor(range_a_high / spacing)) + 2):
            for j in range(int(math.floor(range_b_low / spacing)) - 1, int(math.floor(range_b_high / spacing)) + 2):
                line = hashed(hashed(key, family, 0, 0), i, j, 0)
                a = (i + uniform(hashed(line, 1, 0, 0))) * spacing
                b = (j + uniform(hashed(line, 2, 0, 0))) * spacing
                first, last = _clip_fibre(frame, a, b, slack, low, high)
                if first > last:
                    continue
                previous = -1
                for n in range(int(math.floor(first / step)) - 1, int(math.floor(last / step)) + 3):
                    piece, to_gap = _piece_of(line, n * step)
                    if to_gap < GAP:
                        previous = -1
                        continue
                    has_root = _has_root(line, n, thick) and to_gap > 3 * GAP
                    _place_on_fibre(p, frame, line, i, j, n, thick)
                    if _within(p, thick_low, thick_high) if thick else _within(p, thin_low, thin_high):
                        if count + BRANCH_STEPS_MAX > len(radius):
                            position, radius, mitochondrion, neurite, before, after = _room(
                                position, radius, mitochondrion, neurite, before, after
                            )
                        position[count] = p
                        radius[count], mitochondrion[count] = _girth(line, n * step, thick)
                        neurite[count] = _name(family, i, j, piece)
                        before[count] = previous
                        after[count] = -1
                        if previous >= 0:
                            after[previous] = count
                        previous = count
                        count += 1
                    else:
                        previous = -1
                    if not has_root:
                        continue
                    if thick:
                        if previous >= 0 and _within(p, thin_low - BRANCH_REACH, thin_high + BRANCH_REACH):
                            if root_count == len(roots):
                                more = np.empty((2 * len(roots), 6), np.int64)
                                more[:root_count] = roots
                                roots = more
                            roots[root_count, 0], roots[root_count, 1] = family, i
                            roots[root_count, 2], roots[root_count, 3] = j, n
                            roots[root_count, 4] = previous
                            root_count += 1
                    elif _within(p, low, high):
                        if count + BRANCH_STEPS_MAX > len(radius):
                            position, radius, mitochondrion, neurite, before, after = _room(
                                position, radius, mitochondrion, neurite, before, after
                            )
                        trunk = previous
                        count = _branch(
                            line, frame, i, j, n, False, _name(family, i, j, piece), trunk, thin_low, thin_high,
                            count, position, radius, mitochondrion, neurite, before, after,
                        )
    return position[:count], radius[:count], mitochondrion[:count], neurite[:count], before[:count], after[:count], thick_count


@njit(cache=True, nogil=True)
def _room(position, radius, mitochondrion, neurite, before, after):  # type: ignore[no-untyped-def]
    """The same arrays with twice the room."""
    n = len(radius)
    wide = np.empty((2 * n, 3), np.float64)
    wide[:n] = position
    return (
        wide,
        np.concatenate((radius, radius)),
        np.concatenate((mitochondrion, mitochondrion)),
        np.concatenate((neurite, neurite)),
        np.concatenate((before, before)),
        np.concatenate((after, after)),
    )


@njit(cache=True, nogil=True)
def _has_root(line, n, thick):  # type: ignore[no-untyped-def]
    """Does a branch leave at node n? At most one in every so many nodes."""
    every = 5 if thick else 22
    slot = int(math.floor(n / every))
    key = hashed(line, 12, slot, 0)
    if uniform(hashed(key, 0, 0, 0)) > (0.75 if thick else 0.8):
        return False
    return n - slot * every == int(uniform(hashed(key, 1, 0, 0)) * every)


@njit(cache=True, nogil=True)
def _branch(line, frame, i, j, n, thick, name, trunk, low, high, count, position, radius, mitochondrion, neurite, before, after):  # type: ignore[no-untyped-def]
    """Nodes of the branch that leaves a fibre at node n, as far as they lie in the box."""
    key = hashed(line, 13, n, 0)
    root = np.empty(3, np.float64)
    _place_on_fibre(root, frame, line, i, j, n, thick)
    d = np.empty(3, np.float64)
    for c in range(3):
        d[c] = 2.0 * uniform(hashed(key, 1, c, 0)) - 1.0
    along = _dot(d, frame[0])
    for c in range(3):
        d[c] -= 0.7 * along * frame[0, c]  # rather away from the trunk than beside it
    length = math.sqrt(_dot(d, d))
    if length < 0.05:
        return count
    u = uniform(hashed(key, 2, 0, 0))
    nodes = 8 + int(u * (BRANCH_STEPS_MAX - 8))
    base = 36.0 + 34.0 * uniform(hashed(key, 3, 0, 0))
    previous = trunk
    for m in range(nodes):
        t = (m + 1) * THIN_STEP
        for c in range(3):
            bend = 260.0 * (curve_noise(key, 20 + c, t / 620.0) - curve_noise(key, 20 + c, 0.0))
            bend += 70.0 * (curve_noise(key, 30 + c, t / RIPPLE_WAVE) - curve_noise(key, 30 + c, 0.0))
            position[count, c] = root[c] + d[c] / length * t + bend * min(1.0, t / 400.0)
        if not _within(position[count], low, high):
            previous = -1
            continue
        radius[count] = min(base * (1.0 + 0.5 * curve_noise(key, 40, t / 350.0)), THIN_RADIUS_MAX)
        mitochondrion[count] = NO_MITOCHONDRION
        neurite[count] = name
        before[count] = previous
        after[count] = -1
        if previous >= 0 and previous != trunk:
            after[previous] = count
        previous = count
        count += 1
    return count


@njit(cache=True, nogil=True)
def _bins(position, part, size):  # type: ignore[no-untyped-def]
    """Nodes sorted into cubic bins of an absolute lattice: lowest bin, bins per axis, first of each bin, nodes."""
    lowest = np.zeros(3, np.int64)
    highest = np.zeros(3, np.int64)
    for k in range(len(part)):
        for c in range(3):
            b = int(math.floor(position[part[k], c] / size))
            if k == 0 or b < lowest[c]:
                lowest[c] = b
            if k == 0 or b > highest[c]:
                highest[c] = b
    extent = highest - lowest + 1
    starts = np.zeros(extent[0] * extent[1] * extent[2] + 1, np.int64)
    where = np.empty(len(part), np.int64)
    for k in range(len(part)):
        flat = 0
        for c in range(3):
            flat = flat * extent[c] + int(math.floor(position[part[k], c] / size)) - lowest[c]
        where[k] = flat
        starts[flat + 1] += 1
    for b in range(len(starts) - 1):
        starts[b + 1] += starts[b]
    cursor = starts.copy()
    nodes = np.empty(len(part), np.int64)
    for k in range(len(part)):
        nodes[cursor[where[k]]] = part[k]
        cursor[where[k]] += 1
    return lowest, extent, starts, nodes


@njit(cache=True, nogil=True)
def _tangent(out, position, before, after, n, longest):  # type: ignore[no-untyped-def]
    """Direction of a skeleton at node n from its neighbours in the same run; False where it has none."""
    b = before[n] if before[n] >= 0 and after[before[n]] == n else n
    a = after[n] if after[n] >= 0 else n
    if a == b:
        return False
    for c in range(3):
        out[c] = position[a, c] - position[b, c]
    length = math.sqrt(_dot(out, out))
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
    lowest, extent, starts, nodes = _bins(position, part, reach)
    own, other, u, force = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for k in range(len(part)):
        n = part[k]
        own_known = _tangent(own, position, before, after, n, reach)
        force[:] = 0.0
        weight = 0.0
        bz = int(math.floor(position[n, 0] / reach)) - lowest[0]
        by = int(math.floor(position[n, 1] / reach)) - lowest[1]
        bx = int(math.floor(position[n, 2] / reach)) - lowest[2]
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
                        distance = _dot(u, u)
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
        length = math.sqrt(_dot(force, force))
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
    lowest, extent, starts, nodes = _bins(position, np.arange(thick_count), size)
    own, other, u = np.empty(3), np.empty(3), np.empty(3)
    for n in range(thick_count, len(position)):
        best, deepest = -1, 0.0
        bz = int(math.floor(position[n, 0] / size)) - lowest[0]
        by = int(math.floor(position[n, 1] / size)) - lowest[1]
        bx = int(math.floor(position[n, 2] / size)) - lowest[2]
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
                        depth = radius[m] + radius[n] - math.sqrt(_dot(u, u))
                        if depth > deepest:
                            best, deepest = m, depth
        if best < 0 or not _tangent(other, position, before, after, best, THICK_REACH):
            continue
        for c in range(3):
            u[c] = position[n, c] - position[best, c]
        along = min(THICK_STEP, max(-THICK_STEP, _dot(u, other)))
        for c in range(3):
            u[c] -= along * other[c]
        target = radius[best] + radius[n]
        missing = target * target - _dot(u, u)
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
        length = math.sqrt(_dot(u, u))
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
    lowest, extent, starts, nodes = _bins(position, np.arange(thick_count), size)
    for k in range(len(part)):
        n = part[k]
        best, deepest = -1, 0.0
        bz = int(math.floor(position[n, 0] / size)) - lowest[0]
        by = int(math.floor(position[n, 1] / size)) - lowest[1]
        bx = int(math.floor(position[n, 2] / size)) - lowest[2]
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
