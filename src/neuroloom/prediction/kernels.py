"""Rows of voxels `(z, y, x, c)`, pooled or looked up. Kernels run without the lock of Python, on some rows each."""

from __future__ import annotations

from numba import njit


@njit(nogil=True, cache=True)
def pool_rows(values, factor, out, begin, end):  # type: ignore[no-untyped-def]
    """The largest of every `factor` voxels.

    Args:
        values: (z, y, x, c) integers.
        factor: (3,), z y x.
        out: (z // factor[0], y // factor[1], x // factor[2], c).
        begin: First row of `out` to fill in, counted through all planes.
        end: The row after the last.
    """
    high, wide, long = factor
    height, width, channels = out.shape[1:]
    for row in range(begin, end):
        z, y = row // height, row % height
        for x in range(width):
            for c in range(channels):
                out[z, y, x, c] = values[z * high, y * wide, x * long, c]
            for k in range(z * high, (z + 1) * high):
                for j in range(y * wide, (y + 1) * wide):
                    for i in range(x * long, (x + 1) * long):
                        for c in range(channels):
                            out[z, y, x, c] = max(out[z, y, x, c], values[k, j, i, c])


@njit(nogil=True, cache=True)
def look_up_rows(values, table, out, begin, end):  # type: ignore[no-untyped-def]
    """`table[values]`.

    Args:
        values: (z, y, x, c) unsigned integers.
        table: (n,), as long as values are different.
        out: (z, y, x, c).
        begin: First row to fill in, counted through all planes.
        end: The row after the last.
    """
    height, width, channels = out.shape[1:]
    for row in range(begin, end):
        z, y = row // height, row % height
        for x in range(width):
            for c in range(channels):
                out[z, y, x, c] = table[values[z, y, x, c]]
