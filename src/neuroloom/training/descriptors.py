"""Local shape descriptors (LSDs): what an object looks like around each of its voxels.

For a voxel v of label l != 0, with offsets d = u - v in nm and weights w(u) = G(d) [label(u) = l], where G is a
Gaussian truncated at 3 sigma and normalised to sum 1 over its full window (voxels outside the array have no label):

    S = sum w        m = sum w d / S        C = sum w d d' / S - m m'

    channels   0-2  mean offset       m_z m_y m_x                / sigma * 0.5 + 0.5
               3-5  variances         C_zz C_yy C_xx             / sigma^2   (at least 1e-3 nm^2)
               6-8  Pearson           zy, zx, yx                 * 0.5 + 0.5
               9    size              S

all clipped to [0, 1], and 0 where the label is 0. In two dimensions: 2 + 2 + 1 + 1 = 6 channels.

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
        downsample: compute on every n-th voxel along each axis (as it is, starting with the first) and repeat the
            result; 2 in the published trainings.
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

    coarse = labels[(slice(None, None, downsample),) * dimensions]
    repeats = np.full(3, downsample, dtype=np.int64)
    if dimensions == 2:
        coarse, sigma, voxel_size = coarse[None], (1.0, *sigma), (1.0, *voxel_size)
        window = np.concatenate([[[0, 1]], window])
        repeats[0] = 1
    coarse = np.ascontiguousarray(coarse)
    # equality is all that matters of an id, so that 64-bit ids are compared as they lie in memory
    ids: NDArray[np.int64] = coarse.view(np.int64) if coarse.dtype.itemsize == 8 else coarse.astype(np.int64)

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
    coarse = labels[::downsample, ::downsample, ::downsample]
    step = [size * downsample for size in voxel_size]
    # bands[axis]: (3, n, n), entry [k, i, j] = t^k g(t) with t = j - i
    bands = []
    for axis in range(3):
        kernel = gaussian_moments(sigma[axis] / step[axis])
        radius = kernel.shape[1] // 2
        offset = np.arange(coarse.shape[axis])[None, :] - np.arange(coarse.shape[axis])[:, None]
        band = np.where(np.abs(offset) <= radius, kernel[:, np.clip(offset, -radius, radius) + radius], 0.0)
        bands.append(torch.from_numpy(band).to(labels.device, torch.float32))

    deviation, unit = (
        torch.tensor(values, dtype=torch.float32, device=labels.device).reshape(3, 1, 1, 1) for values in (sigma, step)
    )

    out = torch.zeros((10, *coarse.shape), dtype=torch.float32, device=labels.device)
    voxels = coarse.nonzero()
    ids, index = torch.unique(coarse[tuple(voxels.T)], return_inverse=True)
    low = torch.full((len(ids), 3), max(coarse.shape), dtype=torch.int64, device=labels.device)
    low = low.scatter_reduce(0, index[:, None].expand(-1, 3), voxels, "amin")
    high = torch.zeros_like(low).scatter_reduce(0, index[:, None].expand(-1, 3), voxels + 1, "amax")
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # ten bits of mantissa (TF32) would not do
    try:
        with torch.no_grad(), torch.autocast(labels.device.type, enabled=False):
            for number, (first, last) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
                (z0, y0, x0), (z1, y1, x1) = first, last
                own = coarse[z0:z1, y0:y1, x0:x1] == ids[number]
                moments = _moments_of_a_box(
                    own.float(), bands[0][:, z0:z1, z0:z1], bands[1][:, y0:y1, y0:y1], bands[2][:, x0:x1, x0:x1]
                )
                box = out[:, z0:z1, y0:y1, x0:x1]
                box.copy_(torch.where(own, _normalise(moments, deviation, unit), box))
    finally:
        torch.set_float32_matmul_precision(precision)
    for axis in range(3):
        out = out.repeat_interleave(downsample, dim=axis + 1).narrow(axis + 1, 0, labels.shape[axis])
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
    mean = moments[1:4] / size * unit
    variance = (moments[4:7] / size * unit**2 - mean**2).clamp(min=SMALLEST_VARIANCE)
    first, second = [0, 0, 1], [1, 2, 2]
    covariance = moments[7:] / size * unit[first] * unit[second] - mean[first] * mean[second]
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
    """Write the descriptors of `labels` into `out`, which shows `window` of the array with every voxel repeated."""
    if out.size == 0:
        return
    run_label, runs = _find_runs(labels)
    if len(runs) == 0:
        return
    order = np.argsort(run_label, kind="stable")  # by label, and within a label by z, y, x as before
    run_label, runs = run_label[order], runs[order]
    group = np.flatnonzero(np.concatenate([[True], run_label[1:] != run_label[:-1], [True]]))

    z, y, x = (gaussian_moments(deviation / size) for deviation, size in zip(sigma, step, strict=True))
    if flat:
        z = np.array([[1.0], [0.0], [0.0]])
    # running sums of the x kernels, backwards and continued, so that neither direction nor border needs care:
    # sum of k(u - v) for a <= u < b is behind[v - b] - behind[v - a]
    reach = labels.shape[2] + x.shape[1]
    radius = x.shape[1] // 2
    ahead = np.zeros((3, 2 * reach + 1))
    ahead[:, reach - radius + 1 : reach + radius + 2] = np.cumsum(x, axis=1)
    ahead[:, reach + radius + 2 :] = ahead[:, reach + radius + 1 : reach + radius + 2]
    behind = np.ascontiguousarray(ahead[:, ::-1])

    coarse_window = np.stack([window[:, 0] // repeats, -(-window[:, 1] // repeats)], axis=1)
    columns = _find_columns(runs, group, coarse_window)
    if len(columns) == 0:
        return
    # large ones first, dealt out in turn: threads take the next share when they are done with one
    columns = columns[np.argsort(-columns[:, 6], kind="stable")]
    threads = numba.get_num_threads()
    shares = min(len(columns), 8 * threads)

    def work(share: int) -> None:
        own = columns[share::shares]
        _fill_columns(
            own, runs, labels.shape[2], z, y, radius, behind, coarse_window, sigma, step, repeats, window, out
        )

    # plain threads rather than numba's own: callers may themselves be threads, or processes made by fork
    if threads == 1 or shares == 1:
        for share in range(shares):
            work(share)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(shares)))


@njit(nogil=True, cache=True)
def _find_runs(labels):  # type: ignore[no-untyped-def]
    """Runs of one label != 0 along x, in raster order: their labels (n) and (n, 4) z, y, first x, last x + 1."""
    count = 0
    for z in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            before = np.int64(0)
            for x in range(labels.shape[2]):
                label = labels[z, y, x]
                if label != before and label != 0:
                    count += 1
                before = label
    run_label = np.empty(count, dtype=np.int64)
    runs = np.empty((count, 4), dtype=np.int32)
    number = -1
    for z in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            before = np.int64(0)
            for x in range(labels.shape[2]):
                label = labels[z, y, x]
                if label != before and label != 0:
                    number += 1
                    run_label[number] = label
                    runs[number, 0] = z
                    runs[number, 1] = y
                    runs[number, 2] = x
                if label != 0:
                    runs[number, 3] = x + 1
                before = label
    return run_label, runs


@njit(nogil=True, cache=True)
def _find_columns(runs, group, window):  # type: ignore[no-untyped-def]
    """Columns (n, 7) of one label each: its first and last run, first and last y, first and last x, rough cost."""
    labels = len(group) - 1
    box = np.empty((labels, 6), dtype=np.int64)
    count = 0
    for label in range(labels):
        z0 = y0 = x0 = 2**31
        z1 = y1 = x1 = 0
        for number in range(group[label], group[label + 1]):
            z, y, first, last = runs[number]
            if z < window[0, 0] or z >= window[0, 1] or y < window[1, 0] or y >= window[1, 1]:
                continue
            if last <= window[2, 0] or first >= window[2, 1]:
                continue
            z0, z1 = min(z0, z), max(z1, z + 1)
            y0, y1 = min(y0, y), max(y1, y + 1)
            x0, x1 = min(x0, max(first, window[2, 0])), max(x1, min(last, window[2, 1]))
        box[label] = z0, z1, y0, y1, x0, x1
        if z1 > z0:
            count += -(-(y1 - y0) // COLUMN_HEIGHT) * -(-(x1 - x0) // COLUMN_WIDTH)
    columns = np.empty((count, 7), dtype=np.int64)
    count = 0
    for label in range(labels):
        z0, z1, y0, y1, x0, x1 = box[label]
        if z1 <= z0:
            continue
        high = -(-(y1 - y0) // COLUMN_HEIGHT)
        wide = -(-(x1 - x0) // COLUMN_WIDTH)
        for j in range(high):
            for i in range(wide):
                ya, yb = y0 + (y1 - y0) * j // high, y0 + (y1 - y0) * (j + 1) // high
                xa, xb = x0 + (x1 - x0) * i // wide, x0 + (x1 - x0) * (i + 1) // wide
                cost = (z1 - z0) * (yb - ya) * (xb - xa)
                columns[count] = group[label], group[label + 1], ya, yb, xa, xb, cost
                count += 1
    return columns


@njit(nogil=True, cache=True, fastmath={"contract", "nsz", "arcp"}, error_model="numpy")
def _fill_columns(  # type: ignore[no-untyped-def]
    columns, runs, row_length, kernel_z, kernel_y, radius_x, behind, coarse_window, sigma, step, repeats, window, out
):
    """Descriptors of all voxels that belong to these columns."""
    kz, ky = kernel_z.astype(np.float32), kernel_y.astype(np.float32)
    radius_z, radius_y = kz.shape[1] // 2, ky.shape[1] // 2
    zero = behind.shape[1] // 2
    for number in range(len(columns)):
        first_run, last_run, ya, yb, xa, xb, _ = columns[number]

        # the label's own voxels in the column, cut to what is wanted
        z0 = 2**31
        z1 = 0
        low = np.full(yb - ya, xb, dtype=np.int64)
        high = np.full(yb - ya, xa, dtype=np.int64)
        for r in range(first_run, last_run):
            z, y, first, last = runs[r]
            first, last = max(first, xa), min(last, xb)
            if y < ya or y >= yb or first >= last or z < coarse_window[0, 0] or z >= coarse_window[0, 1]:
                continue
            z0, z1 = min(z0, z), max(z1, z + 1)
            low[y - ya] = min(low[y - ya], first)
            high[y - ya] = max(high[y - ya], last)
        if z1 <= z0:
            continue

        # planes that can matter to them
        begin, end = z0 - radius_z, z1 + radius_z
        begin, end = max(begin, runs[first_run, 0]), min(end, runs[last_run - 1, 0] + 1)
        y_begin, y_end = ya - radius_y, yb + radius_y
        width = xb - xa
        rows = np.empty((y_end - y_begin, 3, width), dtype=np.float32)
        row_used = np.empty(y_end - y_begin, dtype=np.bool_)
        planes = np.empty((end - begin, yb - ya, 6, width), dtype=np.float32)
        plane_used = np.zeros((end - begin, yb - ya), dtype=np.bool_)

        r = first_run
        while r < last_run and runs[r, 0] < begin:
            r += 1
        for z in range(begin, end):
            # along x
            row_used[:] = False
            while r < last_run and runs[r, 0] == z:
                y, first, last = runs[r, 1], runs[r, 2], runs[r, 3]
                r += 1
                if y < y_begin or y >= y_end or last + radius_x <= xa or first - radius_x >= xb:
                    continue
                row = rows[y - y_begin]
                if not row_used[y - y_begin]:
                    row_used[y - y_begin] = True
                    row[:] = 0
                for k in range(3):
                    for x in range(width):
                        row[k, x] += np.float32(behind[k, zero + xa + x - last] - behind[k, zero + xa + x - first])
            # along y
            for y in range(ya, yb):
                x0, x1 = low[y - ya] - xa, high[y - ya] - xa
                if x0 >= x1:
                    continue
                plane = planes[z - begin, y - ya]
                for other in range(y - radius_y, y + radius_y + 1):
                    if not row_used[other - y_begin]:
                        continue
                    row = rows[other - y_begin]
                    t = other - y + radius_y
                    g, tg, ttg = ky[0, t], ky[1, t], ky[2, t]
                    if not plane_used[z - begin, y - ya]:
                        plane_used[z - begin, y - ya] = True
                        plane[:, x0:x1] = 0
                    for x in range(x0, x1):
                        one, by_x, by_xx = row[0, x], row[1, x], row[2, x]
                        plane[0, x] += g * one
                        plane[1, x] += g * by_x
                        plane[2, x] += g * by_xx
                        plane[3, x] += tg * one
                        plane[4, x] += tg * by_x
                        plane[5, x] += ttg * one

        # along z, run by run
        moments = np.empty((10, width), dtype=np.float32)
        values = np.empty((10, width * repeats[2]), dtype=np.float32)
        for r in range(first_run, last_run):
            z, y, first, last = runs[r]
            first, last = max(first, xa), min(last, xb)
            if y < ya or y >= yb or first >= last or z < coarse_window[0, 0] or z >= coarse_window[0, 1]:
                continue
            x0, x1 = first - xa, last - xa
            moments[:, x0:x1] = 0
            for other in range(max(z - radius_z, begin), min(z + radius_z + 1, end)):
                if not plane_used[other - begin, y - ya]:
                    continue
                plane = planes[other - begin, y - ya]
                t = other - z + radius_z
                g, tg, ttg = kz[0, t], kz[1, t], kz[2, t]
                for x in range(x0, x1):
                    moments[0, x] += g * plane[0, x]
                    moments[1, x] += tg * plane[0, x]
                    moments[2, x] += g * plane[3, x]
                    moments[3, x] += g * plane[1, x]
                    moments[4, x] += ttg * plane[0, x]
                    moments[5, x] += g * plane[5, x]
                    moments[6, x] += g * plane[2, x]
                    moments[7, x] += tg * plane[3, x]
                    moments[8, x] += tg * plane[1, x]
                    moments[9, x] += g * plane[4, x]
            for x in range(x0, x1):
                _normalise_voxel(moments, x, sigma, step)
            _write(moments, x0, x1, first, y, z, repeats, window, values, out)


@njit(nogil=True, cache=True, inline="always", error_model="numpy")
def _normalise_voxel(moments, x, sigma, step):  # type: ignore[no-untyped-def]
    """Turn the moments at x (S, z y x, zz yy xx, zy zx yx; in voxels) into descriptors, in place."""
    size = np.float64(moments[0, x])
    mz, my, mx = moments[1, x] / size * step[0], moments[2, x] / size * step[1], moments[3, x] / size * step[2]
    vz = max(moments[4, x] / size * step[0] * step[0] - mz * mz, SMALLEST_VARIANCE)
    vy = max(moments[5, x] / size * step[1] * step[1] - my * my, SMALLEST_VARIANCE)
    vx = max(moments[6, x] / size * step[2] * step[2] - mx * mx, SMALLEST_VARIANCE)
    zy = (moments[7, x] / size * step[0] * step[1] - mz * my) / math.sqrt(vz * vy)
    zx = (moments[8, x] / size * step[0] * step[2] - mz * mx) / math.sqrt(vz * vx)
    yx = (moments[9, x] / size * step[1] * step[2] - my * mx) / math.sqrt(vy * vx)
    moments[0, x] = min(max(mz / sigma[0] * 0.5 + 0.5, 0.0), 1.0)
    moments[1, x] = min(max(my / sigma[1] * 0.5 + 0.5, 0.0), 1.0)
    moments[2, x] = min(max(mx / sigma[2] * 0.5 + 0.5, 0.0), 1.0)
    moments[3, x] = min(vz / (sigma[0] * sigma[0]), 1.0)
    moments[4, x] = min(vy / (sigma[1] * sigma[1]), 1.0)
    moments[5, x] = min(vx / (sigma[2] * sigma[2]), 1.0)
    moments[6, x] = min(max(zy * 0.5 + 0.5, 0.0), 1.0)
    moments[7, x] = min(max(zx * 0.5 + 0.5, 0.0), 1.0)
    moments[8, x] = min(max(yx * 0.5 + 0.5, 0.0), 1.0)
    moments[9, x] = min(size, 1.0)


@njit(nogil=True, cache=True)
def _write(descriptors, x0, x1, first, y, z, repeats, window, values, out):  # type: ignore[no-untyped-def]
    """Repeat the descriptors of one run along z, y and x into the part of `out` that shows them."""
    za, zb = max(z * repeats[0], window[0, 0]), min((z + 1) * repeats[0], window[0, 1])
    ya, yb = max(y * repeats[1], window[1, 0]), min((y + 1) * repeats[1], window[1, 1])
    begin = first * repeats[2]
    xa, xb = max(begin, window[2, 0]), min((first + x1 - x0) * repeats[2], window[2, 1])
    for channel in range(10):
        for x in range(x0, x1):
            for k in range(repeats[2]):
                values[channel, (x - x0) * repeats[2] + k] = descriptors[channel, x]
        for a in range(za, zb):
            for b in range(ya, yb):
                for x in range(xa, xb):
                    out[channel, a - window[0, 0], b - window[1, 0], x - window[2, 0]] = values[channel, x - begin]
