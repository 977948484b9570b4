"""Descriptors of batches of labels with torch, on the device where the labels are.

On a GPU the moments of a label's bounding box are products with banded matrices, entry t^k g(t) with t = j - i, along
x, then y, then z (Gaussian window), or products of Fourier transforms (spherical window, `fourier`). On a processor
the kernels of `compute` are faster.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from neuroloom.training.descriptors.arguments import check, check_components, check_roi
from neuroloom.training.descriptors.channels import ROUNDING, SMALLEST_VARIANCE
from neuroloom.training.descriptors.compute import lsd
from neuroloom.training.descriptors.fourier import sphere_moments
from neuroloom.training.descriptors.windows import Window, gaussian_moments, gaussian_radius, sphere_radius


def lsd_torch(
    labels: torch.Tensor,
    sigma_nm: float | tuple[float, ...],
    voxel_size: tuple[float, ...],
    downsample: int = 1,
    roi: tuple[slice, ...] | None = None,
    components: Sequence[int] | None = None,
    window: Window = "gaussian",
) -> torch.Tensor:
    """Local shape descriptors of a batch of label arrays, on the device where the labels are.

    Args:
        labels: (b, z, y, x) or (b, y, x), any integer type, 0 = background.
        sigma_nm: size of the window in nm, one for all axes or one per axis.
        voxel_size: nm per voxel along each axis but the batch's.
        downsample: compute on every n-th voxel along each axis and repeat the result.
        roi: the part of every array that is wanted, in voxels, one slice per axis but the batch's; all by default.
        components: the channels wanted, in ascending order; all by default.
        window: "gaussian" with standard deviation sigma, cut off at 3 sigma, or "sphere" with radius sigma.

    Returns:
        (b, 10, z, y, x) float32 in [0, 1], or (b, 6, y, x), of the roi's shape; or as many channels as were chosen.

    Raises:
        ValueError: the batch has not 3 or 4 axes of integers, or another argument makes no sense or does not fit it.
    """
    dimensions = labels.ndim - 1
    if dimensions not in (2, 3):
        raise ValueError(f"labels must be (b, z, y, x) or (b, y, x), not of shape {tuple(labels.shape)}")
    sigma = check(dimensions, sigma_nm, voxel_size, downsample, window)
    channels = check_components(dimensions, components)
    shape = [int(end - begin) for begin, end in check_roi(labels.shape[1:], roi)]
    _check_integers(labels)
    if len(labels) == 0:
        return torch.zeros((0, len(channels), *shape), device=labels.device)
    if labels.device.type == "cpu":
        arrays = [lsd(sample.numpy(), sigma, voxel_size, downsample, roi, components, window) for sample in labels]
        return torch.from_numpy(np.stack(arrays))
    return torch.stack(
        [lsd_by_matrices(sample, sigma, voxel_size, downsample, roi, components, window) for sample in labels]
    )


def lsd_by_matrices(
    labels: torch.Tensor,
    sigma_nm: float | tuple[float, ...],
    voxel_size: tuple[float, ...],
    downsample: int = 1,
    roi: tuple[slice, ...] | None = None,
    components: Sequence[int] | None = None,
    window: Window = "gaussian",
) -> torch.Tensor:
    """Local shape descriptors label by label, as a GPU likes to compute them.

    Args:
        labels: (z, y, x) or (y, x), any integer type, 0 = background.
        sigma_nm, voxel_size, downsample, roi, components, window: as for `lsd`.

    Returns:
        (10, z, y, x) float32 in [0, 1], or (6, y, x), of the roi's shape, on the device of the labels; or as many
        channels as were chosen.

    Raises:
        ValueError: as for `lsd`.
    """
    flat = labels.ndim == 2
    sigma = check(labels.ndim, sigma_nm, voxel_size, downsample, window)
    channels = torch.from_numpy(check_components(labels.ndim, components)).to(labels.device)
    _check_integers(labels)
    region = check_roi(labels.shape, roi).tolist()
    repeats = [downsample] * 3
    if flat:
        labels, sigma, voxel_size = labels[None], (1.0, *sigma), (1.0, *voxel_size)
        region, repeats[0] = [[0, 1], *region], 1
    step = [size * n for size, n in zip(voxel_size, repeats, strict=True)]
    in_voxels = [s / v for s, v in zip(sigma, step, strict=True)]
    radius = [(gaussian_radius if window == "gaussian" else sphere_radius)(s) for s in in_voxels]
    if flat:
        radius[0] = 0
    bands = _bands(labels, repeats, in_voxels, flat) if window == "gaussian" else []
    farthest = sigma if window == "gaussian" else tuple(s / 2 for s in sigma)

    out = torch.zeros((len(channels), *(b - a for a, b in region)), dtype=torch.float32, device=labels.device)
    voxels = labels.nonzero()
    ids, index = torch.unique(labels[tuple(voxels.T)], return_inverse=True)
    blocks = voxels // torch.tensor(repeats, device=labels.device)
    begin, end = torch.tensor(region, device=labels.device).T
    inside = ((voxels >= begin) & (voxels < end)).all(1)
    # first and last + 1 block of each label along each axis, of all of it and of what is wanted of it
    boxes = torch.stack([*_boxes(index, blocks, len(ids)), *_boxes(index[inside], blocks[inside], len(ids))], 1)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # ten bits of mantissa (TF32) would not do
    try:
        with torch.no_grad(), torch.autocast(labels.device.type, enabled=False):
            for number, (low, high, first, last) in enumerate(boxes.tolist()):
                if last[0] == 0:  # none of it is wanted
                    continue
                target = list(zip(first, last, strict=True))
                source = [
                    (max(all_first, a - r), min(all_last, b + r))
                    for all_first, all_last, (a, b), r in zip(low, high, target, radius, strict=True)
                ]
                z, y, x = (slice(a * n, b * n, n) for (a, b), n in zip(source, repeats, strict=True))
                own = labels[z, y, x] == ids[number]
                if window == "gaussian":
                    kernels = (b[:, i[0] : i[1], j[0] : j[1]] for b, i, j in zip(bands, target, source, strict=True))
                    moments = _moments_of_a_box(own.float(), *kernels)
                else:
                    moments = sphere_moments(own, source, target, in_voxels, flat)
                descriptors = _normalise(moments, *(_column(v, moments) for v in (farthest, sigma, step)))
                _paste(descriptors[channels], target, repeats, labels, ids[number], region, out)
    finally:
        torch.set_float32_matmul_precision(precision)
    return out[:, 0] if flat else out


def _paste(
    descriptors: torch.Tensor,
    target: list[tuple[int, int]],
    repeats: list[int],
    labels: torch.Tensor,
    label: torch.Tensor,
    region: list[list[int]],
    out: torch.Tensor,
) -> None:
    """Copy descriptors (c, z, y, x) of blocks `target` to the label's own voxels, as far as `out` shows them."""
    in_labels, in_out = [], []
    for axis, ((first, last), (begin, end), n) in enumerate(zip(target, region, repeats, strict=True)):
        a, b = max(first * n, begin), min(last * n, end)
        descriptors = descriptors.repeat_interleave(n, axis + 1).narrow(axis + 1, a - first * n, b - a)
        in_labels.append(slice(a, b))
        in_out.append(slice(a - begin, b - begin))
    box = out[(slice(None), *in_out)]
    box.copy_(torch.where(labels[tuple(in_labels)] == label, descriptors, box))


