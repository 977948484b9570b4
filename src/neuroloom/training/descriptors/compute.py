"""Descriptors of an array of labels, on all cores: labels -> runs -> columns, dealt out to threads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from neuroloom.training.descriptors.arguments import check, check_components, check_roi
from neuroloom.training.descriptors.channels import spread
from neuroloom.training.descriptors.moments import gaussian_columns
from neuroloom.training.descriptors.runs import find_columns, find_rows, find_runs
from neuroloom.training.descriptors.sphere import sphere_columns
from neuroloom.training.descriptors.windows import Window


def lsd(
    labels: NDArray[np.integer],
    sigma_nm: float | tuple[float, ...],
    voxel_size: tuple[float, ...],
    downsample: int = 1,
    roi: tuple[slice, ...] | None = None,
    components: Sequence[int] | None = None,
    window: Window = "gaussian",
) -> NDArray[np.float32]:
    """Local shape descriptors of a label array.

    Args:
        labels: (z, y, x) or (y, x), any integer type, 0 = background.
        sigma_nm: size of the window in nm, one for all axes or one per axis.
        voxel_size: nm per voxel along each axis.
        downsample: compute on every n-th voxel along each axis, and on blocks of that size; 2 in the published
            trainings.
        roi: the part of the array that is wanted, in voxels; all of it by default. Labels outside it are context:
            give as much as `context` says on every side where there is some.
        components: the channels wanted, in ascending order; all by default.
        window: "gaussian" with standard deviation sigma, cut off at 3 sigma, or "sphere" with radius sigma.

    Returns:
        (10, z, y, x) float32 in [0, 1], or (6, y, x), of the roi's shape; or as many channels as were chosen.

    Raises:
        ValueError: the array has not 2 or 3 axes of integers, or another argument makes no sense or does not fit it.

    Example:
        >>> labels = np.ones((32, 32, 32), dtype=np.uint8)
        >>> lsd(labels, sigma_nm=40, voxel_size=(8, 8, 8), components=(0, 9))[:, 16, 16, 16].round(2).tolist()
        [0.5, 1.0]
    """
    dimensions = labels.ndim
    sigma = check(dimensions, sigma_nm, voxel_size, downsample, window)
    channels = check_components(dimensions, components)
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, not {labels.dtype}")
    region = check_roi(labels.shape, roi)

    repeats = np.full(3, downsample, dtype=np.int64)
    if dimensions == 2:
        labels, sigma, voxel_size = labels[None], (1.0, *sigma), (1.0, *voxel_size)
        region = np.concatenate([[[0, 1]], region])
        repeats[0] = 1
    labels = np.ascontiguousarray(labels)
    # equality is all that matters of an id, so that 64-bit ids are compared as they lie in memory
    ids: NDArray[np.int64] = labels.view(np.int64) if labels.dtype.itemsize == 8 else labels.astype(np.int64)

    step = np.array(voxel_size, dtype=np.float64) * repeats
    out = np.zeros((len(channels), *(region[:, 1] - region[:, 0])), dtype=np.float32)
    prepare = gaussian_columns if window == "gaussian" else sphere_columns
    extent = tuple(-(-size // n) for size, n in zip(labels.shape, repeats.tolist(), strict=True))
    fill_columns = prepare(np.array(sigma, dtype=np.float64), step, extent, flat=dimensions == 2)
    _fill(fill_columns, ids, repeats, region, channels, out)
    return out[:, 0] if dimensions == 2 else out


def _fill(
    fill_columns: Any,
    labels: NDArray[np.int64],
    repeats: NDArray[np.int64],
    region: NDArray[np.int64],
    channels: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    """Write the descriptors of `labels`, computed on every n-th voxel, into `out`, which shows `region` of them."""
    if out.size == 0:
        return
    # wanted: runs of blocks in which a label has voxels; seen: runs of those n-th voxels that have the label
    run_label, runs, voxels = find_runs(labels, repeats, region)
    if len(runs) == 0:
        return
    order = np.argsort(run_label, kind="stable")
    wanted_label, wanted = run_label[order], runs[order]
    coarse = np.ascontiguousarray(labels[:: repeats[0], :: repeats[1], :: repeats[2]])
    everything = np.array([[0, size] for size in coarse.shape])
    seen_label, seen, _ = find_runs(coarse, np.ones(3, dtype=np.int64), everything)
    seen_order = np.argsort(seen_label, kind="stable")
    seen_label, seen = seen_label[seen_order], seen[seen_order]
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

    # several runs of voxels can share a row of blocks: `row_of` of the sorted runs
    row_of, rows = find_rows(wanted_label, wanted)
    places = np.empty((len(rows) - 1, 2), dtype=np.int64)  # z, y
    places[row_of] = wanted[:, :2]
    repeat = int(repeats[2])
    values = np.empty(int(rows[-1, 2]) * repeat * len(channels), dtype=np.float32)

    # large ones first, dealt out in turn: threads take the next share when they are done with one
    columns = find_columns(wanted, group)
    columns = columns[np.argsort(-columns[:, 5], kind="stable")]
    threads = numba.get_num_threads()
    shares = min(len(columns), 8 * threads)

    def fill(share: int) -> None:
        own = columns[share::shares]
        fill_columns(own, group, wanted, seen, places, row_of, rows, channels, repeat, values)

    row_of_run = np.empty_like(row_of)
    row_of_run[order] = row_of
    # parts of the runs with whole planes of blocks
    planes = np.linspace(runs[0, 0], runs[-1, 0] + 1, 8 * threads + 1).astype(np.int64)
    parts = np.searchsorted(runs[:, 0], planes)

    def copy(part: int) -> None:
        own = slice(parts[part], parts[part + 1])
        spread(voxels[own], row_of_run[own], rows, values, repeat, region, out)

    # plain threads rather than numba's own: callers may themselves be threads, or processes made by fork
    if threads == 1 or shares == 1:
        for share in range(shares):
            fill(share)
        for part in range(len(parts) - 1):
            copy(part)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, range(shares)))
            list(pool.map(copy, range(len(parts) - 1)))
