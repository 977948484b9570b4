"""Do labels lie where raw shows them? Borders of labels against shifted copies of raw.

Membranes are darker (or, stained, brighter) than what they part, so the correlation

    C(s) = sum over v of (border(v) - mean) * (image(v + s) - mean), divided by both standard deviations

of the borders of labels with the image has its extremum at the shift s by which the labels lie off: 0 when aligned.
The image is raw with large areas taken out (a narrow Gaussian less a wide one); where neighbours differ in grey value
and no membrane shows, the steepness of raw has the higher peak and takes its place. All shifts at once by the fast
Fourier transform. On EM volumes that fit, C is 0.35 to 0.7; mirrored or transposed labels give less than 0.05.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

REACH = 12  # voxels; the largest shift that is looked for
VISIBLE = 0.15  # correlation below which borders do not show in raw
_BLUR = 1.0  # voxels
_SURROUND = 3.0  # voxels


@dataclass(frozen=True)
class Alignment:
    """How raw and labels fit.

    Attributes:
        shift: Voxels, z y x, by which the labels must be moved to fit raw.
        correlation: At that shift, 0 to 1.
        in_place: The correlation at no shift.
        curve: `(z, y, x)` correlation at every shift, no shift in the middle.
    """

    shift: tuple[int, int, int]
    correlation: float
    in_place: float
    curve: NDArray[np.float64]


def measure_alignment(
    cubes: Iterable[tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]], voxel_size: Sequence[float]
) -> Alignment | None:
    """Find the shift between raw and labels.

    Args:
        cubes: raw `(z, y, x)`, labels and mask (None for 1 everywhere) of some regions of one shape.
        voxel_size: nm, z y x; sections much thicker than the others are not compared with each other.

    Returns:
        The alignment, or None when there are no borders inside the mask.
    """
    dark: list[NDArray[np.float64]] = []
    steep: list[NDArray[np.float64]] = []
    # borders between thick sections say little: neurites wander from one to the next
    axes = [axis for axis in range(3) if voxel_size[axis] < 2 * min(voxel_size)]
    for raw, labels, mask in cubes:
        borders = label_borders(labels, axes)
        inside = np.ones(borders.shape, bool) if mask is None else mask != 0
        if not (borders & inside).any() or (borders | ~inside).all():
            continue
        weight = np.where(inside, borders - borders[inside].mean(), 0.0)
        sigma = [_BLUR if axis in axes else 0.0 for axis in range(3)]
        grey = raw.astype(np.float32)
        slopes = [ndimage.gaussian_filter(grey, sigma, order=[int(a == axis) for a in range(3)]) for axis in axes]
        wide = [_SURROUND / _BLUR * s for s in sigma]
        # only what is narrow: large dark and bright areas correlate with anything
        dark.append(_correlate(weight, ndimage.gaussian_filter(grey, sigma) - ndimage.gaussian_filter(grey, wide)))
        steepness = np.sqrt(sum(slope**2 for slope in slopes))
        steep.append(_correlate(weight, steepness - ndimage.gaussian_filter(steepness, wide)))
    if not dark:
        return None
    by_grey = np.abs(np.mean(dark, axis=0))
    by_slope = np.clip(np.mean(steep, axis=0), 0.0, None)
    curve = by_grey if by_grey.max() >= by_slope.max() else by_slope
    middle = tuple((n - 1) // 2 for n in curve.shape)
    z, y, x = (int(i) - m for i, m in zip(np.unravel_index(np.argmax(curve), curve.shape), middle, strict=True))
    return Alignment((z, y, x), float(curve.max()), float(curve[middle]), curve)


def label_borders(labels: NDArray[Any], axes: Sequence[int] = (0, 1, 2)) -> NDArray[np.bool_]:
    """Voxels that have another label next to them, on both sides of every border; and thin membranes of label 0.

    Args:
        labels: `(z, y, x)`.
        axes: Along which neighbours count.
    """
    borders = np.zeros(labels.shape, bool)
    for axis in axes:
        before, after = (
            tuple(part if a == axis else slice(None) for a in range(3)) for part in (slice(0, -1), slice(1, None))
        )
        differ = labels[before] != labels[after]
        borders[before] |= differ
        borders[after] |= differ
    unlabelled = labels == 0
    if unlabelled.any():
        near = ndimage.generate_binary_structure(3, 1)
        for axis in {0, 1, 2} - set(axes):
            near = near.take([1], axis=axis)
        borders |= ndimage.binary_dilation(borders, near, iterations=2) & unlabelled
    return borders


def _correlate(weight: NDArray[Any], image: NDArray[Any]) -> NDArray[np.float64]:
    """Correlation of a map with an image at all shifts within reach; the map's rim, that wide, is left out."""
    reach = [min(REACH, (n - 1) // 2) for n in weight.shape]
    core = np.zeros(weight.shape, np.float64)
    inner = tuple(slice(r, n - r) for r, n in zip(reach, weight.shape, strict=True))
    core[inner] = weight[inner]
    spread = image - image.mean()
    scale = np.sqrt(np.square(core).sum() * np.square(spread).mean() * core[inner].size)
    if scale == 0:
        return np.zeros([2 * r + 1 for r in reach])
    product = np.conj(fft.rfftn(core)) * fft.rfftn(spread)
    curve = fft.irfftn(product, s=core.shape)
    return np.roll(curve, reach, axis=(0, 1, 2))[tuple(slice(0, 2 * r + 1) for r in reach)] / scale
