"""Affinities: does a voxel belong to the same object as its neighbour?

    affinity_c(v) = 1   when   label(v) = label(v + offset_c) != 0

    labels   0 0 3 3 5 5 5
    offset -1:   0 0 1 0 1 1      (the first voxel's neighbour is outside: not known)

Source: Turaga et al. 2010, doi:10.1162/neco.2009.10-08-881; erosion before the targets as in Sheridan et al. 2022,
doi:10.1038/s41592-022-01711-z.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import njit

from neuroloom.training.truth import OUT, UNPAINTED


def affinities(labels: torch.Tensor, neighborhood: Sequence[tuple[int, int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Affinities of a batch of label arrays.

    Args:
        labels: (b, z, y, x) int64, 0 = background.
        neighborhood: one offset (z, y, x) in voxels per channel.

    Returns:
        Values (b, k, z, y, x) float32, 1 where both ends of the edge have the same label other than 0, and
        known (b, k, z, y, x) bool, False where the neighbour lies outside the array (the value is 0 there).
    """
    shape = labels.shape[1:]
    values = torch.zeros((labels.shape[0], len(neighborhood), *shape), dtype=torch.float32, device=labels.device)
    known = torch.zeros_like(values, dtype=torch.bool)
    for channel, offset in enumerate(neighborhood):
        if any(abs(step) >= size for step, size in zip(offset, shape, strict=True)):
            continue
        edges = list(zip(offset, shape, strict=True))
        own = tuple(slice(max(0, -step), size - max(0, step)) for step, size in edges)
        other = tuple(slice(max(0, step), size - max(0, -step)) for step, size in edges)
        here, there = labels[:, own[0], own[1], own[2]], labels[:, other[0], other[1], other[2]]
        values[:, channel, own[0], own[1], own[2]] = ((here == there) & (here != 0)).float()
        known[:, channel, own[0], own[1], own[2]] = True
    return values, known


def grow_boundary(
    labels: torch.Tensor, steps: int = 1, only_xy: bool = False, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Erode every label, so that there is background between any two.

    A voxel becomes 0 when one of its six neighbours (four, within the section, with `only_xy`) has another label, be it
    0 or not. What lies outside the array, or is masked out, counts as more of the same: nothing is eroded from there.

    Args:
        labels: (b, z, y, x) int64, 0 = background.
        steps: how often, that is, by how many voxels each label shrinks.
        only_xy: leave z alone, for anisotropic data.
        mask: (b, z, y, x) bool, False where the label is not known; everywhere known by default.

    Returns:
        A new tensor of the same shape.
    """
    for _ in range(steps):
        if labels.device.type == "cpu":
            labels = erode_by_kernel(labels, only_xy, mask)
        else:
            labels = erode_by_tensors(labels, only_xy, mask)
    return labels if steps else labels.clone()


def erode_by_tensors(labels: torch.Tensor, only_xy: bool, mask: torch.Tensor | None) -> torch.Tensor:
    """One step of `grow_boundary`, on any device."""
    border = torch.zeros_like(labels, dtype=torch.bool)
    for axis in (2, 3) if only_xy else (1, 2, 3):
        size = labels.shape[axis]
        if size < 2:
            continue
        differs = labels.narrow(axis, 1, size - 1) != labels.narrow(axis, 0, size - 1)
        if mask is not None:
            differs &= mask.narrow(axis, 1, size - 1) & mask.narrow(axis, 0, size - 1)
        border.narrow(axis, 1, size - 1).logical_or_(differs)
        border.narrow(axis, 0, size - 1).logical_or_(differs)
    return labels.masked_fill(border, 0)


def erode_by_kernel(labels: torch.Tensor, only_xy: bool, mask: torch.Tensor | None) -> torch.Tensor:
    """The same on the processor, in one pass over the voxels."""
    known = torch.ones_like(labels, dtype=torch.bool) if mask is None else mask
    eroded = torch.empty_like(labels, memory_format=torch.contiguous_format)
    for own, sure, out in zip(labels.contiguous(), known.contiguous(), eroded, strict=True):
        _erode(own.numpy(), sure.numpy(), only_xy, out.numpy())
    return eroded


@njit(nogil=True, cache=True)
def _erode(labels, known, only_xy, out):  # type: ignore[no-untyped-def]
    """One step for (z, y, x), row by row."""
    depth, height, width = labels.shape
    border = np.empty(width, np.bool_)
    for z in range(depth):
        for y in range(height):
            own, sure = labels[z, y], known[z, y]
            border[:] = False
            for x in range(width - 1):
                differs = (own[x] != own[x + 1]) & sure[x] & sure[x + 1]
                border[x] |= differs
                border[x + 1] |= differs
            for dz, dy in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                if (dz != 0 and only_xy) or not 0 <= z + dz < depth or not 0 <= y + dy < height:
                    continue
                other, other_sure = labels[z + dz, y + dy], known[z + dz, y + dy]
                for x in range(width):
                    border[x] |= (own[x] != other[x]) & sure[x] & other_sure[x]
            for x in range(width):
                out[z, y, x] = 0 if border[x] else own[x]


def edges_that_count(roles: torch.Tensor, neighborhood: Sequence[tuple[int, int, int]]) -> torch.Tensor:
    """Where it is known whether two voxels belong to one object.

    Args:
        roles: `(b, z, y, x)` uint8.
        neighborhood: One offset (z, y, x) in voxels per channel.

    Returns:
        `(b, k, z, y, x)` bool: both ends are known, and at least one counts. False where the neighbour lies outside.
    """
    both_known, _ = affinities((roles != OUT).long(), neighborhood)
    both_unpainted, _ = affinities((roles == UNPAINTED).long(), neighborhood)
    return both_known > both_unpainted
