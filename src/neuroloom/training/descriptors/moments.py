"""Descriptors over a Gaussian window, as products of three one-dimensional kernels.

Because offsets are relative to the centre voxel, every moment is a product of three kernels g, t g, t^2 g, and nothing
large cancels. In each column of one label:

    x: a run of equal labels along x adds the difference of two running sums of the kernel, however long it is
                                       -> 1, x, x^2                                  at the column's voxels
    y: weighted sum of rows            -> 1, x, x^2, y, xy, y^2                       at the column's voxels
    z: weighted sum of planes          -> S and the nine moments                      at the label's own voxels only
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from neuroloom.training.descriptors.channels import normalise, write
from neuroloom.training.descriptors.runs import COLUMN_WIDTH
from neuroloom.training.descriptors.vectors import LANES, weighted_sums
from neuroloom.training.descriptors.windows import gaussian_moments

_along_y = weighted_sums([(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (2, 2)])
"""xx, x, one -> xx, x, one, y, yx, yy."""
_along_z = weighted_sums([*((0, n) for n in range(6)), (1, 1), (1, 2), (1, 3), (2, 2)])
"""xx, x, one, y, yx, yy -> xx, x, S, y, yx, yy, zx, z, zy, zz."""


def gaussian_columns(
    sigma: NDArray[np.float64], step: NDArray[np.float64], extent: tuple[int, ...], flat: bool
) -> partial[Any]:
    """The function that fills columns with descriptors over a Gaussian window.

    Args:
        sigma: standard deviations in nm, z y x.
        step: nm between two voxels that are looked at, z y x.
        extent: voxels that are looked at, z y x.
        flat: there is one plane only, and no z.

    Returns:
        A function of columns, first_row, rows, runs, first_seen, seen, channels, repeats, window and out (see
        `compute`).
    """
    z, y, x = (gaussian_moments(deviation / size) for deviation, size in zip(sigma, step, strict=True))
    if flat:
        z = np.array([[1.0], [0.0], [0.0]])
    # running sums of the x kernels, backwards and continued, so that neither direction nor border needs care:
    # sum of k(u - v) for a <= u < b is behind[v - b] - behind[v - a]
    reach = extent[2] + x.shape[1] + LANES  # columns are filled up to whole `LANES`
    radius = x.shape[1] // 2
    ahead = np.zeros((3, 2 * reach + 1))
    ahead[:, reach - radius + 1 : reach + radius + 2] = np.cumsum(x, axis=1)
    ahead[:, reach + radius + 2 :] = ahead[:, reach + radius + 1 : reach + radius + 2]
    behind = np.ascontiguousarray(ahead[:, ::-1])
    return partial(_fill_columns, z, y, radius, behind, sigma, step)


@njit(nogil=True, cache=True, fastmath={"contract", "nsz", "arcp"}, error_model="numpy")
def _fill_columns(  # type: ignore[no-untyped-def]
    kernel_z, kernel_y, radius_x, behind, sigma, step,
    columns, first_row, rows, runs, first_seen, seen, channels, repeats, window, out,
):  # fmt: skip
    """Descriptors of all voxels that belong to these columns."""
    kz, ky = kernel_z.astype(np.float32), kernel_y.astype(np.float32)
    radius_z, radius_y = kz.shape[1] // 2, ky.shape[1] // 2
    zero = behind.shape[1] // 2
    moments = np.empty(10 * COLUMN_WIDTH, dtype=np.float32)  # xx, x, S, y, yx, yy, zx, z, zy, zz
    descriptors = np.empty(10 * COLUMN_WIDTH, dtype=np.float32)
    repeated = np.empty(10 * COLUMN_WIDTH * repeats[2], dtype=np.float32)
    for number in range(len(columns)):
        label, ya, yb, xa, xb, _ = columns[number]
        begin_seen, end_seen = first_seen[label], first_seen[label + 1]

        # what is wanted in this column: range of z, and which y
        z0 = 2**31
        z1 = 0
        needed = np.zeros(yb - ya, dtype=np.bool_)
        for row in range(first_row[label], first_row[label + 1]):
            y = rows[row, 1]
            if y < ya or y >= yb or rows[row, 2] >= xb or rows[row, 3] <= xa:
                continue
            z0, z1 = min(z0, rows[row, 0]), max(z1, rows[row, 0] + 1)
            needed[y - ya] = True
        if z1 <= z0:
            continue

        # planes that can matter to it
        begin, end = z0 - radius_z, z1 + radius_z
        if end_seen > begin_seen:
            begin, end = max(begin, seen[begin_seen, 0]), min(end, seen[end_seen - 1, 0] + 1)
        end = max(begin, end)
        y_begin, y_end = ya - radius_y, yb + radius_y
        width = (xb - xa + LANES - 1) // LANES * LANES
        lines = np.empty((y_end - y_begin, 3 * width), dtype=np.float32)  # xx, x, one
        used_lines = np.empty(y_end - y_begin, dtype=np.int64)
        planes = np.empty((yb - ya, end - begin, 6 * width), dtype=np.float32)  # xx, x, one, y, yx, yy
        used_planes = np.empty((yb - ya, end - begin), dtype=np.int64)
        planes_of = np.zeros(yb - ya, dtype=np.int64)  # how many of them are used

        r = begin_seen
        while r < end_seen and seen[r, 0] < begin:
            r += 1
        for z in range(begin, end):
            # along x
            count = 0
            while r < end_seen and seen[r, 0] == z:
                y, first, last = seen[r, 1] - y_begin, seen[r, 2], seen[r, 3]
                r += 1
                if y < 0 or y >= len(lines) or last + radius_x <= xa or first - radius_x >= xb:
                    continue
                line = lines[y]
                if count == 0 or used_lines[count - 1] != y:
                    used_lines[count] = y
                    count += 1
                    line[:] = 0
                for k in range(3):
                    _add_difference(line, (2 - k) * width, behind[k], zero + xa - last, zero + xa - first, width)
            # along y
            low = high = 0
            for y in range(yb - ya):
                # lines y to y + 2 radius_y
                while low < count and used_lines[low] < y:
                    low += 1
                while high < count and used_lines[high] <= y + 2 * radius_y:
                    high += 1
                if not needed[y] or low == high:
                    continue
                used_planes[y, planes_of[y]] = z - begin
                planes_of[y] += 1
                for x in range(0, width, LANES):
                    _along_y(ky, y, used_lines[low:high], lines, width, x, planes[y, z - begin], width, x)

        # along z, for one row of what is wanted at a time
        lows, highs = np.zeros(yb - ya, dtype=np.int64), np.zeros(yb - ya, dtype=np.int64)
        for row in range(first_row[label], first_row[label + 1]):
            z, y = rows[row, 0] - begin, rows[row, 1] - ya
            x0, x1 = max(rows[row, 2], xa) - xa, min(rows[row, 3], xb) - xa
            if y < 0 or y >= yb - ya or x0 >= x1:
                continue
            low, high = lows[y], highs[y]
            while low < planes_of[y] and used_planes[y, low] < z - radius_z:
                low += 1
            while high < planes_of[y] and used_planes[y, high] <= z + radius_z:
                high += 1
            lows[y], highs[y] = low, high
            x0 = x0 // LANES * LANES
            for x in range(x0, x1, LANES):
                _along_z(kz, z - radius_z, used_planes[y, low:high], planes[y], width, x, moments, COLUMN_WIDTH, x - x0)
            normalise(moments, (x1 - x0 + LANES - 1) // LANES * LANES, sigma, sigma, step, descriptors)
            write(descriptors, xa + x0, xa + x1, rows[row], runs, channels, repeats, window, repeated, out)


@njit(nogil=True, cache=True)
def _add_difference(total, start, sums, upper, lower, count):  # type: ignore[no-untyped-def]
    """total += sums from `upper` on - sums from `lower` on, over `count` values."""
    result, high, low = total[start : start + count], sums[upper : upper + count], sums[lower : lower + count]
    for i in range(len(result)):
        result[i] += np.float32(high[i] - low[i])
