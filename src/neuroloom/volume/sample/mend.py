"""Joining what would be torn: long links get more nodes, and a neurite that runs through another gets room there.

A neurite owns a point p of its own skeleton where, for all points c of other skeletons,

    radius(p)  >  radius(c) - |p - c|

Where it is not larger by `CLEARANCE` (or by |p - c|, where that is less), it is raised until it is: a fold in the side
of the other neurite. By the triangle inequality a raised radius takes no point of a third one that was clear before.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from neuroloom.volume.sample.fibres import THICK_RADIUS_MAX, THIN_RADIUS_MAX, longer, more_rows

CLEARANCE = 36.0  # nm; half of it is left between the skeleton and the membrane
RAISED_MAX = 2.0 * THIN_RADIUS_MAX  # nm; no radius is raised beyond
SAMPLE_STEP = 26.0  # nm between the points of a link that are looked at


@njit(cache=True, nogil=True)
def bins(position, part, size):  # type: ignore[no-untyped-def]
    """Nodes sorted into cubic bins of an absolute lattice: lowest bin, bins per axis, first of each bin, nodes."""
    lowest = np.zeros(3, np.int64)
    highest = np.zeros(3, np.int64)
    for k in range(len(part)):
        for c in range(3):
            b = math.floor(position[part[k], c] / size)
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
            flat = flat * extent[c] + math.floor(position[part[k], c] / size) - lowest[c]
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
def subdivide(position, radius, mitochondrion, neurite, before, after, pieces):  # type: ignore[no-untyped-def]
    """Put nodes on links.

    Args:
        position: `(n, 3)` nm.
        radius: `(n,)` nm.
        mitochondrion: `(n,)` nm.
        neurite: `(n,)` uint64.
        before: `(n,)` the node before, or -1.
        after: `(n,)` the next node of the same run, or -1.
        pieces: `(n,)` into how many parts the link that ends at a node is cut; 0 or 1 for none.

    Returns:
        The six arrays with the new nodes at their ends.
    """
    n = len(radius)
    total = n
    for k in range(n):
        total += max(0, pieces[k] - 1)
    position2, radius2, mitochondrion2 = more_rows(position, total), longer(radius, total), longer(mitochondrion, total)
    neurite2, before2, after2 = longer(neurite, total), longer(before, total), longer(after, total)
    cursor = n
    for k in range(n):
        if pieces[k] < 2:
            continue
        b = before[k]
        same_run = after[b] == k
        for part in range(1, pieces[k]):
            s = part / pieces[k]
            for c in range(3):
                position2[cursor, c] = position[b, c] + s * (position[k, c] - position[b, c])
            radius2[cursor] = radius[b] + s * (radius[k] - radius[b]) if same_run else radius[k]
            mitochondrion2[cursor] = mitochondrion[b] + s * (mitochondrion[k] - mitochondrion[b])
            neurite2[cursor] = neurite[k]
            if part == 1:
                before2[cursor] = b
                if same_run:
                    after2[b] = cursor
            else:
                before2[cursor] = cursor - 1
                after2[cursor - 1] = cursor
            cursor += 1
        before2[k] = cursor - 1
        after2[cursor - 1] = k
    return position2, radius2, mitochondrion2, neurite2, before2, after2


def cut_long_links(  # type: ignore[no-untyped-def]
    position, radius, mitochondrion, neurite, before, after, first_thin: int, longer_than: float, longest: float
):
    """Put a node every 100 nm or so on the links that end at a thin node and are longer than a limit."""
    step = position - position[before]
    length = np.sqrt(step[:, 0] * step[:, 0] + step[:, 1] * step[:, 1] + step[:, 2] * step[:, 2])
    long = (before >= 0) & (length > longer_than) & (length <= longest) & (np.arange(len(before)) >= first_thin)
    pieces = np.where(long, np.ceil(length / 100.0), 0).astype(np.int64)
    return subdivide(position, radius, mitochondrion, neurite, before, after, pieces)


@njit(cache=True, nogil=True)
def _needed(tree, position, radius, neurite, p, own, size, least):  # type: ignore[no-untyped-def]
    """The radius that a skeleton needs at a place to be clear of the nodes of other neurites, and at least `least`."""
    lowest, extent, starts, nodes = tree
    bz = math.floor(p[0] / size) - lowest[0]
    by = math.floor(p[1] / size) - lowest[1]
    bx = math.floor(p[2] / size) - lowest[2]
    for z in range(max(0, bz - 1), min(extent[0], bz + 2)):
        for y in range(max(0, by - 1), min(extent[1], by + 2)):
            for x in range(max(0, bx - 1), min(extent[2], bx + 2)):
                flat = (z * extent[1] + y) * extent[2] + x
                for s in range(starts[flat], starts[flat + 1]):
                    m = nodes[s]
                    if neurite[m] == own:
                        continue
                    dz, dy, dx = position[m, 0] - p[0], position[m, 1] - p[1], position[m, 2] - p[2]
                    squared = dz * dz + dy * dy + dx * dx
                    room = radius[m] + CLEARANCE - least  # only nearer than this does it ask for more
                    if room > 0.0 and squared < room * room:
                        distance = math.sqrt(squared)
                        least = max(least, radius[m] - distance + min(CLEARANCE, distance))
    return least


@njit(cache=True, nogil=True)
def radii_needed(position, radius, neurite, before, first_thin, longest, points, own):  # type: ignore[no-untyped-def]
    """The radii that skeletons need at places to be clear of neurites other than their own.

    Args:
        position: `(n, 3)` nm, the nodes of the skeletons.
        radius: `(n,)` nm.
        neurite: `(n,)` uint64.
        before: `(n,)` the node before, or -1.
        first_thin: Number of thick nodes; they come first.
        longest: nm; longer links count only with their ends.
        points: `(m, 3)` nm, the places.
        own: `(m,)` uint64, the neurite of each.

    Returns:
        `(m,)` nm; 0 where there is no other near.
    """
    n = len(radius)
    parts = np.ones(n, np.int64)
    total = 0
    for k in range(n):
        b = before[k]
        if b >= 0:
            dz, dy, dx = (
                position[k, 0] - position[b, 0],
                position[k, 1] - position[b, 1],
                position[k, 2] - position[b, 2],
            )
            length = math.sqrt(dz * dz + dy * dy + dx * dx)
            if length <= longest:
                parts[k] = max(1, math.ceil(length / SAMPLE_STEP))
        total += parts[k]
    place, size, name = np.empty((total, 3), np.float64), np.empty(total, np.float64), np.empty(total, np.uint64)
    cursor, thick_samples = 0, 0
    for k in range(n):
        if k == first_thin:
            thick_samples = cursor
        for part in range(parts[k]):
            s = part / parts[k]
            b = before[k] if s > 0.0 else k
            for c in range(3):
                place[cursor, c] = position[k, c] + s * (position[b, c] - position[k, c])
            size[cursor] = radius[k] + s * (radius[b] - radius[k])
            name[cursor] = neurite[k]
            cursor += 1
    if first_thin >= n:
        thick_samples = cursor
    wide, narrow = THICK_RADIUS_MAX + CLEARANCE, THIN_RADIUS_MAX + CLEARANCE
    thick_tree = bins(place, np.arange(thick_samples), wide)
    thin_tree = bins(place, np.arange(thick_samples, total), narrow)
    out = np.empty(len(points), np.float64)
    for k in range(len(points)):
        needed = _needed(thin_tree, place, size, name, points[k], own[k], narrow, 0.0)
        out[k] = _needed(thick_tree, place, size, name, points[k], own[k], wide, needed)
    return out


def mend(  # type: ignore[no-untyped-def]
    position, radius, mitochondrion, neurite, before, after, first_thin: int, longest: float
):
    """Raise the radius of thin nodes, and of new nodes on links, where their skeleton would be cut by another neurite.

    Args:
        position, radius, mitochondrion, neurite, before, after: The skeletons, as `subdivide` takes them.
        first_thin: Number of thick nodes.
        longest: nm; longer links are left alone.

    Returns:
        The same six arrays with new nodes at their ends.
    """
    count = len(radius)
    step = position - position[before]
    length = np.sqrt(step[:, 0] * step[:, 0] + step[:, 1] * step[:, 1] + step[:, 2] * step[:, 2])
    thin = np.arange(first_thin, count)
    usable = (before >= 0) & (length <= longest) & (np.arange(count) >= first_thin)
    pieces = np.where(usable, np.ceil(length / SAMPLE_STEP), 0).astype(np.int64)
    dense = subdivide(position, radius, mitochondrion, neurite, before, after, pieces)
    points = np.concatenate([thin, np.arange(count, len(dense[1]))])
    needed = radii_needed(position, radius, neurite, before, first_thin, longest, dense[0][points], dense[3][points])
    raised = np.maximum(dense[1][points], np.minimum(needed, RAISED_MAX))
    # new nodes only on links where one of them must be raised
    owner = np.repeat(np.arange(count), np.maximum(pieces - 1, 0))
    must = raised[len(thin) :] > dense[1][count:] + 1.0
    pieces = np.where(np.bincount(owner, weights=must, minlength=count) > 0, pieces, 0)
    keep = pieces[owner] > 0
    radius = radius.copy()
    radius[thin] = raised[: len(thin)]
    out = subdivide(position, radius, mitochondrion, neurite, before, after, pieces)
    out[1][count:] = np.maximum(out[1][count:], raised[len(thin) :][keep])
    return out
