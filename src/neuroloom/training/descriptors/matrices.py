"""Descriptors of batches of labels with torch, on the device where the labels are.

On a GPU the moments of a label's bounding box are products with banded matrices, entry t^k g(t) with t = j - i, along
x, then y, then z (Gaussian window), or products of Fourier transforms (spherical window, `fourier`). On a processor
the kernels of `compute` are faster.

A GPU computes a box in less time than it takes to ask for it. So boxes of about the same extent, of all labels of all
samples, are computed together:

    labels -> boxes -> groups of boxes, made equal by a rim -> moments of a group -> descriptors -> each label's voxels

The rim does no harm: where it leaves a label's box there is nothing of the label within reach of a wanted place.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from neuroloom.training.descriptors.arguments import check, check_components, check_roi
from neuroloom.training.descriptors.channels import ROUNDING, SMALLEST_VARIANCE
from neuroloom.training.descriptors.compute import lsd
from neuroloom.training.descriptors.fourier import sphere_moments
from neuroloom.training.descriptors.windows import Window, gaussian_moments, gaussian_radius, sphere_radius

GROUP_PLACES = 1 << 24
"""Places of the boxes of a group; for each of them ten numbers are in memory, twice."""


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
    return lsd_by_matrices(labels, sigma, voxel_size, downsample, roi, components, window)


@dataclass(frozen=True)
class _Boxes:
    """Boxes of labels, in places: every `downsample`-th voxel.

    Attributes:
        sample: In which sample each is, (n,).
        begin, end: First and last + 1 place of the part of the label that takes part, z y x, (n, 3).
        first, last: The same for the part of which descriptors are wanted; last is 0 where none are.
    """

    sample: NDArray[np.int64]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]


@dataclass(frozen=True)
class _Group:
    """Boxes that are computed together.

    Attributes:
        labels: Their numbers in ascending order, (n,), on the device.
        sample, begin, end, first: As in `_Boxes`, on the device.
        extent: Places of every box, z y x, at least as many as the largest has.
        wanted: The same for the part of which descriptors are wanted.
        voxels: Indices of the wanted voxels of these labels.
    """

    labels: torch.Tensor
    sample: torch.Tensor
    begin: torch.Tensor
    end: torch.Tensor
    first: torch.Tensor
    extent: tuple[int, ...]
    wanted: tuple[int, ...]
    voxels: torch.Tensor


def lsd_by_matrices(
    labels: torch.Tensor,
    sigma_nm: float | tuple[float, ...],
    voxel_size: tuple[float, ...],
    downsample: int = 1,
    roi: tuple[slice, ...] | None = None,
    components: Sequence[int] | None = None,
    window: Window = "gaussian",
) -> torch.Tensor:
    """Local shape descriptors as a GPU likes to compute them.

    Args:
        labels: (b, z, y, x) or (b, y, x), any integer type, 0 = background.
        sigma_nm, voxel_size, downsample, roi, components, window: as for `lsd_torch`.

    Returns:
        As `lsd_torch`, on the device of the labels.

    Raises:
        ValueError: as for `lsd_torch`.
    """
    flat = labels.ndim == 3
    sigma = check(labels.ndim - 1, sigma_nm, voxel_size, downsample, window)
    channels = torch.from_numpy(check_components(labels.ndim - 1, components)).to(labels.device)
    _check_integers(labels)
    region = check_roi(labels.shape[1:], roi).tolist()
    repeats = [downsample] * 3
    if flat:
        labels, sigma, voxel_size = labels[:, None], (1.0, *sigma), (1.0, *voxel_size)
        region, repeats[0] = [[0, 1], *region], 1
    step = [size * n for size, n in zip(voxel_size, repeats, strict=True)]
    in_places = [s / v for s, v in zip(sigma, step, strict=True)]
    farthest = sigma if window == "gaussian" else tuple(s / 2 for s in sigma)

    z, y, x = (slice(a, b) for a, b in region)
    shape = labels[:, z, y, x].shape
    out = torch.zeros((len(channels), math.prod(shape)), dtype=torch.float32, device=labels.device)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # ten bits of mantissa (TF32) would not do
    try:
        with torch.no_grad(), torch.autocast(labels.device.type, enabled=False):
            seen, wanted = _numbers(labels[:, :: repeats[0], :: repeats[1], :: repeats[2]], labels[:, z, y, x])
            places = [torch.arange(a, b, device=labels.device) // n for (a, b), n in zip(region, repeats, strict=True)]
            tables = [_table(s, flat and axis == 0, labels.device) for axis, s in enumerate(in_places)]
            units = [
                torch.tensor(v, dtype=torch.float64, device=labels.device).reshape(3, 1, 1, 1, 1)
                for v in (farthest, sigma, step)
            ]
            for group in _groups(seen, wanted, places, _radius(in_places, window, flat), together=window == "gaussian"):
                if window == "gaussian":
                    moments = _gaussian_moments(seen, group, tables)
                else:
                    moments = _sphere_moments(seen, group, in_places, flat)
                descriptors = _normalise(moments, *(unit.to(moments.dtype) for unit in units))
                out[:, group.voxels] = _at_voxels(descriptors[channels], group, wanted, places)
    finally:
        torch.set_float32_matmul_precision(precision)
    result = out.reshape(len(channels), *shape).movedim(0, 1).contiguous()
    return result[:, :, 0] if flat else result


def _check_integers(labels: torch.Tensor) -> None:
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
        raise ValueError(f"labels must be integers, not {labels.dtype}")


def _radius(sigma: Sequence[float], window: Window, flat: bool) -> list[int]:
    radius = [(gaussian_radius if window == "gaussian" else sphere_radius)(s) for s in sigma]
    return [0, *radius[1:]] if flat else radius


def _numbers(seen: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Number the labels (b, z, y, x) from 0, those of each sample for themselves; -1 for background.

    Args:
        seen: Every n-th voxel.
        wanted: All voxels of which descriptors are wanted.
    """
    ids, index = torch.unique(torch.cat([seen.reshape(-1), wanted.reshape(-1)]), return_inverse=True)
    numbers = []
    for part, of_part in zip((seen, wanted), torch.split(index, [seen.numel(), wanted.numel()]), strict=True):
        first = len(ids) * torch.arange(len(part), device=part.device).reshape(-1, 1, 1, 1)
        numbers.append(torch.where(part == 0, -1, of_part.reshape(part.shape) + first))
    there = torch.zeros(len(ids) * len(seen) + 1, dtype=torch.int64, device=seen.device)
    for part in numbers:
        there[part.reshape(-1)] = 1  # the last stands for background
    there[-1] = 0
    compact = torch.where(there == 1, there.cumsum(0) - 1, -1)
    return compact[numbers[0]], compact[numbers[1]]


