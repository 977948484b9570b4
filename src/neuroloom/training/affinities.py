"""Affinities: does a voxel belong to the same object as its neighbour?

    affinity_c(v) = 1   when   label(v) = label(v + offset_c) != 0

    labels   0 0 3 3 5 5 5
    offset -1:   0 0 1 0 1 1      (the first voxel's neighbour is outside: not known)

Source: Turaga et al. 2010, doi:10.1162/neco.2009.10-08-881; erosion before the targets as in Sheridan et al. 2022,
doi:10.1038/s41592-022-01711-z.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


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
    eroded = labels.clone()
    for _ in range(steps):
        border = torch.zeros_like(labels, dtype=torch.bool)
        for axis in (2, 3) if only_xy else (1, 2, 3):
            size = labels.shape[axis]
            if size < 2:
                continue
            differs = eroded.narrow(axis, 1, size - 1) != eroded.narrow(axis, 0, size - 1)
            if mask is not None:
                differs &= mask.narrow(axis, 1, size - 1) & mask.narrow(axis, 0, size - 1)
            border.narrow(axis, 1, size - 1).logical_or_(differs)
            border.narrow(axis, 0, size - 1).logical_or_(differs)
        eroded.masked_fill_(border, 0)
    return eroded
