"""From moments to channels, from there to rows of blocks, and from these to voxels.

Rows are stored one after the other, and copied to their voxels in the order of these at last: writing a label's
voxels when its column is done would touch every part of memory many times.
"""

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
def store(descriptors, x0, x1, start, row, channels, repeat, values):  # type: ignore[no-untyped-def]
    """Copy the chosen channels of blocks x0 to x1, of which `start` is the first block's x, to their row in `values`.

    A row (first x, last x + 1, blocks in rows before) lies there channel by channel, every block `repeat` times.
    """
    length = (row[1] - row[0]) * repeat
    for channel in range(len(channels)):
        begin = row[2] * repeat * len(channels) + channel * length + (start + x0 - row[0]) * repeat
        source = descriptors[channels[channel], x0:x1]
        to = values[begin : begin + (x1 - x0) * repeat]
        if repeat == 1:
            for x in range(len(to)):
                to[x] = source[x]
        else:
            for x in range(len(source)):
                for k in range(repeat):
                    to[x * repeat + k] = source[x]


@njit(nogil=True, cache=True)
def spread(voxels, row_of, rows, values, repeat, window, out):  # type: ignore[no-untyped-def]
    """Copy to the voxels of runs what their rows of blocks hold in `values`; `out` shows `window`."""
    channels = len(out)
    for run in range(len(voxels)):
        z, y, first, last = voxels[run]
        row = rows[row_of[run]]
        length = (row[1] - row[0]) * repeat
        begin = row[2] * repeat * channels - row[0] * repeat + first
        for channel in range(channels):
            source = values[begin : begin + last - first]
            to = out[channel, z - window[0, 0], y - window[1, 0], first - window[2, 0] : last - window[2, 0]]
            for x in range(len(source)):
                to[x] = source[x]
            begin += length