def _boxes(seen: torch.Tensor, wanted: torch.Tensor, places: list[torch.Tensor], radius: Sequence[int]) -> _Boxes:
    """Boxes of all labels; places are those of the voxels of `wanted` along each axis."""
    number = int(max((int(part.max()) for part in (seen, wanted) if part.numel()), default=-1)) + 1
    everywhere = [torch.arange(n, device=seen.device) for n in seen.shape[1:]]
    samples = [torch.arange(len(part), device=part.device) for part in (seen, wanted)]
    edges = []
    for part, along, of_sample in ((seen, everywhere, samples[0]), (wanted, places, samples[1])):
        low, high = [], []
        for axis, place in enumerate((of_sample, *along)):
            size = int(max(len(part), *seen.shape[1:]))
            there = torch.zeros((number + 1) * size, dtype=torch.bool, device=seen.device)
            place = place.reshape([-1 if a == axis else 1 for a in range(4)])
            # the last row is that of background
            there[(torch.where(part < 0, number, part) * size + place).reshape(-1)] = True
            there = there.reshape(-1, size)[:number]
            low.append(there.byte().argmax(1))
            high.append(torch.where(there.any(1), size - there.flip(1).byte().argmax(1), 0))
        edges.append((torch.stack(low, 1).cpu().numpy(), torch.stack(high, 1).cpu().numpy()))
    (begin, end), (first, last) = edges
    sample = np.where(end[:, 0] > 0, begin[:, 0], first[:, 0])
    begin, end, first, last = begin[:, 1:], end[:, 1:], first[:, 1:], last[:, 1:]
    begin, end = np.maximum(begin, first - radius), np.minimum(end, last + np.array(radius))
    # where something is wanted, though none of the n-th voxels is there, the box holds nothing
    return _Boxes(sample, np.minimum(begin, first), np.maximum(end, last), first, last)


