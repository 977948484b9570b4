"""The loss: mean squared error in which edges within objects and edges between them weigh the same in all.

    frequency f of positives among the voxels that count        weight of a positive  1 / (2 f)
    (all channels of a crop together, clipped to                weight of a negative  1 / (2 (1 - f))
    [0.05, 0.95])                                               elsewhere             0

The weights of what counts have mean 1, unless f was clipped. Every crop is balanced and averaged by itself, so that a
step of eight crops is the same whether they are computed together, in parts, or by several processes.

Source: Sheridan et al. 2022, doi:10.1038/s41592-022-01711-z.
"""

from __future__ import annotations

import torch

LOWEST_FREQUENCY, HIGHEST_FREQUENCY = 0.05, 0.95


def balance(targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Weights under which the two classes count the same over every crop.

    Args:
        targets: (b, k, z, y, x), positive where above 0.5 (affinities are 0 or 1).
        mask: bool or number, broadcastable to the targets; only where it is above 0 a voxel counts.

    Returns:
        (b, k, z, y, x) float32, 0 where masked out.
    """
    counts = (mask > 0).expand_as(targets)
    positive = targets > 0.5
    # counted in integers: a float32 sum of more than 2^24 ones stands still
    axes = (1, 2, 3, 4)
    frequency = (positive & counts).sum(axes, keepdim=True) / counts.sum(axes, keepdim=True).clamp(min=1)
    frequency = frequency.to(torch.float32).clamp(LOWEST_FREQUENCY, HIGHEST_FREQUENCY)
    return torch.where(positive, 0.5 / frequency, 0.5 / (1 - frequency)) * counts


def balanced_mse(prediction: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted squared error, averaged over the entries of a crop whose weight is not 0, then over the crops.

    Args:
        prediction: (b, k, z, y, x).
        target: (b, k, z, y, x).
        weights: broadcastable to them, 0 where masked out.

    Returns:
        A scalar, float32 at least; 0 when nothing counts.
    """
    difference = prediction.float() - target.float()
    weights = weights.float().expand_as(difference)
    # not 0 * difference: where masked out, a target may be anything, NaN included
    error = torch.where(weights != 0, difference, 0.0) ** 2 * weights
    axes = (1, 2, 3, 4)
    return (error.sum(axes) / (weights != 0).sum(axes).clamp(min=1)).mean()
