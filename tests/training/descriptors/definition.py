"""Local shape descriptors by their definition, term by term in double precision, and labels to try them on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neuroloom.training.descriptors import lsd_by_matrices


def by_matrices(labels: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
    """A GPU's way to the descriptors of one array."""
    return lsd_by_matrices(labels[None], *arguments, **options)[0]


def definition(
    labels: NDArray[np.integer],
    sigma: tuple[float, ...],
    voxel_size: tuple[float, ...],
    downsample: int = 1,
    window: str = "gaussian",
) -> NDArray[np.float64]:
    """The formula of the package's head, one voxel at a time."""
    n = labels.ndim
    step = [v * downsample for v in voxel_size]
    reach = [int(3 * s / v + 0.5) if window == "gaussian" else int(s / v + 1) for s, v in zip(sigma, step, strict=True)]
    offsets = np.stack(
        np.meshgrid(*[np.arange(-r, r + 1) * v for r, v in zip(reach, step, strict=True)], indexing="ij")
    )
    distance = np.asarray(sum((offsets[a] / sigma[a]) ** 2 for a in range(n)))
    weights = np.exp(-0.5 * distance) if window == "gaussian" else (distance <= 1 + 1e-9).astype(float)
    weights /= weights.sum()
    padded = np.pad(labels[(slice(None, None, downsample),) * n], [(r, r) for r in reach])
    pairs = [(a, b) for a in range(n) for b in range(a + 1, n)]
    out = np.zeros((2 * n + len(pairs) + 1, *labels.shape))
    for voxel in np.argwhere(labels != 0):
        box = tuple(slice(v, v + 2 * r + 1) for v, r in zip(voxel // downsample, reach, strict=True))
        own = padded[box] == labels[tuple(voxel)]
        size = weights[own].sum()
        mean, covariance = np.zeros(n), np.zeros((n, n))
        if size > 0:
            w, d = weights[own] / size, offsets[:, own]
            mean = (d * w).sum(1)
            d = d - mean[:, None]
            covariance = (d * w) @ d.T
        variance = np.maximum(np.diag(covariance), 1e-3)
        pearson = np.array([covariance[a, b] / np.sqrt(variance[a] * variance[b]) for a, b in pairs])
        s = np.array(sigma)
        farthest = s if window == "gaussian" else s / 2
        out[(slice(None), *voxel)] = np.concatenate(
            [mean / farthest * 0.5 + 0.5, variance / s**2, pearson * 0.5 + 0.5, [size]]
        )
    return np.clip(out, 0, 1)


def neurites(seed: int, shape: tuple[int, ...], number: int) -> NDArray[np.uint64]:
    """Nearest-seed cells with some background: blobs, plates and crumbs that touch one another."""
    random = np.random.default_rng(seed)
    points = random.uniform(0, 1, (number, len(shape))) * shape
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    distance = np.linalg.norm((grid[..., None, :] - points) * random.uniform(0.3, 2, (number, len(shape))), axis=-1)
    labels = distance.argmin(-1).astype(np.uint64) * np.uint64(2**59) + np.uint64(5)
    labels[random.uniform(size=shape) < 0.1] = 0
    labels[random.uniform(size=shape) < 0.02] = 77
    return labels
