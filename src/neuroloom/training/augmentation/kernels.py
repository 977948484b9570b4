"""Sampling a crop at the places that a map names, on the processor, row by row: no array of places is ever made.

Between two control points a row's places lie on a straight line, so each is the one before plus a step:

    row       o . . . . . . o . . . . . . o           o control points, interpolated in z and y once per row
    place     p   p + s   p + 2 s  ...                fixed point, 32 binary digits of a voxel

Fixed point makes mirrors, right angles and moves by whole voxels exact: the fractions are 0, and voxels are copied.
The kernels run without the lock of Python, one thread each; batches are made by several threads.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

ONE = 1 << 32
"""One voxel in fixed point."""


@njit(nogil=True, cache=True)
def _row(points, spacing, moves, centre, z, y, line):  # type: ignore[no-untyped-def]
    """Places (3, n_x) of one row's control points, from all (3, n_z, n_y, n_x)."""
    layers, rows, count = points.shape[1:]
    at_z, at_y = z / spacing[0], y / spacing[1]
    k, j = min(int(at_z), max(0, layers - 2)), min(int(at_y), max(0, rows - 2))
    k1, j1 = min(k + 1, layers - 1), min(j + 1, rows - 1)
    wz, wy = at_z - k, at_y - j
    for axis in range(3):
        add = centre[axis] + moves[axis, z]
        for i in range(count):
            near = points[axis, k, j, i] + (points[axis, k1, j, i] - points[axis, k, j, i]) * wz
            far = points[axis, k, j1, i] + (points[axis, k1, j1, i] - points[axis, k, j1, i]) * wz
            line[axis, i] = near + (far - near) * wy + add


@njit(nogil=True, cache=True)
def _segment(line, spacing, i, begin, end, places, steps):  # type: ignore[no-untyped-def]
    """First place and step in fixed point of the voxels between control points i and i + 1; returns their range."""
    count = line.shape[1]
    first = max(begin, math.ceil(i * spacing))
    last = end if i >= count - 2 else min(end, math.ceil((i + 1) * spacing))
    for axis in range(3):
        step = 0.0 if count < 2 else (line[axis, i + 1] - line[axis, i]) / spacing
        steps[axis] = round(step * ONE)
        places[axis] = round((line[axis, i] + step * (first - i * spacing)) * ONE)
    return first, last


@njit(nogil=True, cache=True)
def _mirrored(index, size):  # type: ignore[no-untyped-def]
    """An index that leaves an axis, mirrored about the border voxels."""
    if size == 1:
        return 0
    index = index % (2 * size - 2)
    return index if index < size else 2 * size - 2 - index


