"""From moments to channels, and to the voxels that have them."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

SMALLEST_VARIANCE = 1e-3
"""Lower bound of the variances in nm^2, which keeps the Pearson coefficients finite."""

ROUNDING = 1e-5
"""A variance smaller than this part of the mean square is what single precision leaves of 0."""


@njit(nogil=True, cache=True, fastmath={"contract", "nsz", "arcp"}, error_model="numpy")
def normalise_voxel(moments, width, x, farthest, sigma, step, out):  # type: ignore[no-untyped-def]
    """Moments xx, x, S, y, yx, yy, zx, z, zy, zz (of `width` voxels each, in voxels) at x -> descriptors (10) there.

    Mean offsets are divided by `farthest`, variances by `sigma` squared, all in nm as `step`, the size of a voxel.
    """
    size = np.float64(moments[2 * width + x])
    total = size if size > 0 else 1.0
    mz, my = moments[7 * width + x] / total * step[0], moments[3 * width + x] / total * step[1]
    mx = moments[width + x] / total * step[2]
    zz, yy = moments[9 * width + x] / total * step[0] ** 2, moments[5 * width + x] / total * step[1] ** 2
    xx = moments[x] / total * step[2] ** 2
    vz, vy, vx = zz - mz * mz, yy - my * my, xx - mx * mx
    flat_z, flat_y, flat_x = vz < ROUNDING * zz, vy < ROUNDING * yy, vx < ROUNDING * xx
    vz = SMALLEST_VARIANCE if flat_z else max(vz, SMALLEST_VARIANCE)
    vy = SMALLEST_VARIANCE if flat_y else max(vy, SMALLEST_VARIANCE)
    vx = SMALLEST_VARIANCE if flat_x else max(vx, SMALLEST_VARIANCE)
    zy = zx = yx = 0.0
    if not (flat_z or flat_y):
        zy = (moments[8 * width + x] / total * step[0] * step[1] - mz * my) / math.sqrt(vz * vy)
    if not (flat_z or flat_x):
        zx = (moments[6 * width + x] / total * step[0] * step[2] - mz * mx) / math.sqrt(vz * vx)
    if not (flat_y or flat_x):
        yx = (moments[4 * width + x] / total * step[1] * step[2] - my * mx) / math.sqrt(vy * vx)
    out[0, x] = min(max(mz / farthest[0] * 0.5 + 0.5, 0.0), 1.0)
    out[1, x] = min(max(my / farthest[1] * 0.5 + 0.5, 0.0), 1.0)
    out[2, x] = min(max(mx / farthest[2] * 0.5 + 0.5, 0.0), 1.0)
    out[3, x] = min(vz / (sigma[0] * sigma[0]), 1.0)
    out[4, x] = min(vy / (sigma[1] * sigma[1]), 1.0)
    out[5, x] = min(vx / (sigma[2] * sigma[2]), 1.0)
    out[6, x] = min(max(zy * 0.5 + 0.5, 0.0), 1.0)
    out[7, x] = min(max(zx * 0.5 + 0.5, 0.0), 1.0)
    out[8, x] = min(max(yx * 0.5 + 0.5, 0.0), 1.0)
    out[9, x] = min(size, 1.0)


@njit(nogil=True, cache=True)
def write(descriptors, x0, x1, xa, y, z, label, labels, repeats, window, channels, values, out):  # type: ignore[no-untyped-def]
    """Copy the chosen channels of a row of blocks to the label's own voxels in them, as far as `out` shows them."""
    za, zb = max(z * repeats[0], window[0, 0]), min((z + 1) * repeats[0], window[0, 1])
    ya, yb = max(y * repeats[1], window[1, 0]), min((y + 1) * repeats[1], window[1, 1])
    begin = (xa + x0) * repeats[2]
    ca, cb = max(begin, window[2, 0]), min((xa + x1) * repeats[2], window[2, 1])
    for channel in range(len(channels)):
        for x in range(x0, x1):
            for k in range(repeats[2]):
                values[channel, (x - x0) * repeats[2] + k] = descriptors[channels[channel], x]
    for a in range(za, zb):
        for b in range(ya, yb):
            first = ca
            while first < cb:
                if labels[a, b, first] != label:
                    first += 1
                    continue
                last = first + 1
                while last < cb and labels[a, b, last] == label:
                    last += 1
                for channel in range(len(channels)):
                    row = out[channel, a - window[0, 0], b - window[1, 0]]
                    to = row[first - window[2, 0] : last - window[2, 0]]
                    source = values[channel, first - begin : last - begin]
                    for i in range(len(to)):
                        to[i] = source[i]
                first = last
