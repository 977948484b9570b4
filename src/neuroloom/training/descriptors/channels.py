"""From moments to channels, and from there to voxels."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from neuroloom.training.descriptors.runs import COLUMN_WIDTH

SMALLEST_VARIANCE = 1e-3
"""Lower bound of the variances in nm^2, which keeps the Pearson coefficients finite."""

ROUNDING = 1e-5
"""A variance smaller than this part of the mean square is what single precision leaves of 0."""


@njit(nogil=True, cache=True, fastmath={"contract", "nsz", "arcp"}, error_model="numpy")
def normalise(moments, count, farthest, sigma, step, out):  # type: ignore[no-untyped-def]
    """Moments xx, x, S, y, yx, yy, zx, z, zy, zz in voxels -> descriptors of the first `count` voxels.

    Both are one row of `COLUMN_WIDTH` voxels after the other.

    Mean offsets are divided by `farthest`, variances by `sigma` squared, all in nm as `step`, the size of a voxel.
    """
    step_z, step_y, step_x = step
    far_z, far_y, far_x = 0.5 / farthest[0], 0.5 / farthest[1], 0.5 / farthest[2]
    scale_z, scale_y, scale_x = 1 / sigma[0] ** 2, 1 / sigma[1] ** 2, 1 / sigma[2] ** 2
    # without branches, so that the compiler makes vector code of it
    for x in range(count):
        size = np.float64(moments[2 * COLUMN_WIDTH + x])
        weight = 1 / (size if size > 0 else 1.0)
        mz, my, mx = (
            moments[7 * COLUMN_WIDTH + x] * weight * step_z,
            moments[3 * COLUMN_WIDTH + x] * weight * step_y,
            moments[COLUMN_WIDTH + x] * weight * step_x,
        )
        zz, yy, xx = (
            moments[9 * COLUMN_WIDTH + x] * weight * (step_z * step_z),
            moments[5 * COLUMN_WIDTH + x] * weight * (step_y * step_y),
            moments[x] * weight * (step_x * step_x),
        )
        vz, vy, vx = zz - mz * mz, yy - my * my, xx - mx * mx
        flat_z, flat_y, flat_x = vz < ROUNDING * zz, vy < ROUNDING * yy, vx < ROUNDING * xx
        vz = SMALLEST_VARIANCE if flat_z else max(vz, SMALLEST_VARIANCE)
        vy = SMALLEST_VARIANCE if flat_y else max(vy, SMALLEST_VARIANCE)
        vx = SMALLEST_VARIANCE if flat_x else max(vx, SMALLEST_VARIANCE)
        zy = (moments[8 * COLUMN_WIDTH + x] * weight * (step_z * step_y) - mz * my) / math.sqrt(vz * vy)
        zx = (moments[6 * COLUMN_WIDTH + x] * weight * (step_z * step_x) - mz * mx) / math.sqrt(vz * vx)
        yx = (moments[4 * COLUMN_WIDTH + x] * weight * (step_y * step_x) - my * mx) / math.sqrt(vy * vx)
        zy = 0.0 if flat_z | flat_y else zy
        zx = 0.0 if flat_z | flat_x else zx
        yx = 0.0 if flat_y | flat_x else yx
        out[x] = min(max(mz * far_z + 0.5, 0.0), 1.0)
        out[COLUMN_WIDTH + x] = min(max(my * far_y + 0.5, 0.0), 1.0)
        out[2 * COLUMN_WIDTH + x] = min(max(mx * far_x + 0.5, 0.0), 1.0)
        out[3 * COLUMN_WIDTH + x] = min(vz * scale_z, 1.0)
        out[4 * COLUMN_WIDTH + x] = min(vy * scale_y, 1.0)
        out[5 * COLUMN_WIDTH + x] = min(vx * scale_x, 1.0)
        out[6 * COLUMN_WIDTH + x] = min(max(zy * 0.5 + 0.5, 0.0), 1.0)
        out[7 * COLUMN_WIDTH + x] = min(max(zx * 0.5 + 0.5, 0.0), 1.0)
        out[8 * COLUMN_WIDTH + x] = min(max(yx * 0.5 + 0.5, 0.0), 1.0)
        out[9 * COLUMN_WIDTH + x] = min(size, 1.0)


@njit(nogil=True, cache=True)
def write(descriptors, start, end, row, runs, channels, repeats, window, repeated, out):  # type: ignore[no-untyped-def]
    """Copy descriptors of the blocks `start` to `end` of a row to the voxels of its runs.

    Args:
        descriptors: (10 * `COLUMN_WIDTH`), from block `start` on.
        start, end: First and last + 1 block, x.
        row: As of `find_rows`.
        runs: z, y, first x, last x + 1 (n, 4) in voxels.
        channels: Those that are wanted.
        repeats: Voxels of a block, z y x.
        window: What `out` shows, (3, 2).
        repeated: Room for 10 * `COLUMN_WIDTH` * repeats[2].
        out: (channels, z, y, x).
    """
    repeat = repeats[2]
    if repeat > 1:
        for channel in channels:
            source, to = descriptors[channel * COLUMN_WIDTH :], repeated[channel * COLUMN_WIDTH * repeat :]
            for x in range(end - start):
                for k in range(repeat):
                    to[x * repeat + k] = source[x]
    else:
        repeated = descriptors
    for run in range(row[4], row[5]):
        z, y = runs[run, 0] - window[0, 0], runs[run, 1] - window[1, 0]
        first, last = max(runs[run, 2], start * repeat), min(runs[run, 3], end * repeat)
        if first >= last:
            continue
        for number in range(len(channels)):
            to = out[number, z, y, first - window[2, 0] : last - window[2, 0]]
            source = repeated[channels[number] * COLUMN_WIDTH * repeat + first - start * repeat :]
            for x in range(len(to)):
                to[x] = source[x]
