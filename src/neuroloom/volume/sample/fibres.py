"""The fibres of the sample's neurites before any of them gives way to another: endless, wandering, branching.

    lattice of one family, seen along its fibres      one fibre, from the side
      +-------+-------+-------+                          gap (one neurite ends, the next begins)
      | .     |     . |  .    |                        ~~~~~~~~~~~. .~~~~~~~~~~~~~~~~~~~~~~~
      +-------+-------+-------+                            \\              /
      |   .   | .     |     . |                             \\~~~ branch  /~~~~~~

A fibre is named by its family (ten directions) and lattice cell; a neurite by that and by the number of the piece
between two gaps. All is a function of (seed, name): the fibres near any place are found by listing the lattice cells
near it.

All lengths in nm of tissue of the reference calibre.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from neuroloom.volume.sample.noise import curve_noise, hashed, uniform

Floats = NDArray[np.float64]

# Directions of the families: six axes of the icosahedron (thin), four diagonals of the cube (thick), turned a little.
_GOLDEN = 1.618033988749895
_THIN_AXES = ((0, 1, _GOLDEN), (0, 1, -_GOLDEN), (1, _GOLDEN, 0), (1, -_GOLDEN, 0), (_GOLDEN, 0, 1), (_GOLDEN, 0, -1))
_THICK_AXES = ((1, 1, 1), (1, 1, -1), (1, -1, 1), (-1, 1, 1))
_TURN = ((0.36, 0.48, -0.8), (-0.8, 0.6, 0.0), (0.48, 0.64, 0.6))

THIN_SPACING, THICK_SPACING = 660.0, 1500.0  # between fibres of one family
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


THICK_FAMILIES = len(_THICK_AXES)
FRAMES: Floats = np.array([_frame(axis) for axis in (*_THICK_AXES, *_THIN_AXES)])


@njit(cache=True, nogil=True, inline="always")
def dot(v, w):  # type: ignore[no-untyped-def]
    return v[0] * w[0] + v[1] * w[1] + v[2] * w[2]


@njit(cache=True, nogil=True)
def _within(p, low, high):  # type: ignore[no-untyped-def]
    return low[0] <= p[0] <= high[0] and low[1] <= p[1] <= high[1] and low[2] <= p[2] <= high[2]


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
    q = math.floor(t / PIECE)
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
    slot = math.floor(t / period)
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
            mitochondrion = radius * round_off * (0.65 + 0.35 * uniform(hashed(key, 3, 0, 0)))
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
def grow(key, frames, thick_families, thick_low, thick_high, thin_low, thin_high):  # type: ignore[no-untyped-def]
    """Nodes of all fibres in their boxes, thick ones first, in an order that does not depend on the boxes.

    Returns position, radius, mitochondrion, neurite and before as in `Skeletons`; after, the next node of the same run
    or -1 (a branch is a run of its own); and the number of thick nodes.
    """
    nodes = (
        np.empty((1024, 3), np.float64),
        np.empty(1024, np.float64),
        np.empty(1024, np.float64),
        np.empty(1024, np.uint64),
        np.empty(1024, np.int64),
        np.empty(1024, np.int64),
    )
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
                if count + BRANCH_STEPS_MAX > len(nodes[1]):
                    nodes = _room(nodes)
                f, i, j, n = roots[r, 0], roots[r, 1], roots[r, 2], roots[r, 3]
                line = hashed(hashed(key, f, 0, 0), i, j, 0)
                count = _branch(
                    line,
                    frames[f],
                    i,
                    j,
                    n,
                    True,
                    nodes[3][roots[r, 4]],
                    roots[r, 4],
                    thin_low,
                    thin_high,
                    count,
                    nodes,
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
        for i in range(math.floor(range_a_low / spacing) - 1, math.floor(range_a_high / spacing) + 2):
            for j in range(math.floor(range_b_low / spacing) - 1, math.floor(range_b_high / spacing) + 2):
                line = hashed(hashed(key, family, 0, 0), i, j, 0)
                a = (i + uniform(hashed(line, 1, 0, 0))) * spacing
                b = (j + uniform(hashed(line, 2, 0, 0))) * spacing
                first, last = _clip_fibre(frame, a, b, slack, low, high)
                if first > last:
                    continue
                previous = -1
                for n in range(math.floor(first / step) - 1, math.floor(last / step) + 3):
                    piece, to_gap = _piece_of(line, n * step)
                    if to_gap < GAP:
                        previous = -1
                        continue
                    has_root = _has_root(line, n, thick) and to_gap > 3 * GAP
                    _place_on_fibre(p, frame, line, i, j, n, thick)
                    if _within(p, thick_low, thick_high) if thick else _within(p, thin_low, thin_high):
                        if count + BRANCH_STEPS_MAX > len(nodes[1]):
                            nodes = _room(nodes)
                        position, radius, mitochondrion, neurite, before, after = nodes
                        for c in range(3):
                            position[count, c] = p[c]
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
                                roots = more_rows(roots, 2 * len(roots))
                            roots[root_count, 0], roots[root_count, 1] = family, i
                            roots[root_count, 2], roots[root_count, 3] = j, n
                            roots[root_count, 4] = previous
                            root_count += 1
                    elif _within(p, low, high):
                        if count + BRANCH_STEPS_MAX > len(nodes[1]):
                            nodes = _room(nodes)
                        trunk = previous
                        count = _branch(
                            line,
                            frame,
                            i,
                            j,
                            n,
                            False,
                            _name(family, i, j, piece),
                            trunk,
                            thin_low,
                            thin_high,
                            count,
                            nodes,
                        )
    position, radius, mitochondrion, neurite, before, after = nodes
    return (
        position[:count],
        radius[:count],
        mitochondrion[:count],
        neurite[:count],
        before[:count],
        after[:count],
        thick_count,
    )


@njit(cache=True, nogil=True)
def _room(nodes):  # type: ignore[no-untyped-def]
    """The same arrays with twice the room."""
    position, radius, mitochondrion, neurite, before, after = nodes
    n = 2 * len(radius)
    return (
        more_rows(position, n),
        longer(radius, n),
        longer(mitochondrion, n),
        longer(neurite, n),
        longer(before, n),
        longer(after, n),
    )


@njit(cache=True, nogil=True)
def longer(values, length):  # type: ignore[no-untyped-def]
    """The values in an array of more length, the rest of it unset. One by one: a slice takes seconds to compile."""
    more = np.empty(length, values.dtype)
    for n in range(len(values)):
        more[n] = values[n]
    return more


@njit(cache=True, nogil=True)
def more_rows(values, rows):  # type: ignore[no-untyped-def]
    """As `longer`, for an array of rows."""
    more = np.empty((rows, values.shape[1]), values.dtype)
    for n in range(values.shape[0]):
        for c in range(values.shape[1]):
            more[n, c] = values[n, c]
    return more


@njit(cache=True, nogil=True)
def _has_root(line, n, thick):  # type: ignore[no-untyped-def]
    """Does a branch leave at node n? At most one in every so many nodes."""
    every = 4 if thick else 20
    slot = math.floor(n / every)
    key = hashed(line, 12, slot, 0)
    if uniform(hashed(key, 0, 0, 0)) > 0.85:
        return False
    return n - slot * every == int(uniform(hashed(key, 1, 0, 0)) * every)


@njit(cache=True, nogil=True)
def _branch(line, frame, i, j, n, thick, name, trunk, low, high, count, nodes):  # type: ignore[no-untyped-def]
    """Add the nodes, as far as in the box, of the branch that leaves a fibre at node n; returns the new count."""
    position, radius, mitochondrion, neurite, before, after = nodes
    key = hashed(line, 13, n, 0)
    root = np.empty(3, np.float64)
    _place_on_fibre(root, frame, line, i, j, n, thick)
    d = np.empty(3, np.float64)
    for c in range(3):
        d[c] = 2.0 * uniform(hashed(key, 1, c, 0)) - 1.0
    along = dot(d, frame[0])
    for c in range(3):
        d[c] -= 0.7 * along * frame[0, c]  # rather away from the trunk than beside it
    length = math.sqrt(dot(d, d))
    if length < 0.05:
        return count
    u = uniform(hashed(key, 2, 0, 0))
    nodes = 6 + int(u * (BRANCH_STEPS_MAX - 6))
    base = 32.0 + 34.0 * uniform(hashed(key, 3, 0, 0))
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