@njit(nogil=True, cache=True, error_model="numpy")
def sample_raw(values, centre, points, spacing, moves, grid, scale, out):  # type: ignore[no-untyped-def]
    """Trilinear interpolation of an image, mirrored outside.

    Args:
        values: (Z, Y, X) uint8 or float32.
        centre: (3,) float64, the place in `values` that places are relative to, in voxels.
        points: (3, n_z, n_y, n_x) float64, places of the control points.
        spacing: (3,) float64, voxels of the grid between control points.
        moves: (3, z) float64, added to the places of each section.
        grid: (3,) int64, the first voxel of `out` in the grid of the control points.
        scale: what values are multiplied with.
        out: (z, y, x) float32, filled.
    """
    size = values.shape
    flat = values.reshape(-1)
    stride_z, stride_y = size[1] * size[2], size[2]
    count = points.shape[3]
    line, places, steps = np.empty((3, count)), np.empty(3, np.int64), np.empty(3, np.int64)
    unit, digits = np.float32(1 / (1 << 24)), np.int64((1 << 24) - 1)
    for z in range(out.shape[0]):
        for y in range(out.shape[1]):
            _row(points, spacing, moves, centre, z + grid[0], y + grid[1], line)
            result = out[z, y]
            for i in range(max(1, count - 1)):
                first, last = _segment(line, spacing[2], i, grid[2], grid[2] + out.shape[2], places, steps)
                if last <= first:
                    continue
                whole, inside = True, True
                for axis in range(3):
                    end = places[axis] + steps[axis] * (last - 1 - first)
                    whole &= (places[axis] | steps[axis]) & (ONE - 1) == 0
                    inside &= min(places[axis], end) >= 0 and max(places[axis], end) >> 32 < size[axis] - 1
                pz, py, px = places[0], places[1], places[2]
                sz, sy, sx = steps[0], steps[1], steps[2]
                if whole:
                    for x in range(first - grid[2], last - grid[2]):
                        iz, iy, ix = pz >> 32, py >> 32, px >> 32
                        if not inside:
                            iz, iy, ix = _mirrored(iz, size[0]), _mirrored(iy, size[1]), _mirrored(ix, size[2])
                        result[x] = np.float32(flat[iz * stride_z + iy * stride_y + ix]) * scale
                        pz, py, px = pz + sz, py + sy, px + sx
                elif inside:
                    for x in range(first - grid[2], last - grid[2]):
                        at = (pz >> 32) * stride_z + (py >> 32) * stride_y + (px >> 32)
                        wz = np.float32((pz >> 8) & digits) * unit
                        wy = np.float32((py >> 8) & digits) * unit
                        wx = np.float32((px >> 8) & digits) * unit
                        a, b = np.float32(flat[at]), np.float32(flat[at + 1])
                        near = a + (b - a) * wx
                        a, b = np.float32(flat[at + stride_y]), np.float32(flat[at + stride_y + 1])
                        near += (a + (b - a) * wx - near) * wy
                        at += stride_z
                        a, b = np.float32(flat[at]), np.float32(flat[at + 1])
                        far = a + (b - a) * wx
                        a, b = np.float32(flat[at + stride_y]), np.float32(flat[at + stride_y + 1])
                        far += (a + (b - a) * wx - far) * wy
                        result[x] = (near + (far - near) * wz) * scale
                        pz, py, px = pz + sz, py + sy, px + sx
                else:
                    for x in range(first - grid[2], last - grid[2]):
                        iz, iy, ix = pz >> 32, py >> 32, px >> 32
                        wz = np.float32((pz >> 8) & digits) * unit
                        wy = np.float32((py >> 8) & digits) * unit
                        wx = np.float32((px >> 8) & digits) * unit
                        z0, z1 = _mirrored(iz, size[0]) * stride_z, _mirrored(iz + 1, size[0]) * stride_z
                        y0, y1 = _mirrored(iy, size[1]) * stride_y, _mirrored(iy + 1, size[1]) * stride_y
                        x0, x1 = _mirrored(ix, size[2]), _mirrored(ix + 1, size[2])
                        a, b = np.float32(flat[z0 + y0 + x0]), np.float32(flat[z0 + y0 + x1])
                        near = a + (b - a) * wx
                        a, b = np.float32(flat[z0 + y1 + x0]), np.float32(flat[z0 + y1 + x1])
                        near += (a + (b - a) * wx - near) * wy
                        a, b = np.float32(flat[z1 + y0 + x0]), np.float32(flat[z1 + y0 + x1])
                        far = a + (b - a) * wx
                        a, b = np.float32(flat[z1 + y1 + x0]), np.float32(flat[z1 + y1 + x1])
                        far += (a + (b - a) * wx - far) * wy
                        result[x] = (near + (far - near) * wz) * scale
                        pz, py, px = pz + sz, py + sy, px + sx


@njit(nogil=True, cache=True, error_model="numpy")
def look_up(labels, roles, centre, low, high, points, spacing, moves, grid, out_labels, out_roles):  # type: ignore[no-untyped-def]
    """Label and role of the nearest voxel, 0 outside.

    Args:
        labels: (Z, Y, X), any integers.
        roles: (Z, Y, X) uint8.
        centre: (3,) float64, the place in `labels` that places are relative to, in voxels.
        low, high: (3,) int64, the part of `labels` that may be read; all else counts as outside.
        points, spacing, moves, grid: as for `sample_raw`.
        out_labels: (z, y, x) int64, filled.
        out_roles: (z, y, x) uint8, filled.
    """
    size = labels.shape
    flat_labels, flat_roles = labels.reshape(-1), roles.reshape(-1)
    stride_z, stride_y = size[1] * size[2], size[2]
    count = points.shape[3]
    line, places, steps = np.empty((3, count)), np.empty(3, np.int64), np.empty(3, np.int64)
    half = np.int64(ONE >> 1)
    for z in range(out_labels.shape[0]):
        for y in range(out_labels.shape[1]):
            _row(points, spacing, moves, centre, z + grid[0], y + grid[1], line)
            for i in range(max(1, count - 1)):
                first, last = _segment(line, spacing[2], i, grid[2], grid[2] + out_labels.shape[2], places, steps)
                if last <= first:
                    continue
                inside = True
                for axis in range(3):
                    places[axis] += half
                    end = places[axis] + steps[axis] * (last - 1 - first)
                    inside &= min(places[axis], end) >> 32 >= low[axis] and max(places[axis], end) >> 32 < high[axis]
                pz, py, px = places[0], places[1], places[2]
                sz, sy, sx = steps[0], steps[1], steps[2]
                for x in range(first - grid[2], last - grid[2]):
                    iz, iy, ix = pz >> 32, py >> 32, px >> 32
                    pz, py, px = pz + sz, py + sy, px + sx
                    if not inside and not (
                        low[0] <= iz < high[0] and low[1] <= iy < high[1] and low[2] <= ix < high[2]
                    ):
                        out_labels[z, y, x], out_roles[z, y, x] = 0, 0
                        continue
                    at = iz * stride_z + iy * stride_y + ix
                    out_labels[z, y, x], out_roles[z, y, x] = np.int64(flat_labels[at]), flat_roles[at]