def _check_integers(labels: torch.Tensor) -> None:
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
        raise ValueError(f"labels must be integers, not {labels.dtype}")


def _boxes(index: torch.Tensor, blocks: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """First and last + 1 block (n, 3) of each of n labels; last 0 where it has none."""
    index = index[:, None].expand(-1, 3)
    low = torch.full((number, 3), torch.iinfo(torch.int64).max, device=blocks.device).scatter_reduce(
        0, index, blocks, "amin"
    )
    return low, torch.zeros_like(low).scatter_reduce(0, index, blocks + 1, "amax")


def _bands(labels: torch.Tensor, repeats: list[int], sigma: list[float], flat: bool) -> list[torch.Tensor]:
    """For each axis (3, n, n), entry [k, i, j] = t^k g(t) with t = j - i; sigma in blocks of `repeats` voxels."""
    bands = []
    for axis in range(3):
        kernel = np.array([[1.0], [0.0], [0.0]]) if flat and axis == 0 else gaussian_moments(sigma[axis])
        radius = kernel.shape[1] // 2
        places = np.arange(-(-labels.shape[axis] // repeats[axis]))
        offset = places[None, :] - places[:, None]
        band = np.where(np.abs(offset) <= radius, kernel[:, np.clip(offset, -radius, radius) + radius], 0.0)
        bands.append(torch.from_numpy(band).to(labels.device, torch.float32))
    return bands


def _moments_of_a_box(own: torch.Tensor, z: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A label's mask (z, y, x) and bands (3, n', n) per axis -> moments (10, z', y', x'), in voxels."""
    by_x = torch.einsum("kxu,zyu->kzyx", x, own)
    by_y = torch.cat([y[0] @ by_x, y[1] @ by_x[:2], y[2] @ by_x[:1]])
    planes = by_y.flatten(2)  # 0 one, 1 x, 2 xx, 3 y, 4 yx, 5 yy
    one, x_, xx, y_, yx, yy = z[0] @ planes
    z_, zy, zx = z[1] @ planes[[0, 3, 1]]
    zz = z[2] @ planes[0]
    return torch.stack([one, z_, y_, x_, zz, yy, xx, zy, zx, yx]).reshape(10, z.shape[1], y.shape[1], x.shape[1])


def _column(values: Sequence[float], moments: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=moments.dtype, device=moments.device).reshape(3, 1, 1, 1)


def _normalise(moments: torch.Tensor, farthest: torch.Tensor, sigma: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """Moments (10, z, y, x) in voxels: S, z y x, zz yy xx, zy zx yx -> descriptors (10, z, y, x) float32."""
    size = moments[:1]
    total = torch.where(size > 0, size, 1.0)
    mean = moments[1:4] / total * unit
    square = moments[4:7] / total * unit**2
    variance = square - mean**2
    flat = variance < ROUNDING * square
    variance = torch.where(flat, 0.0, variance).clamp(min=SMALLEST_VARIANCE)
    first, second = [0, 0, 1], [1, 2, 2]
    covariance = moments[7:] / total * unit[first] * unit[second] - mean[first] * mean[second]
    covariance = torch.where(flat[first] | flat[second], 0.0, covariance)
    pearson = covariance / (variance[first] * variance[second]).sqrt()
    mean, variance, pearson = mean / farthest * 0.5 + 0.5, variance / sigma**2, pearson * 0.5 + 0.5
    return torch.cat([mean, variance, pearson, size]).clamp(0, 1).float()
