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

from neuroloom.training.descriptors.channels import normalise_voxel, store
from neuroloom.training.descriptors.windows import gaussian_moments


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
        A function of columns, group, wanted, seen, places, row_of, rows, channels, repeat and values (see `compute`).
    """
    z, y, x = (gaussian_moments(deviation / size) for deviation, size in zip(sigma, step, strict=True))
    if flat:
        z = np.array([[1.0], [0.0], [0.0]])
    # running sums of the x kernels, backwards and continued, so that neither direction nor border needs care:
    # sum of k(u - v) for a <= u < b is behind[v - b] - behind[v - a]
    reach = extent[2] + x.shape[1]
    radius = x.shape[1] // 2
    ahead = np.zeros((3, 2 * reach + 1))
    ahead[:, reach - radius + 1 : reach + radius + 2] = np.cumsum(x, axis=1)
    ahead[:, reach + radius + 2 :] = ahead[:, reach + radius + 1 : reach + radius + 2]
    behind = np.ascontiguousarray(ahead[:, ::-1])
    return partial(_fill_columns, z, y, radius, behind, sigma, step)


@njit(nogil=True, cache=True, fastmath={"contract", "nsz", "arcp"}, error_model="numpy")
def _fill_columns(  # type: ignore[no-untyped-def]
    kernel_z, kernel_y, radius_x, behind, sigma, step,
    columns, group, wanted, seen, places, row_of, rows, channels, repeat, values,
):  # fmt: skip
    """Descriptors of all voxels that belong to these columns."""
    kz, ky = kernel_z.astype(np.float32), kernel_y.astype(np.float32)
    radius_z, radius_y = kz.shape[1] // 2, ky.shape[1] // 2
    zero = behind.shape[1] // 2
    for number in range(len(columns)):
        label, ya, yb, xa, xb, _ = columns[number]
        first_wanted, last_wanted, first_seen, last_seen = group[label]

        # what is wanted in this column: range of z, and which y
        z0 = 2**31
        z1 = 0
        needed = np.zeros(yb - ya, dtype=np.bool_)
        for r in range(first_wanted, last_wanted):
            z, y, first, last = wanted[r]
            if y < ya or y >= yb or first >= xb or last <= xa:
                continue
            z0, z1 = min(z0, z), max(z1, z + 1)
            needed[y - ya] = True
        if z1 <= z0:
            continue

        # planes that can matter to it
        begin, end = z0 - radius_z, z1 + radius_z
        if last_seen > first_seen:
            begin, end = max(begin, seen[first_seen, 0]), min(end, seen[last_seen - 1, 0] + 1)
        end = max(begin, end)
        y_begin, y_end = ya - radius_y, yb + radius_y
        width = xb - xa
        lines = np.empty((y_end - y_begin, 3 * width), dtype=np.float32)  # xx, x, one
        line_used = np.empty(y_end - y_begin, dtype=np.bool_)
        used = np.empty(2 * max(radius_y, radius_z) + 1, dtype=np.int64)
        planes = np.empty((yb - ya, end - begin, 6 * width), dtype=np.float32)  # xx, x, one, y, yx, yy
        plane_used = np.zeros((yb - ya, end - begin), dtype=np.bool_)

        r = first_seen
        while r < last_seen and seen[r, 0] < begin:
            r += 1
        for z in range(begin, end):
            # along x
            line_used[:] = False
            while r < last_seen and seen[r, 0] == z:
                y, first, last = seen[r, 1], seen[r, 2], seen[r, 3]
                r += 1
                if y < y_begin or y >= y_end or last + radius_x <= xa or first - radius_x >= xb:
                    continue
                line = lines[y - y_begin]
                if not line_used[y - y_begin]:
                    line_used[y - y_begin] = True
                    line[:] = 0
                for k in range(3):
                    _add_difference(line, (2 - k) * width, behind[k], zero + xa - last, zero + xa - first, width)
            # along y
            for y in range(ya, yb):
                if not needed[y - ya]:
                    continue
                count = 0
                for other in range(y - radius_y - y_begin, y + radius_y + 1 - y_begin):
                    if line_used[other]:
                        used[count] = other
                        count += 1
                if count == 0:
                    continue
                plane_used[y - ya, z - begin] = True
                plane = planes[y - ya, z - begin]
                plane[:] = 0
                centre = y - y_begin - radius_y
                # two lines at a time, since writing the sums is what takes the time
                for pair in range(0, count, 2):
                    one, two = used[pair], used[min(pair + 1, count - 1)]
                    line, line2 = lines[one], lines[two]
                    g, tg, ttg = ky[0, one - centre], ky[1, one - centre], ky[2, one - centre]
                    h, th, tth = ky[0, two - centre], ky[1, two - centre], ky[2, two - centre]
                    if pair + 1 == count:
                        h = th = tth = np.float32(0)
                    _add_two(plane, 0, g, line, h, line2, 0, 3 * width)
                    _add_two(plane, 3 * width, tg, line, th, line2, 2 * width, width)
                    _add_two(plane, 4 * width, tg, line, th, line2, width, width)
                    _add_two(plane, 5 * width, ttg, line, tth, line2, 2 * width, width)

        # along z, for one row of what is wanted at a time
        moments = np.empty(10 * width, dtype=np.float32)  # xx, x, S, y, yx, yy, zx, z, zy, zz
        descriptors = np.empty((10, width), dtype=np.float32)
        for row in range(row_of[first_wanted], row_of[last_wanted - 1] + 1):
            z, y = places[row]
            x0, x1 = max(rows[row, 0] - xa, 0), min(rows[row, 1], xb) - xa
            if y < ya or y >= yb or x0 >= x1:
                continue
            moments[:] = 0
            count = 0
            for other in range(max(z - radius_z, begin), min(z + radius_z + 1, end)):
                if plane_used[y - ya, other - begin]:
                    used[count] = other - begin
                    count += 1
            centre = z - begin - radius_z
            for pair in range(0, count, 2):
                one, two = used[pair], used[min(pair + 1, count - 1)]
                plane, plane2 = planes[y - ya, one], planes[y - ya, two]
                g, tg, ttg = kz[0, one - centre], kz[1, one - centre], kz[2, one - centre]
                h, th, tth = kz[0, two - centre], kz[1, two - centre], kz[2, two - centre]
                if pair + 1 == count:
                    h = th = tth = np.float32(0)
                _add_two(moments, 0, g, plane, h, plane2, 0, 6 * width)
                _add_two(moments, 6 * width, tg, plane, th, plane2, width, 3 * width)
                _add_two(moments, 9 * width, ttg, plane, tth, plane2, 2 * width, width)
            for x in range(x0, x1):
                normalise_voxel(moments, width, x, sigma, sigma, step, descriptors)
            store(descriptors, x0, x1, xa, rows[row], channels, repeat, values)


@njit(nogil=True, cache=True, fastmath={"contract", "nsz", "arcp"})
def _add_two(total, start, g, one, h, two, begin, count):  # type: ignore[no-untyped-def]
    """total += g one + h two over `count` values: slices from 0 on, which the compiler turns into vector code."""
    sums, first, second = total[start : start + count], one[begin : begin + count], two[begin : begin + count]
    for i in range(len(sums)):
        sums[i] += g * first[i] + h * second[i]


@njit(nogil=True, cache=True)
def _add_difference(total, start, sums, upper, lower, count):  # type: ignore[no-untyped-def]
    """total += sums from `upper` on - sums from `lower` on, over `count` values."""
    result, high, low = total[start : start + count], sums[upper : upper + count], sums[lower : lower + count]
    for i in range(len(result)):
        result[i] += np.float32(high[i] - low[i])
