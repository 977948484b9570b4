"""What the microscope sees of the tissue: two looks, each cells -> grey values, then blur and noise.

em    grey = cytoplasm (a shade per neurite) + texture, darkened by membranes, organelles, synapses;
      blur of some nm; electron noise                                      dark lines on grey
exm   photons = background + stain of protein: bright membranes, mitochondria and synapses;
      wide axial blur; photon noise (variance = mean)                      bright lines on dark
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from neuroloom.volume.sample.cells import Cells
from neuroloom.volume.sample.noise import field_noise, gauss, hashed, key_of, uniform

Look = Literal["em", "exm"]
Float32 = NDArray[np.float32]

# Standard deviation of the blur in nm of tissue, z y x.
BLUR_NM: dict[str, tuple[float, float, float]] = {"em": (7.0, 7.0, 7.0), "exm": (26.0, 9.0, 9.0)}
MEMBRANE_HALF_WIDTH = 13.0  # nm from the membrane's middle to half of its contrast
PHOTONS = 70.0  # at grey value 255 of the `exm` look


def halo_of(look: Look, voxel_size: NDArray[np.float64]) -> NDArray[np.int64]:
    """Voxels z y x that the blur needs on every side."""
    return np.array([len(_kernel(s / v)) // 2 for s, v in zip(BLUR_NM[look], voxel_size, strict=True)], np.int64)


def paint(
    look: Look,
    seed: int,
    cells: Cells,
    names: NDArray[np.uint64],
    begin: NDArray[np.int64],
    voxel_size: NDArray[np.float64],
) -> Float32:
    """Grey values of the tissue before blur and noise, `(z, y, x)` float32 about 0 … 255.

    Args:
        look: Which microscope.
        seed: Names the tissue.
        cells: The tissue, as `fill_space` returns it.
        names: `(n,)` id of each neurite that `cells.neurite` counts.
        begin: The block's first voxel, z y x.
        voxel_size: nm, z y x.
    """
    shape = np.array(cells.neurite.shape, np.int64)
    fine = field_noise(key_of(seed, 2, 1), begin, shape, voxel_size, 22.0)
    coarse = field_noise(key_of(seed, 2, 2), begin, shape, voxel_size, 60.0)
    patch = field_noise(key_of(seed, 2, 3), begin, shape, voxel_size, 170.0)
    out = np.empty(cells.neurite.shape, np.float32)
    _paint(look == "exm", key_of(seed, 2), names, begin, voxel_size, *cells, fine, coarse, patch, out)
    return out


def develop(
    look: Look, seed: int, grey: Float32, begin: NDArray[np.int64], voxel_size: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Blur, shade and add noise; the halo is used up.

    Args:
        look: Which microscope.
        seed: Names the tissue.
        grey: `(z, y, x)` float32 with a margin of `halo_of` voxels.
        begin: First voxel of the result, z y x.
        voxel_size: nm, z y x.

    Returns:
        `(z, y, x)` uint8 without the margin.
    """
    for axis, (sigma, voxel) in enumerate(zip(BLUR_NM[look], voxel_size, strict=True)):
        grey = _blur(grey, _kernel(sigma / voxel), axis)
    shape = np.array(grey.shape, np.int64)
    shade = field_noise(key_of(seed, 3, 1), begin, shape, voxel_size, 2500.0)
    out = np.empty(grey.shape, np.uint8)
    _expose(look == "exm", key_of(seed, 3), begin, grey, shade, out)
    return out


def _kernel(sigma: float) -> Float32:
    """A Gaussian of so many voxels, cut at three; rounded so that its bytes are the same everywhere."""
    radius = math.ceil(3.0 * sigma) if sigma > 0.2 else 0
    weights = [round(math.exp(-0.5 * (i / sigma) ** 2), 7) for i in range(-radius, radius + 1)] if radius else [1.0]
    return np.array([round(w / math.fsum(weights), 6) for w in weights], np.float32)


