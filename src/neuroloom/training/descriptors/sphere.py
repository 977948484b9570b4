"""Descriptors over a spherical window, exact: sums of whole numbers of voxels.

The window is a stack of rows along x, each from -h to h. Running sums of 1, u and u^2 along every row of a column's
surroundings give what a row adds to a voxel as the difference of two values, however long it is:

    sum over row   = running[x + h + 1] - running[x - h]          for 1, u, u^2
    over rows      * 1, y, y^2                                    -> 1, u, u^2, y, uy, y^2
    over planes    * 1, z, z^2                                    -> S and the nine moments
    u - x for u                                                   nothing is lost: all are integers below 2^53

The planes around the one that is being filled lie in a ring, so that memory does not depend on a column's height.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from neuroloom.training.descriptors.channels import normalise, write
from neuroloom.training.descriptors.runs import COLUMN_WIDTH
from neuroloom.training.descriptors.windows import half_widths


def sphere_columns(
    sigma: NDArray[np.float64], step: NDArray[np.float64], extent: tuple[int, ...], flat: bool
) -> partial[Any]:
    """The function that fills columns with descriptors over a spherical window.

    Args:
        sigma: radii in nm, z y x.
        step: nm between two voxels that are looked at, z y x.
        extent: voxels that are looked at, z y x.
        flat: there is one plane only, and no z.

    Returns:
        A function of columns, first_row, rows, runs, first_seen, seen, channels, repeats, window and out (see
        `compute`).
    """
    half = half_widths((sigma / step).tolist())
    if flat:
        half = half[half.shape[0] // 2][None]
    volume = float((2 * half + 1)[half >= 0].sum())
    # what lies beyond the array has no label
    for axis in range(2):
        surplus = max(0, half.shape[axis] // 2 - max(extent[axis] - 1, 0))
        half = half[surplus : len(half) - surplus] if axis == 0 else half[:, surplus : half.shape[1] - surplus]
    half = np.ascontiguousarray(np.minimum(half, extent[2]))
    return partial(_fill_columns, half, volume, sigma / 2, sigma, step)


@njit(nogil=True, cache=True, fastmath={"contract", "nsz", "arcp"}, error_model="numpy")
def _fill_columns(  # type: ignore[no-untyped-def]
    half, volume, farthest, sigma, step,
    columns, first_row, rows, runs, first_seen, seen, channels, repeats, window, out,
):  # fmt: skip
    """Descriptors of all voxels that belong to these columns."""
    radius_z, radius_y, reach = half.shape[0] // 2, half.shape[1] // 2, half.max()
    depth = half.shape[0]
    moments = np.empty((10, COLUMN_WIDTH), dtype=np.float64)  # uu, u, S, y, yu, yy, zu, z, zy, zz
    as_one_row = moments.reshape(-1)
    descriptors = np.empty(10 * COLUMN_WIDTH, dtype=np.float32)
    repeated = np.empty(10 * COLUMN_WIDTH * repeats[2], dtype=np.float32)
    for column in range(len(columns)):
        label, ya, yb, xa, xb, _ = columns[column]
        width = xb - xa
        y_begin, y_end, x_begin = ya - radius_y, yb + radius_y, xa - reach
        # plane, row, running sums of 1, u, u^2, where u = 0 is x_begin
        ring = np.empty((depth, y_end - y_begin, 3, width + 2 * reach + 1), dtype=np.float64)
        used = np.zeros((depth, y_end - y_begin), dtype=np.bool_)
        differences = np.empty((2, width), dtype=np.float64)  # of one row: 1, u
        plane = np.empty((6, width), dtype=np.float64)  # uu, u, one, y, yu, yy

        following = rows[first_row[label], 0] - radius_z
        s, last_seen = first_seen[label], first_seen[label + 1]
        for number in range(first_row[label], first_row[label + 1]):
            z, y = rows[number, 0], rows[number, 1]
            x0, x1 = max(rows[number, 2], xa) - xa, min(rows[number, 3], xb) - xa
            if y < ya or y >= yb or x0 >= x1:
                continue
            following = max(following, z - radius_z)
            while following <= z + radius_z:
                while s < last_seen and seen[s, 0] < following:
                    s += 1
                begin = s
                while s < last_seen and seen[s, 0] == following:
                    s += 1
                slot = following % depth
                _sum_rows(ring[slot], used[slot], seen[begin:s], y_begin, x_begin)
                following += 1

            count = x1 - x0
            moments[:, :count] = 0
            for i in range(depth):
                plane[:, :count] = 0
                found = False
                slot = (z + i - radius_z) % depth
                for j in range(half.shape[1]):
                    h = half[i, j]
                    row = y + j - radius_y - y_begin
                    if h < 0 or not used[slot, row]:
                        continue
                    found = True
                    sums = ring[slot, row]
                    below, above = x0 + reach - h, x0 + reach + h + 1
                    dy = np.float64(j - radius_y)
                    _subtract(differences[0], sums[0], above, below, count)
                    _subtract(differences[1], sums[1], above, below, count)
                    _add_difference(plane[0], sums[2], above, below, count)
                    _add(plane[1], 1.0, differences[1], count)
                    _add(plane[2], 1.0, differences[0], count)
                    _add(plane[3], dy, differences[0], count)
                    _add(plane[4], dy, differences[1], count)
                    _add(plane[5], dy * dy, differences[0], count)
                if not found:
                    continue
                dz = np.float64(i - radius_z)
                for k in range(6):
                    _add(moments[k], 1.0, plane[k], count)
                for k in range(3):
                    _add(moments[6 + k], dz, plane[1 + k], count)
                _add(moments[9], dz * dz, plane[2], count)
            _centre(moments, x0 + reach, count)
            moments[:, :count] /= volume
            normalise(as_one_row, count, farthest, sigma, step, descriptors)
            write(descriptors, xa + x0, xa + x1, rows[number], runs, channels, repeats, window, repeated, out)


@njit(nogil=True, cache=True)
def _sum_rows(sums, used, runs, y_begin, x_begin):  # type: ignore[no-untyped-def]
    """Running sums (rows, 3, n + 1) of 1, u, u^2 along the rows of one plane, where `runs` have the label."""
    used[:] = False
    extent = sums.shape[2] - 1
    for run in range(len(runs)):
        row = runs[run, 1] - y_begin
        first, last = max(runs[run, 2] - x_begin, 0), min(runs[run, 3] - x_begin, extent)
        if row < 0 or row >= len(used) or first >= last:
            continue
        if not used[row]:
            used[row] = True
            sums[row, 0] = 0
        sums[row, 0, first + 1 : last + 1] = 1
    for row in range(len(used)):
        if used[row]:
            one = u = uu = 0.0
            sums[row, 1, 0] = sums[row, 2, 0] = 0.0
            for i in range(extent):
                here = sums[row, 0, i + 1]
                one, u, uu = one + here, u + here * i, uu + here * i * i
                sums[row, 0, i + 1], sums[row, 1, i + 1], sums[row, 2, i + 1] = one, u, uu


@njit(nogil=True, cache=True)
def _centre(moments, centre, count):  # type: ignore[no-untyped-def]
    """Turn u in uu, u, S, y, yu, yy, zu, z, zy, zz into u - (centre + i) at each i."""
    for i in range(count):
        c = np.float64(centre + i)
        uu, u, one = moments[0, i], moments[1, i], moments[2, i]
        moments[0, i] = uu - 2 * c * u + c * c * one
        moments[1, i] = u - c * one
        moments[4, i] -= c * moments[3, i]
        moments[6, i] -= c * moments[7, i]


# slices from 0 on, which the compiler turns into vector code


@njit(nogil=True, cache=True)
def _subtract(result, sums, above, below, count):  # type: ignore[no-untyped-def]
    """result = sums from `above` on - sums from `below` on, over `count` values."""
    differences, high, low = result[:count], sums[above : above + count], sums[below : below + count]
    for i in range(len(differences)):
        differences[i] = high[i] - low[i]


@njit(nogil=True, cache=True)
def _add_difference(total, sums, above, below, count):  # type: ignore[no-untyped-def]
    """total += sums from `above` on - sums from `below` on, over `count` values."""
    result, high, low = total[:count], sums[above : above + count], sums[below : below + count]
    for i in range(len(result)):
        result[i] += high[i] - low[i]


@njit(nogil=True, cache=True, fastmath={"contract", "nsz", "arcp"})
def _add(total, factor, values, count):  # type: ignore[no-untyped-def]
    """total += factor * values, over the first `count` values."""
    sums, terms = total[:count], values[:count]
    for i in range(len(sums)):
        sums[i] += factor * terms[i]
