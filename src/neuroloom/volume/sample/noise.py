"""Randomness that depends on a seed and on coordinates only, never on what was drawn before.

    hash(seed, a, b, c, d) -> 64 bits          the counter-based generator: no state, no order
    curve_noise(..., t)    -> [-1, 1]          smooth along a line:   cubic B-spline of hashed numbers
    field_noise(..., grid) -> [-1, 1]          smooth in space:       the same in three dimensions
    gauss(bits)            -> mean 0, sd 1     sum of four uniform 16-bit numbers

      value  •       •       •       •         hashed numbers at integer t; the curve stays in their hull,
      t   ───┼───────┼───────┼───────┼───      so that every displacement has a known bound

Only +, -, *, / and square roots are used: they are rounded alike on every processor, so the bytes are, too.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@njit(cache=True, nogil=True)
def mix(bits: np.uint64) -> np.uint64:
    """Scramble 64 bits (the finalizer of SplitMix64: Steele, Lea and Flood 2014)."""
    bits = np.uint64(bits)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@njit(cache=True, nogil=True)
def hashed(key: np.uint64, a: int, b: int, c: int) -> np.uint64:
    """64 random bits for a key and three integers of either sign."""
    step = np.uint64(0x9E3779B97F4A7C15)
    bits = mix(np.uint64(key) + step * (np.uint64(a) + np.uint64(1)))
    bits = mix(bits + step * (np.uint64(b) + np.uint64(1)))
    return mix(bits + step * (np.uint64(c) + np.uint64(1)))


def key_of(seed: int, purpose: int, number: int = 0) -> np.uint64:
    """The key of one use of randomness: 64 bits from the seed, what it is for and a number within that."""
    return np.uint64(hashed(np.uint64(seed), purpose, number, 0))


@njit(cache=True, nogil=True)
def uniform(bits: np.uint64) -> float:
    """A number in [0, 1) from 64 random bits."""
    return float(np.uint64(bits) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(cache=True, nogil=True)
def gauss(bits: np.uint64) -> float:
    """A nearly Gaussian number (mean 0, standard deviation 1, within ±3.47) from 64 random bits."""
    bits = np.uint64(bits)
    low = np.uint64(0xFFFF)
    total = (
        float(bits & low)
        + float((bits >> np.uint64(16)) & low)
        + float((bits >> np.uint64(32)) & low)
        + float(bits >> np.uint64(48))
    )
    return (total / 65535.0 - 2.0) * 1.7320508075688772


@njit(cache=True, nogil=True)
def spline_weights(u: float) -> tuple[float, float, float, float]:
    """The four weights of the uniform cubic B-spline at u in [0, 1); they sum to 1."""
    v = 1.0 - u
    return (
        v * v * v / 6.0,
        (3.0 * u * u * u - 6.0 * u * u + 4.0) / 6.0,
        (3.0 * v * v * v - 6.0 * v * v + 4.0) / 6.0,
        u * u * u / 6.0,
    )


@njit(cache=True, nogil=True)
def curve_noise(key: np.uint64, channel: int, t: float) -> float:
    """Smooth noise in [-1, 1] along a line, for a key, a channel and a position t (a new number every 1)."""
    n = math.floor(t)
    w0, w1, w2, w3 = spline_weights(t - n)
    i = int(n)
    return (
        w0 * (2.0 * uniform(hashed(key, channel, i - 1, 0)) - 1.0)
        + w1 * (2.0 * uniform(hashed(key, channel, i, 0)) - 1.0)
        + w2 * (2.0 * uniform(hashed(key, channel, i + 1, 0)) - 1.0)
        + w3 * (2.0 * uniform(hashed(key, channel, i + 2, 0)) - 1.0)
    )


@njit(cache=True, nogil=True)
def _spline_axis(begin: int, extent: int, scale: float) -> tuple[int, NDArray[np.int64], Floats]:
    """First lattice number, and for each voxel the number of its first lattice value and the four weights."""
    first = math.floor((begin + 0.5) * scale) - 1
    index = np.empty(extent, np.int64)
    weights = np.empty((extent, 4), np.float64)
    for i in range(extent):
        t = (begin + i + 0.5) * scale
        n = math.floor(t)
        index[i] = int(n) - 1 - first
        w0, w1, w2, w3 = spline_weights(t - n)
        weights[i, 0], weights[i, 1], weights[i, 2], weights[i, 3] = w0, w1, w2, w3
    return first, index, weights


@njit(cache=True, nogil=True)
def field_noise(
    key: np.uint64, begin: NDArray[np.int64], shape: NDArray[np.int64], voxel_size: Floats, spacing: float
) -> NDArray[np.float32]:
    """Smooth noise in [-1, 1] in space, at the centres of voxels.

    Args:
        key: 64 bits that name the field.
        begin: First voxel, z y x.
        shape: Extent in voxels, z y x.
        voxel_size: nm, z y x.
        spacing: nm between the hashed numbers.

    Returns:
        `(z, y, x)` float32; standard deviation about 0.19.
    """
    z0, iz, wz = _spline_axis(begin[0], shape[0], voxel_size[0] / spacing)
    y0, iy, wy = _spline_axis(begin[1], shape[1], voxel_size[1] / spacing)
    x0, ix, wx = _spline_axis(begin[2], shape[2], voxel_size[2] / spacing)
    nz, ny, nx = int(shape[0]), int(shape[1]), int(shape[2])
    rows = int(iy[ny - 1]) + 4
    columns = int(ix[nx - 1]) + 4
    slabs = np.empty((int(iz[nz - 1]) + 4, ny, nx), np.float32)
    lattice = np.empty(columns, np.float64)
    along_x = np.empty((rows, nx), np.float64)
    for a in range(slabs.shape[0]):
        for b in range(rows):
            for c in range(columns):
                lattice[c] = 2.0 * uniform(hashed(key, z0 + a, y0 + b, x0 + c)) - 1.0
            for x in range(nx):
                i = ix[x]
                along_x[b, x] = (
                    wx[x, 0] * lattice[i]
                    + wx[x, 1] * lattice[i + 1]
                    + wx[x, 2] * lattice[i + 2]
                    + wx[x, 3] * lattice[i + 3]
                )
        for y in range(ny):
            i = iy[y]
            for x in range(nx):
                slabs[a, y, x] = (
                    wy[y, 0] * along_x[i, x]
                    + wy[y, 1] * along_x[i + 1, x]
                    + wy[y, 2] * along_x[i + 2, x]
                    + wy[y, 3] * along_x[i + 3, x]
                )
    out = np.empty((nz, ny, nx), np.float32)
    for z in range(nz):
        i = iz[z]
        for y in range(ny):
            for x in range(nx):
                out[z, y, x] = (
                    wz[z, 0] * slabs[i, y, x]
                    + wz[z, 1] * slabs[i + 1, y, x]
                    + wz[z, 2] * slabs[i + 2, y, x]
                    + wz[z, 3] * slabs[i + 3, y, x]
                )
    return out