@njit(cache=True, nogil=True)
def _blur(image, kernel, axis):  # type: ignore[no-untyped-def]
    """Correlation along one axis, inner part only."""
    n = len(kernel)
    if n == 1:
        return image
    nz, ny, nx = image.shape
    sz, sy, sx = (n - 1 if axis == 0 else 0), (n - 1 if axis == 1 else 0), (n - 1 if axis == 2 else 0)
    out = np.zeros((nz - sz, ny - sy, nx - sx), np.float32)
    for z in range(nz - sz):
        for y in range(ny - sy):
            for k in range(n):
                w = kernel[k]
                a = z + (k if axis == 0 else 0)
                b = y + (k if axis == 1 else 0)
                c = k if axis == 2 else 0
                for x in range(nx - sx):
                    out[z, y, x] += w * image[a, b, x + c]
    return out


@njit(cache=True, nogil=True, inline="always")
def _step(distance, width):  # type: ignore[no-untyped-def]
    """1 at distance 0, one half at `width`, 0 far away; flat in the middle."""
    x = distance / width
    x *= x
    return 1.0 / (1.0 + x * x)


@njit(cache=True, nogil=True)
def _nearest_dot(key, a, b, period):  # type: ignore[no-untyped-def]
    """Squared distance in nm to the nearest of the dots scattered in a plane, one per square of that period."""
    i, j = math.floor(a / period), math.floor(b / period)
    best = 1e9
    for p in range(i - 1, i + 2):
        for q in range(j - 1, j + 2):
            bits = hashed(key, p, q, 0)
            u = (p + 0.2 + 0.6 * uniform(bits)) * period - a
            v = (q + 0.2 + 0.6 * uniform(hashed(bits, 1, 0, 0))) * period - b
            best = min(best, u * u + v * v)
    return best


@njit(cache=True, nogil=True)
def _nearest_ball(key, z, y, x, period):  # type: ignore[no-untyped-def]
    """Distance in nm to the centre of the nearest of the balls scattered in space, one per cube of that period."""
    i, j, k = math.floor(z / period), math.floor(y / period), math.floor(x / period)
    best = 1e9
    for p in range(i - 1, i + 2):
        for q in range(j - 1, j + 2):
            for r in range(k - 1, k + 2):
                bits = hashed(key, p, q, r)
                u = (p + 0.2 + 0.6 * float(bits & np.uint64(0xFFFF)) / 65536.0) * period - z
                v = (q + 0.2 + 0.6 * float((bits >> np.uint64(16)) & np.uint64(0xFFFF)) / 65536.0) * period - y
                w = (r + 0.2 + 0.6 * float((bits >> np.uint64(32)) & np.uint64(0xFFFF)) / 65536.0) * period - x
                best = min(best, u * u + v * v + w * w)
    return math.sqrt(best)


