"""Descriptors of an array of labels, on all cores: labels -> runs -> columns, dealt out to threads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from neuroloom.training.descriptors.arguments import check, check_components, check_roi
from neuroloom.training.descriptors.moments import gaussian_columns
from neuroloom.training.descriptors.runs import find_columns, find_rows, find_runs, sort_runs
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
    threads = numba.get_num_threads()
    # plain threads rather than numba's own: callers may themselves be threads, or processes made by fork
    with ThreadPoolExecutor(threads) if threads > 1 else nullcontext() as pool:
        in_turn = pool.map if pool else map
        # wanted: runs of voxels; seen: runs of those n-th voxels that have the label
        coarse = np.ascontiguousarray(labels[:: repeats[0], :: repeats[1], :: repeats[2]])
        everything, single = np.array([[0, size] for size in coarse.shape]), np.ones_like(repeats)
        of_voxels = [(labels, repeats, slab) for slab in _slabs(region, int(repeats[0]), 2 * threads)]
        of_seen = [(coarse, single, slab) for slab in _slabs(everything, 1, 2 * threads)]
        found = list(in_turn(lambda part: find_runs(*part), [*of_voxels, *of_seen]))
        wanted, first_run, seen, first_seen = sort_runs(
            *_joined(found[: len(of_voxels)]), *_joined(found[len(of_voxels) :])
        )
        rows, first_row = find_rows(first_run, wanted, repeats)
        columns = find_columns(rows, first_row)
        # large ones first, dealt out in turn: threads take the next share when they are done with one
        columns = columns[np.argsort(-columns[:, 5], kind="stable")]
        shares = min(len(columns), 8 * threads)

        def fill(share: int) -> None:
            fill_columns(
                columns[share::shares], first_row, rows, wanted, first_seen, seen, channels, repeats, region, out
            )

        list(in_turn(fill, range(shares)))


def _slabs(window: NDArray[np.int64], repeat: int, number: int) -> list[NDArray[np.int64]]:
    """A window (3, 2) cut along z, where blocks of `repeat` planes end, into about `number` parts."""
    first, last = int(window[0, 0]), int(window[0, 1])
    blocks = np.arange(first // repeat, -(-last // repeat))
    cuts = [max(first, int(part[0]) * repeat) for part in np.array_split(blocks, number) if len(part)]
    ends = [*cuts[1:], last]
    return [np.array([[a, b], *window[1:]]) for a, b in zip(cuts, ends, strict=True)]


def _joined(found: list[tuple[NDArray[np.int64], NDArray[np.int32]]]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Labels and runs of several slabs."""
    return np.concatenate([labels for labels, _ in found]), np.concatenate([runs for _, runs in found])
