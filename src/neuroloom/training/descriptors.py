"""Local shape descriptors (LSDs): what an object looks like around each of its voxels.

For a voxel v of label l != 0, with offsets d = u - v in nm and weights w(u) = G(d) [label(u) = l], where G is a
Gaussian truncated at 3 sigma and normalised to sum 1 over its full window (voxels outside the array have no label):

    S = sum w        m = sum w d / S        C = sum w d d' / S - m m'

    channels   0-2  mean offset       m_z m_y m_x                / sigma * 0.5 + 0.5
               3-5  variances         C_zz C_yy C_xx             / sigma^2   (at least 1e-3 nm^2)
               6-8  Pearson           zy, zx, yx                 * 0.5 + 0.5
               9    size              S

all clipped to [0, 1], and 0 where the label is 0. In two dimensions: 2 + 2 + 1 + 1 = 6 channels.

Downsampled by n, the sums run over every n-th voxel along each axis, starting with the first, and are taken at those
voxels: v has the descriptor of its own label at the first voxel of its block of n^3. Where no voxel of the label is
left within the window, S is 0, and the label counts as a point at v.

Because d is relative to the centre voxel, every moment is a product of three one-dimensional kernels g, t g, t^2 g, and
nothing large cancels. Only the label's own surroundings matter, so the work is cut into columns of one label each:

    x: a run of equal labels along x adds the difference of two running sums of the kernel, however long it is
                                       -> 1, x, x^2                                  at the column's voxels
    y: weighted sum of rows            -> 1, x, x^2, y, xy, y^2                       at the column's voxels
    z: weighted sum of planes          -> S and the nine moments                      at the label's own voxels only

Source: Sheridan et al., "Local shape descriptors for neuron segmentation", Nature Methods 2022,
doi:10.1038/s41592-022-01711-z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

TRUNCATION = 3.0
"""Radius of the Gaussian window in standard deviations."""

SMALLEST_VARIANCE = 1e-3
"""Lower bound of the variances in nm^2, which keeps the Pearson coefficients finite."""

ROUNDING = 1e-5
"""A variance smaller than this part of the mean square is what single precision leaves of 0."""

COLUMN_HEIGHT, COLUMN_WIDTH = 16, 32
"""Largest extent of a column in y and x, in voxels: its moments should stay in the processor's second-level cache."""

FLAT_CHANNELS = [1, 2, 4, 5, 8, 9]
"""The channels of the three-dimensional descriptor that a two-dimensional one has."""


def lsd(
    labels: NDArray[np.integer],
    sigma_nm: float | tuple[float, ...],
    voxel_size: tuple[float, ...],
    downsample: int = 1,
    roi: tuple[slice, ...] | None = None,
) -> NDArray[np.float32]:
    """Local shape descriptors of a label array.

    Args:
        labels: (z, y, x) or (y, x), any integer type, 0 = background.
        sigma_nm: standard deviation of the Gaussian in nm, one for all axes or one per axis.
        voxel_size: nm per voxel along each axis.
        downsample: compute on every n-th voxel along each axis, and on blocks of that size; 2 in the published
            trainings.
        roi: the part of the array that is wanted, in voxels; all of it by default. Labels outside it are context:
            give 3 sigma on every side where there is some.

    Returns:
        (10, z, y, x) float32 in [0, 1], or (6, y, x), of the roi's shape.

    Raises:
        ValueError: the array has not 2 or 3 axes, or sigma, voxel size, downsample or roi do not fit it.
    """
    dimensions = labels.ndim
    sigma = _check(dimensions, sigma_nm, voxel_size, downsample)
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, not {labels.dtype}")
    roi = tuple(slice(None) for _ in range(dimensions)) if roi is None else roi
    if len(roi) != dimensions or any(part.step not in (None, 1) for part in roi):
        raise ValueError(f"roi must have one slice without step per axis, not {roi}")
    window = np.array(
        [part.indices(size)[:2] for part, size in zip(roi, labels.shape, strict=True)], dtype=np.int64
    ).reshape(dimensions, 2)
    window[:, 1] = np.maximum(window[:, 0], window[:, 1])

    repeats = np.full(3, downsample, dtype=np.int64)
    if dimensions == 2:
        labels, sigma, voxel_size = labels[None], (1.0, *sigma), (1.0, *voxel_size)
        window = np.concatenate([[[0, 1]], window])
        repeats[0] = 1
    labels = np.ascontiguousarray(labels)
    # equality is all that matters of an id, so that 64-bit ids are compared as they lie in memory
    ids: NDArray[np.int64] = labels.view(np.int64) if labels.dtype.itemsize == 8 else labels.astype(np.int64)

    step = np.array(voxel_size, dtype=np.float64) * repeats
    out = np.zeros((10, *(window[:, 1] - window[:, 0])), dtype=np.float32)
    _fill(ids, np.array(sigma, dtype=np.float64), step, repeats, window, out, flat=dimensions == 2)
    return np.ascontiguousarray(out[FLAT_CHANNELS, 0]) if dimensions == 2 else out