@njit(cache=True, nogil=True)
def _paint(  # type: ignore[no-untyped-def]
    exm, key, names, begin, voxel, neurite, membrane, mitochondrion, across_a, across_b, girth, fine, coarse, patch, out
):
    shade = np.empty(len(names), np.float64)
    vesicles = np.empty(len(names), np.bool_)
    own = np.empty(len(names), np.uint64)
    for n in range(len(names)):
        own[n] = hashed(names[n], 1, 0, 0)
        u = uniform(hashed(own[n], 1, 0, 0))
        shade[n] = 1.0 - 2.0 * u * u * u  # most neurites light, some dark
        vesicles[n] = uniform(hashed(own[n], 2, 0, 0)) < 0.4
    ball_key = hashed(key, 7, 0, 0)
    nz, ny, nx = out.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                n = neurite[z, y, x]
                if n < 0:
                    out[z, y, x] = 20.0 if exm else 60.0
                    continue
                wall = membrane[z, y, x]
                light = shade[n]
                cytoplasm = 168.0 + 42.0 * light + 95.0 * fine[z, y, x] + 70.0 * coarse[z, y, x]
                stain = 0.10 - 0.04 * light + 0.12 * fine[z, y, x]
                # microtubules: dark dots across the neurite, lines along it
                if girth[z, y, x] > 80.0 and wall > 30.0:
                    dot = _nearest_dot(own[n], across_a[z, y, x], across_b[z, y, x], 75.0)
                    if dot < 900.0:
                        g = _step(math.sqrt(dot), 11.0)
                        cytoplasm -= 55.0 * g
                        stain += 0.08 * g
                # vesicles: small dark rings, in clouds
                if vesicles[n] and wall > 28.0 and patch[z, y, x] > 0.0:
                    ball = _nearest_ball(
                        ball_key,
                        (begin[0] + z + 0.5) * voxel[0],
                        (begin[1] + y + 0.5) * voxel[1],
                        (begin[2] + x + 0.5) * voxel[2],
                        62.0,
                    )
                    g = _step(ball - 17.0, 8.0)
                    cytoplasm -= 75.0 * g
                    stain += 0.12 * g
                # mitochondrion: dark, with a darker skin, streaked inside, in a light surrounding
                deep = mitochondrion[z, y, x]
                if deep > -40.0:
                    streak = across_a[z, y, x] / 34.0 + 5.0 * coarse[z, y, x]
                    streak = abs(streak - math.floor(streak) - 0.5) * 4.0 - 1.0
                    inner = 78.0 + 9.0 * streak + 50.0 * fine[z, y, x]
                    if deep > 7.0:
                        cytoplasm = inner
                        stain = 0.42 + 0.10 * streak
                    elif deep > -7.0:
                        g = (deep + 7.0) / 14.0
                        cytoplasm = (1.0 - g) * cytoplasm + g * inner
                        stain = (1.0 - g) * stain + g * 0.42
                    g = _step(deep, 6.0)
                    cytoplasm -= 12.0 * g
                    stain += 0.15 * g
                # membrane, thicker and darker at synapses
                g = _step(wall, MEMBRANE_HALF_WIDTH)
                grey = cytoplasm + g * (74.0 + 60.0 * coarse[z, y, x] - cytoplasm)
                granular = 1.0 + 1.2 * fine[z, y, x] + 0.6 * coarse[z, y, x]
                stain += g * (0.62 * granular - 0.5 * stain)
                active = patch[z, y, x]
                if active > 0.26:
                    g = min(1.0, (active - 0.26) / 0.1) * _step(wall, 34.0)
                    grey += 0.8 * g * (58.0 + 60.0 * fine[z, y, x] - grey)
                    stain += 0.45 * g * granular
                out[z, y, x] = 16.0 + 235.0 * max(0.0, stain) if exm else grey


@njit(cache=True, nogil=True)
def _expose(exm, key, begin, grey, shade, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = out.shape
    for z in range(nz):
        section = 1.0 + 0.012 * gauss(hashed(key, 2, begin[0] + z, 0))
        slice_key = hashed(key, 3, begin[0] + z, 0)
        for y in range(ny):
            row_key = hashed(slice_key, begin[1] + y, 0, 0)
            for x in range(nx):
                g = gauss(mix_of(row_key, begin[2] + x))
                value = float(grey[z, y, x]) * section
                if exm:
                    value *= 1.0 + 0.8 * float(shade[z, y, x])
                    # a Poisson count is nearly the square of a Gaussian of deviation 1/2 round the root of its mean
                    root = math.sqrt(max(0.0, value) * (PHOTONS / 255.0)) + 0.5 * g
                    value = max(0.0, root) * root * (255.0 / PHOTONS) + 1.2 * gauss(mix_of(row_key, ~(begin[2] + x)))
                else:
                    value = 128.0 + (value - 128.0) * (1.0 + 0.3 * float(shade[z, y, x])) + 25.0 * float(shade[z, y, x])
                    value += 8.0 * g
                out[z, y, x] = np.uint8(min(255.0, max(0.0, math.floor(value + 0.5))))


@njit(cache=True, nogil=True, inline="always")
def mix_of(key, n):  # type: ignore[no-untyped-def]
    """64 random bits for a key and one integer."""
    return hashed(key, n, 0, 0)