def _groups(
    seen: torch.Tensor, wanted: torch.Tensor, places: list[torch.Tensor], radius: Sequence[int], together: bool
) -> Iterator[_Group]:
    """Labels of which descriptors are wanted, those of about the same extent together."""
    boxes = _boxes(seen, wanted, places, radius)
    extents = np.concatenate([boxes.end - boxes.begin, boxes.last - boxes.first], axis=1)
    there = np.flatnonzero(boxes.last[:, 0] > 0)
    if together and len(there):
        # along each axis half or all of what the largest box has: few groups, and not much more to compute
        largest = extents[there].max(axis=0)
        half = -(-largest // 2)
        extents = np.where(extents <= half, half, largest)
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for label in there.tolist():
        alike[tuple(extents[label].tolist())].append(label)
    groups = []
    for both, labels in alike.items():
        extent, of_wanted = both[:3], both[3:]
        number = GROUP_PLACES // math.prod(max(a, b) for a, b in zip(extent, of_wanted, strict=True))
        number = max(1, number) if together else 1
        groups += [(labels[n : n + number], extent, of_wanted) for n in range(0, len(labels), number)]
    of_label = np.full(len(boxes.sample) + 1, len(groups))  # the last stands for background
    for number, (labels, _, _) in enumerate(groups):
        of_label[labels] = number
    # indices of voxels, those of a group side by side
    of_voxel, order = torch.sort(torch.from_numpy(of_label).to(seen.device)[wanted.reshape(-1)])
    voxels = torch.split(order, torch.bincount(of_voxel, minlength=len(groups) + 1).tolist())
    # to the device at once: a small copy takes as long as a large one
    columns = np.concatenate([boxes.sample[:, None], boxes.begin, boxes.end, boxes.first], axis=1)
    in_order = np.concatenate([np.asarray(labels, dtype=np.int64) for labels, _, _ in groups] or [there])
    everything = torch.from_numpy(np.concatenate([in_order[:, None], columns[in_order]], axis=1)).to(seen.device)
    parts = torch.split(everything, [len(labels) for labels, _, _ in groups])
    for (_, extent, of_wanted), part, own in zip(groups, parts, voxels, strict=False):
        yield _Group(part[:, 0], part[:, 1], part[:, 2:5], part[:, 5:8], part[:, 8:], extent, of_wanted, own)


def _own(seen: torch.Tensor, group: _Group) -> torch.Tensor:
    """Where the label of each box is, (n, z, y, x) bool; anything beyond the end of a box."""
    index = [group.sample.reshape(-1, 1, 1, 1)]
    for axis, extent in enumerate(group.extent):
        place = group.begin[:, axis, None] + torch.arange(extent, device=seen.device)
        shape = [-1, *(extent if a == axis else 1 for a in range(3))]
        index.append(place.clamp(max=seen.shape[axis + 1] - 1).reshape(shape))
    return seen[tuple(index)] == group.labels.reshape(-1, 1, 1, 1)


def _gaussian_moments(seen: torch.Tensor, group: _Group, tables: Sequence[torch.Tensor]) -> torch.Tensor:
    """Moments (10, n, z, y, x) over a Gaussian window of each box of a group, in places."""
    z, y, x = (_bands(group, axis, table) for axis, table in enumerate(tables))
    own = _own(seen, group).float()
    by_x = (own.flatten(1, 2) @ x.mT).reshape(3, *own.shape[:3], -1)
    y = y[:, :, None]
    by_y = torch.cat([y[0] @ by_x, y[1] @ by_x[:2], y[2] @ by_x[:1]])
    planes = by_y.flatten(3)  # 0 one, 1 x, 2 xx, 3 y, 4 yx, 5 yy
    one, x_, xx, y_, yx, yy = z[0] @ planes
    z_, zy, zx = z[1] @ planes[[0, 3, 1]]
    zz = z[2] @ planes[0]
    return torch.stack([one, z_, y_, x_, zz, yy, xx, zy, zx, yx]).reshape(10, len(own), *group.wanted)


def _table(sigma: float, flat: bool, device: torch.device) -> torch.Tensor:
    """t^k g(t) for t = -r ... r, and a 0 for everything beyond, (3, 2 r + 2); sigma in places."""
    kernel = np.array([[1.0], [0.0], [0.0]]) if flat else gaussian_moments(sigma)
    return torch.from_numpy(np.pad(kernel, ((0, 0), (0, 1)))).to(device, torch.float32)


def _bands(group: _Group, axis: int, table: torch.Tensor) -> torch.Tensor:
    """For each box (3, n, wanted, extent), entry [k, :, i, j] = t^k g(t), t from wanted place i to place j.

    0 beyond the end of a box.
    """
    device, radius = table.device, table.shape[1] // 2 - 1
    i = torch.arange(group.wanted[axis], device=device)[:, None]
    j = torch.arange(group.extent[axis], device=device)
    offset = j - i + (group.begin - group.first)[:, axis, None, None]
    counts = (offset.abs() <= radius) & (j < (group.end - group.begin)[:, axis, None, None])
    return table[:, torch.where(counts, offset + radius, 2 * radius + 1)]


def _sphere_moments(seen: torch.Tensor, group: _Group, sigma: Sequence[float], flat: bool) -> torch.Tensor:
    """Moments (10, 1, z, y, x) over a sphere of the only box of a group, in places."""
    begin, end, first = (part[0].tolist() for part in (group.begin, group.end, group.first))
    wanted = [(a, a + n) for a, n in zip(first, group.wanted, strict=True)]
    return sphere_moments(_own(seen, group)[0], list(zip(begin, end, strict=True)), wanted, sigma, flat)[:, None]


def _at_voxels(
    descriptors: torch.Tensor, group: _Group, wanted: torch.Tensor, places: list[torch.Tensor]
) -> torch.Tensor:
    """Descriptors (c, n, z, y, x) of a group's boxes -> those of its voxels (c, voxels)."""
    # labels of a group are in ascending order
    index = torch.searchsorted(group.labels.contiguous(), wanted.reshape(-1)[group.voxels])
    first = group.first[index]
    rest = group.voxels
    coordinates = []
    for size in reversed(wanted.shape[1:]):
        coordinates.append(rest % size)
        rest = rest // size
    for axis, (place, coordinate) in enumerate(zip(places, reversed(coordinates), strict=True)):
        index = index * group.wanted[axis] + place[coordinate] - first[:, axis]
    return descriptors.flatten(1)[:, index]


def _normalise(moments: torch.Tensor, farthest: torch.Tensor, sigma: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """Moments (10, n, z, y, x) in places: S, z y x, zz yy xx, zy zx yx -> descriptors (10, n, z, y, x) float32."""
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