def lsd_torch(
    labels: torch.Tensor, sigma_nm: float | tuple[float, ...], voxel_size: tuple[float, ...], downsample: int = 1
) -> torch.Tensor:
    """Local shape descriptors of a batch of label arrays, on the device where the labels are.

    Args:
        labels: (b, z, y, x) int64, 0 = background.
        sigma_nm: standard deviation of the Gaussian in nm, one for all axes or one per axis.
        voxel_size: nm per voxel along z, y, x.
        downsample: compute on every n-th voxel along each axis and repeat the result.

    Returns:
        (b, 10, z, y, x) float32 in [0, 1].

    Raises:
        ValueError: the batch has not 4 axes, or sigma, voxel size or downsample do not fit it.
    """
    if labels.ndim != 4:
        raise ValueError(f"labels must be (b, z, y, x), not of shape {tuple(labels.shape)}")
    sigma = _check(3, sigma_nm, voxel_size, downsample)
    if labels.device.type == "cpu":
        batch = [torch.from_numpy(lsd(sample.numpy(), sigma, voxel_size, downsample)) for sample in labels]
    else:
        batch = [lsd_by_matrices(sample, sigma, voxel_size, downsample) for sample in labels]
    return torch.stack(batch) if batch else torch.zeros((0, 10, *labels.shape[1:]), device=labels.device)