@njit(nogil=True, cache=True)
def _is_mirrored(index, size):  # type: ignore[no-untyped-def]
    """Whether what `_mirrored` names is seen as in a mirror."""
    return size > 1 and index % (2 * size - 2) >= size


@njit(nogil=True, cache=True, error_model="numpy")
def look_up_descriptors(values, centre, matrix, points, spacing, moves, grid, out):  # type: ignore[no-untyped-def]
    """Descriptors of the nearest voxel, mirrored outside, as seen from the result: turned back by `matrix`.

    Args:
        values: (Z, Y, X, 11) uint8, 0 ... 255 for 0 ... 1: descriptors and presence, see `turn_descriptors`.
        centre: (3,) float64, the place in `values` that places are relative to, in voxels.
        matrix: (3, 3) float64, turns directions of the result into those of `values`.
        points, spacing, moves, grid: as for `sample_raw`.
        out: (10, z, y, x) float32, filled.
    """
    size = values.shape
    flat = values.reshape(-1)
    stride_z, stride_y, stride_x = size[1] * size[2] * size[3], size[2] * size[3], size[3]
    count = points.shape[3]
    line, places, steps = np.empty((3, count)), np.empty(3, np.int64), np.empty(3, np.int64)
    turn = matrix.astype(np.float32)
    found = np.empty(11, np.float32)
    rounding, unit = np.int64(ONE >> 1), np.float32(1 / 255)
    one, two, zero, half = np.float32(1), np.float32(2), np.float32(0), np.float32(0.5)
    for z in range(out.shape[1]):
        for y in range(out.shape[2]):
            _row(points, spacing, moves, centre, z + grid[0], y + grid[1], line)
            for i in range(max(1, count - 1)):
                first, last = _segment(line, spacing[2], i, grid[2], grid[2] + out.shape[3], places, steps)
                pz, py, px = places[0] + rounding, places[1] + rounding, places[2] + rounding
                for x in range(first - grid[2], last - grid[2]):
                    iz, iy, ix = pz >> 32, py >> 32, px >> 32
                    pz, py, px = pz + steps[0], py + steps[1], px + steps[2]
                    sz = -one if _is_mirrored(iz, size[0]) else one
                    sy = -one if _is_mirrored(iy, size[1]) else one
                    sx = -one if _is_mirrored(ix, size[2]) else one
                    iz, iy, ix = _mirrored(iz, size[0]), _mirrored(iy, size[1]), _mirrored(ix, size[2])
                    at = iz * stride_z + iy * stride_y + ix * stride_x
                    for channel in range(11):
                        found[channel] = np.float32(flat[at + channel]) * unit
                    none = found[10] * half  # what offsets and Pearson coefficients of 0 look like
                    oz, oy, ox = (found[0] - none) * sz, (found[1] - none) * sy, (found[2] - none) * sx
                    zz, yy, xx = found[3], found[4], found[5]
                    share = one / none if none > 0 else zero
                    zy = (found[6] - none) * share * sz * sy * math.sqrt(zz * yy)
                    zx = (found[7] - none) * share * sz * sx * math.sqrt(zz * xx)
                    yx = (found[8] - none) * share * sy * sx * math.sqrt(yy * xx)
                    for axis in range(3):
                        a, b, c = turn[0, axis], turn[1, axis], turn[2, axis]
                        out[axis, z, y, x] = min(max(a * oz + b * oy + c * ox + none, zero), one)
                        variance = a * a * zz + b * b * yy + c * c * xx + two * (a * b * zy + a * c * zx + b * c * yx)
                        out[3 + axis, z, y, x] = min(max(variance, zero), one)
                    for pair in range(3):
                        j, k = pair // 2, 1 + (pair + 1) // 2  # zy, zx, yx
                        a, b, c = turn[0, j], turn[1, j], turn[2, j]
                        d, e, f = turn[0, k], turn[1, k], turn[2, k]
                        covariance = a * d * zz + b * e * yy + c * f * xx
                        covariance += (a * e + b * d) * zy + (a * f + c * d) * zx + (b * f + c * e) * yx
                        both = out[3 + j, z, y, x] * out[3 + k, z, y, x]
                        pearson = covariance / math.sqrt(both) if both > 0 else zero
                        out[6 + pair, z, y, x] = min(max((pearson + one) * none, zero), one)
                    out[9, z, y, x] = found[9]