def lsd_by_matrices(
    labels: torch.Tensor, sigma_nm: float | tuple[float, ...], voxel_size: tuple[float, ...], downsample: int = 1
) -> torch.Tensor:
    """Local shape descriptors as products of each label's bounding box with banded matrices: the way of a GPU.

    Args:
        labels: (z, y, x) int64, 0 = background.
        sigma_nm: standard deviation of the Gaussian in nm, one for all axes or one per axis.
        voxel_size: nm per voxel along z, y, x.
        downsample: compute on every n-th voxel along each axis and repeat the result.

    Returns:
        (10, z, y, x) float32 in [0, 1], on the device of the labels.
    """
    sigma = _check(3, sigma_nm, voxel_size, downsample)
    step = [size * downsample for size in voxel_size]
    # bands[axis]: (3, n, n), entry [k, i, j] = t^k g(t) with t = j - i
    bands = []
    for axis in range(3):
        kernel = gaussian_moments(sigma[axis] / step[axis])
        radius = kernel.shape[1] // 2
        places = np.arange(-(-labels.shape[axis] // downsample))
        offset = places[None, :] - places[:, None]
        band = np.where(np.abs(offset) <= radius, kernel[:, np.clip(offset, -radius, radius) + radius], 0.0)
        bands.append(torch.from_numpy(band).to(labels.device, torch.float32))
    deviation, unit = (
        torch.tensor(values, dtype=torch.float32, device=labels.device).reshape(3, 1, 1, 1) for values in (sigma, step)
    )

    out = torch.zeros((10, *labels.shape), dtype=torch.float32, device=labels.device)
    voxels = labels.nonzero()
    ids, index = torch.unique(labels[tuple(voxels.T)], return_inverse=True)
    blocks = voxels // downsample
    low = torch.full((len(ids), 3), max(labels.shape), dtype=torch.int64, device=labels.device)
    low = low.scatter_reduce(0, index[:, None].expand(-1, 3), blocks, "amin")
    high = torch.zeros_like(low).scatter_reduce(0, index[:, None].expand(-1, 3), blocks + 1, "amax")
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # ten bits of mantissa (TF32) would not do
    try:
        with torch.no_grad(), torch.autocast(labels.device.type, enabled=False):
            for number, (first, last) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
                z, y, x = (slice(a * downsample, b * downsample) for a, b in zip(first, last, strict=True))
                own = labels[z, y, x] == ids[number]
                moments = _moments_of_a_box(
                    own[::downsample, ::downsample, ::downsample].float(),
                    *(band[:, a:b, a:b] for band, a, b in zip(bands, first, last, strict=True)),
                )
                descriptors = _normalise(moments, deviation, unit)
                for axis in range(3):
                    descriptors = descriptors.repeat_interleave(downsample, axis + 1)
                    descriptors = descriptors.narrow(axis + 1, 0, own.shape[axis])
                box = out[:, z, y, x]
                box.copy_(torch.where(own, descriptors, box))
    finally:
        torch.set_float32_matmul_precision(precision)
    return out


def context(sigma_nm: float | tuple[float, ...], voxel_size: tuple[float, ...], downsample: int = 1) -> tuple[int, ...]:
    """How many voxels around a place its descriptors depend on, along each axis.

    Args:
        sigma_nm: standard deviation of the Gaussian in nm, one for all axes or one per axis.
        voxel_size: nm per voxel along each axis.
        downsample: the factor the descriptors are computed with.

    Returns:
        Voxels on every side, a multiple of `downsample`, so that a crop enlarged by them keeps its phase.
    """
    sigma = _check(len(voxel_size), sigma_nm, voxel_size, downsample)
    return tuple(
        downsample * _radius(deviation / (size * downsample)) for deviation, size in zip(sigma, voxel_size, strict=True)
    )


def gaussian_moments(sigma: float) -> NDArray[np.float64]:
    """The kernels g, t g and t^2 g of a Gaussian truncated at 3 sigma and normalised to sum 1.

    Args:
        sigma: standard deviation in voxels.

    Returns:
        (3, 2 r + 1) float64 with r = 3 sigma, rounded.
    """
    radius = _radius(sigma)
    offset = np.arange(-radius, radius + 1, dtype=np.float64)
    weight = np.exp(-0.5 * (offset / sigma) ** 2)
    weight /= weight.sum()
    return np.stack([weight, offset * weight, offset**2 * weight])


def _radius(sigma: float) -> int:
    return int(TRUNCATION * sigma + 0.5)


def _check(
    dimensions: int, sigma_nm: float | tuple[float, ...], voxel_size: Sequence[float], downsample: int
) -> tuple[float, ...]:
    """The standard deviation per axis in nm, after a look at all parameters."""
    if dimensions not in (2, 3):
        raise ValueError(f"labels must have 2 or 3 axes, not {dimensions}")
    sigma = (float(sigma_nm),) * dimensions if isinstance(sigma_nm, int | float) else tuple(map(float, sigma_nm))
    if len(sigma) != dimensions or not all(math.isfinite(value) and value > 0 for value in sigma):
        raise ValueError(f"sigma_nm must be one positive number or {dimensions}, not {sigma_nm}")
    if len(voxel_size) != dimensions or not all(math.isfinite(value) and value > 0 for value in voxel_size):
        raise ValueError(f"voxel_size must have {dimensions} positive numbers, not {tuple(voxel_size)}")
    if downsample < 1:
        raise ValueError(f"downsample must be 1 or more, not {downsample}")
    return sigma


def _moments_of_a_box(own: torch.Tensor, z: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A label's mask (z, y, x) and bands (3, n, n) per axis -> moments (10, z, y, x), in voxels."""
    by_x = torch.einsum("kxu,zyu->kzyx", x, own)
    by_y = torch.cat([y[0] @ by_x, y[1] @ by_x[:2], y[2] @ by_x[:1]])
    planes = by_y.flatten(2)  # 0 one, 1 x, 2 xx, 3 y, 4 yx, 5 yy
    one, x_, xx, y_, yx, yy = z[0] @ planes
    z_, zy, zx = z[1] @ planes[[0, 3, 1]]
    zz = z[2] @ planes[0]
    return torch.stack([one, z_, y_, x_, zz, yy, xx, zy, zx, yx]).reshape(10, *own.shape)


def _normalise(moments: torch.Tensor, sigma: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """Moments (10, z, y, x) in voxels: S, z y x, zz yy xx, zy zx yx -> descriptors (10, z, y, x)."""
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
    mean, variance, pearson = mean / sigma * 0.5 + 0.5, variance / sigma**2, pearson * 0.5 + 0.5
    return torch.cat([mean, variance, pearson, size]).clamp(0, 1)


def _fill(
    labels: NDArray[np.int64],
    sigma: NDArray[np.float64],
    step: NDArray[np.float64],
    repeats: NDArray[np.int64],
    window: NDArray[np.int64],
    out: NDArray[np.float32],
    flat: bool,
) -> None:
    """Write the descriptors of `labels`, computed on every n-th voxel, into `out`, which shows `window` of them."""
    if out.size == 0:
        return
    # wanted: runs of blocks in which a label has voxels; seen: runs of those n-th voxels that have the label
    wanted_label, wanted = _sort_runs(*_find_runs(labels, repeats, window))
    if len(wanted) == 0:
        return
    coarse = np.ascontiguousarray(labels[:: repeats[0], :: repeats[1], :: repeats[2]])
    everything = np.array([[0, size] for size in coarse.shape])
    seen_label, seen = _sort_runs(*_find_runs(coarse, np.ones(3, dtype=np.int64), everything))
    first = np.flatnonzero(np.concatenate([[True], wanted_label[1:] != wanted_label[:-1]]))
    ids = wanted_label[first]
    # per label: first and last run of both kinds
    group = np.stack(
        [
            first,
            np.append(first[1:], len(wanted)),
            np.searchsorted(seen_label, ids, side="left"),
            np.searchsorted(seen_label, ids, side="right"),
        ],
        axis=1,
    )

    z, y, x = (gaussian_moments(deviation / size) for deviation, size in zip(sigma, step, strict=True))
    if flat:
        z = np.array([[1.0], [0.0], [0.0]])
    # running sums of the x kernels, backwards and continued, so that neither direction nor border needs care:
    # sum of k(u - v) for a <= u < b is behind[v - b] - behind[v - a]
    reach = coarse.shape[2] + x.shape[1]
    radius = x.shape[1] // 2
    ahead = np.zeros((3, 2 * reach + 1))
    ahead[:, reach - radius + 1 : reach + radius + 2] = np.cumsum(x, axis=1)
    ahead[:, reach + radius + 2 :] = ahead[:, reach + radius + 1 : reach + radius + 2]
    behind = np.ascontiguousarray(ahead[:, ::-1])

    # large ones first, dealt out in turn: threads take the next share when they are done with one
    columns = _find_columns(wanted, group)
    columns = columns[np.argsort(-columns[:, 5], kind="stable")]
    threads = numba.get_num_threads()
    shares = min(len(columns), 8 * threads)

    def work(share: int) -> None:
        own = columns[share::shares]
        _fill_columns(own, ids, group, wanted, seen, z, y, radius, behind, sigma, step, labels, repeats, window, out)

    # plain threads rather than numba's own: callers may themselves be threads, or processes made by fork
    if threads == 1 or shares == 1:
        for share in range(shares):
            work(share)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(shares)))


def _sort_runs(run_label: NDArray[np.int64], runs: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """By label, and within a label by z and y as before."""
    order = np.argsort(run_label, kind="stable")
    return run_label[order], runs[order]


@njit(nogil=True, cache=True)
def _find_runs(labels, repeats, window):  # type: ignore[no-untyped-def]
    """Runs of one label != 0 along x, within a window: their labels (n), and (n, 4) z, y, first x, last x + 1, all four
    in blocks of `repeats` voxels. Sorted by the blocks' z and y."""
    (z0, z1), (y0, y1), (x0, x1) = window
    run_label = np.empty(0, dtype=np.int64)
    runs = np.empty((0, 4), dtype=np.int32)
    for find in range(2):
        number = -1
        for block_z in range(z0 // repeats[0], (z1 - 1) // repeats[0] + 1):
            for block_y in range(y0 // repeats[1], (y1 - 1) // repeats[1] + 1):
                for z in range(max(z0, block_z * repeats[0]), min(z1, (block_z + 1) * repeats[0])):
                    for y in range(max(y0, block_y * repeats[1]), min(y1, (block_y + 1) * repeats[1])):
                        before = np.int64(0)
                        for x in range(x0, x1):
                            label = labels[z, y, x]
                            if label != before:
                                if find == 1 and before != 0:
                                    runs[number, 3] = (x - 1) // repeats[2] + 1
                                if label != 0:
                                    number += 1
                                    if find == 1:
                                        run_label[number] = label
                                        runs[number, 0] = block_z
                                        runs[number, 1] = block_y
                                        runs[number, 2] = x // repeats[2]
                                before = label
                        if find == 1 and before != 0:
                            runs[number, 3] = (x1 - 1) // repeats[2] + 1
        if find == 0:  # the first time they were counted only
            run_label = np.empty(number + 1, dtype=np.int64)
            runs = np.empty((number + 1, 4), dtype=np.int32)
    return run_label, runs


@njit(nogil=True, cache=True)
def _find_columns(wanted, group):  # type: ignore[no-untyped-def]
    """Columns (n, 6) of one label each: its number, first and last y, first and last x, rough cost."""
    box = np.empty((len(group), 6), dtype=np.int64)
    count = 0
    for label in range(len(group)):
        z0 = y0 = x0 = 2**31
        z1 = y1 = x1 = 0
        for run in range(group[label, 0], group[label, 1]):
            z, y, first, last = wanted[run]
            z0, z1 = min(z0, z), max(z1, z + 1)
            y0, y1 = min(y0, y), max(y1, y + 1)
            x0, x1 = min(x0, first), max(x1, last)
        box[label] = z0, z1, y0, y1, x0, x1
        count += -(-(y1 - y0) // COLUMN_HEIGHT) * -(-(x1 - x0) // COLUMN_WIDTH)
    columns = np.empty((count, 6), dtype=np.int64)
    count = 0
    for label in range(len(group)):
        z0, z1, y0, y1, x0, x1 = box[label]
        high = -(-(y1 - y0) // COLUMN_HEIGHT)
        wide = -(-(x1 - x0) // COLUMN_WIDTH)
        for j in range(high):
            for i in range(wide):
                ya, yb = y0 + (y1 - y0) * j // high, y0 + (y1 - y0) * (j + 1) // high
                xa, xb = x0 + (x1 - x0) * i // wide, x0 + (x1 - x0) * (i + 1) // wide
                columns[count] = label, ya, yb, xa, xb, (z1 - z0) * (yb - ya) * (xb - xa)
                count += 1
    return columns


@njit(nogil=True, cache=True, fastmath={"contract", "nsz", "arcp"}, error_model="numpy")
def _fill_columns(  # type: ignore[no-untyped-def]
    columns, ids, group, wanted, seen, kernel_z, kernel_y, radius_x, behind, sigma, step, labels, repeats, window, out
):
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
        rows = np.empty((y_end - y_begin, 3 * width), dtype=np.float32)  # xx, x, one
        row_used = np.empty(y_end - y_begin, dtype=np.bool_)
        used = np.empty(2 * max(radius_y, radius_z) + 1, dtype=np.int64)
        planes = np.empty((yb - ya, end - begin, 6 * width), dtype=np.float32)  # xx, x, one, y, yx, yy
        plane_used = np.zeros((yb - ya, end - begin), dtype=np.bool_)

        r = first_seen
        while r < last_seen and seen[r, 0] < begin:
            r += 1
        for z in range(begin, end):
            # along x
            row_used[:] = False
            while r < last_seen and seen[r, 0] == z:
                y, first, last = seen[r, 1], seen[r, 2], seen[r, 3]
                r += 1
                if y < y_begin or y >= y_end or last + radius_x <= xa or first - radius_x >= xb:
                    continue
                row = rows[y - y_begin]
                if not row_used[y - y_begin]:
                    row_used[y - y_begin] = True
                    row[:] = 0
                for k in range(3):
                    _add_difference(row, (2 - k) * width, behind[k], zero + xa - last, zero + xa - first, width)
            # along y
            for y in range(ya, yb):
                if not needed[y - ya]:
                    continue
                count = 0
                for other in range(y - radius_y - y_begin, y + radius_y + 1 - y_begin):
                    if row_used[other]:
                        used[count] = other
                        count += 1
                if count == 0:
                    continue
                plane_used[y - ya, z - begin] = True
                plane = planes[y - ya, z - begin]
                plane[:] = 0
                centre = y - y_begin - radius_y
                # two rows at a time, since writing the sums is what takes the time
                for pair in range(0, count, 2):
                    one, two = used[pair], used[min(pair + 1, count - 1)]
                    row, row2 = rows[one], rows[two]
                    g, tg, ttg = ky[0, one - centre], ky[1, one - centre], ky[2, one - centre]
                    h, th, tth = ky[0, two - centre], ky[1, two - centre], ky[2, two - centre]
                    if pair + 1 == count:
                        h = th = tth = np.float32(0)
                    _add_two(plane, 0, g, row, h, row2, 0, 3 * width)
                    _add_two(plane, 3 * width, tg, row, th, row2, 2 * width, width)
                    _add_two(plane, 4 * width, tg, row, th, row2, width, width)
                    _add_two(plane, 5 * width, ttg, row, tth, row2, 2 * width, width)

        # along z, for one row of what is wanted at a time (several runs of voxels can share a row of blocks)
        moments = np.empty(10 * width, dtype=np.float32)  # xx, x, S, y, yx, yy, zx, z, zy, zz
        descriptors = np.empty((10, width), dtype=np.float32)
        values = np.empty((10, width * repeats[2]), dtype=np.float32)
        r = first_wanted
        while r < last_wanted:
            z, y = wanted[r, 0], wanted[r, 1]
            x0, x1 = width, 0
            while r < last_wanted and wanted[r, 0] == z and wanted[r, 1] == y:
                first, last = max(wanted[r, 2], xa), min(wanted[r, 3], xb)
                r += 1
                if first < last:
                    x0, x1 = min(x0, first - xa), max(x1, last - xa)
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
                _normalise_voxel(moments, width, x, sigma, step, descriptors)
            _write(descriptors, x0, x1, xa, y, z, ids[label], labels, repeats, window, values, out)


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


@njit(nogil=True, cache=True, fastmath={"contract", "nsz", "arcp"}, error_model="numpy")
def _normalise_voxel(moments, width, x, sigma, step, out):  # type: ignore[no-untyped-def]
    """Moments xx, x, S, y, yx, yy, zx, z, zy, zz (of `width` voxels each, in voxels) at x -> descriptors (10) there."""
    size = np.float64(moments[2 * width + x])
    total = size if size > 0 else 1.0
    mz, my = moments[7 * width + x] / total * step[0], moments[3 * width + x] / total * step[1]
    mx = moments[width + x] / total * step[2]
    zz, yy = moments[9 * width + x] / total * step[0] ** 2, moments[5 * width + x] / total * step[1] ** 2
    xx = moments[x] / total * step[2] ** 2
    vz, vy, vx = zz - mz * mz, yy - my * my, xx - mx * mx
    flat_z, flat_y, flat_x = vz < ROUNDING * zz, vy < ROUNDING * yy, vx < ROUNDING * xx
    vz = SMALLEST_VARIANCE if flat_z else max(vz, SMALLEST_VARIANCE)
    vy = SMALLEST_VARIANCE if flat_y else max(vy, SMALLEST_VARIANCE)
    vx = SMALLEST_VARIANCE if flat_x else max(vx, SMALLEST_VARIANCE)
    zy = zx = yx = 0.0
    if not (flat_z or flat_y):
        zy = (moments[8 * width + x] / total * step[0] * step[1] - mz * my) / math.sqrt(vz * vy)
    if not (flat_z or flat_x):
        zx = (moments[6 * width + x] / total * step[0] * step[2] - mz * mx) / math.sqrt(vz * vx)
    if not (flat_y or flat_x):
        yx = (moments[4 * width + x] / total * step[1] * step[2] - my * mx) / math.sqrt(vy * vx)
    out[0, x] = min(max(mz / sigma[0] * 0.5 + 0.5, 0.0), 1.0)
    out[1, x] = min(max(my / sigma[1] * 0.5 + 0.5, 0.0), 1.0)
    out[2, x] = min(max(mx / sigma[2] * 0.5 + 0.5, 0.0), 1.0)
    out[3, x] = min(vz / (sigma[0] * sigma[0]), 1.0)
    out[4, x] = min(vy / (sigma[1] * sigma[1]), 1.0)
    out[5, x] = min(vx / (sigma[2] * sigma[2]), 1.0)
    out[6, x] = min(max(zy * 0.5 + 0.5, 0.0), 1.0)
    out[7, x] = min(max(zx * 0.5 + 0.5, 0.0), 1.0)
    out[8, x] = min(max(yx * 0.5 + 0.5, 0.0), 1.0)
    out[9, x] = min(size, 1.0)


@njit(nogil=True, cache=True)
def _write(descriptors, x0, x1, xa, y, z, label, labels, repeats, window, values, out):  # type: ignore[no-untyped-def]
    """Copy the descriptors of a row of blocks to the label's own voxels in them, as far as `out` shows them."""
    za, zb = max(z * repeats[0], window[0, 0]), min((z + 1) * repeats[0], window[0, 1])
    ya, yb = max(y * repeats[1], window[1, 0]), min((y + 1) * repeats[1], window[1, 1])
    begin = (xa + x0) * repeats[2]
    ca, cb = max(begin, window[2, 0]), min((xa + x1) * repeats[2], window[2, 1])
    for channel in range(10):
        for x in range(x0, x1):
            for k in range(repeats[2]):
                values[channel, (x - x0) * repeats[2] + k] = descriptors[channel, x]
    for a in range(za, zb):
        for b in range(ya, yb):
            first = ca
            while first < cb:
                if labels[a, b, first] != label:
                    first += 1
                    continue
                last = first + 1
                while last < cb and labels[a, b, last] == label:
                    last += 1
                for channel in range(10):
                    for c in range(first, last):
                        out[channel, a - window[0, 0], b - window[1, 0], c - window[2, 0]] = values[channel, c - begin]
                first = last
