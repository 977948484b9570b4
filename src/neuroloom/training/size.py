"""How much memory a training takes, and refusing what cannot fit before the system ends the process without a word."""

from __future__ import annotations

import torch

from neuroloom.errors import UserError
from neuroloom.networks import architecture
from neuroloom.networks.memory import memory_there
from neuroloom.networks.precision import Precision
from neuroloom.training.batches import input_shapes
from neuroloom.training.job import TrainingJob


def memory_needed(job: TrainingJob, lsd: architecture.UNetParameters | None, precision: Precision) -> int:
    """Bytes that weights, gradients, the optimiser and what layers put out take at least.

    Args:
        job: What is trained.
        lsd: The descriptor network that feeds it, if any.
        precision: The number format of convolutions.
    """
    weights = architecture.parameter_count(job.geometry)
    _, inner = input_shapes(job, lsd)
    values = architecture.feature_values(job.geometry, inner)
    # weights, gradients, two moments of Adam and the average; what layers put out is kept for the way back
    return 20 * weights + (4 if precision == "fp32" else 2) * job.crops_at_once * values


def check_memory(
    job: TrainingJob, lsd: architecture.UNetParameters | None, device: torch.device, precision: Precision
) -> None:
    """Refuse a training that the device's memory cannot hold.

    Args:
        job: What is trained.
        lsd: The descriptor network that feeds it, if any.
        device: Where.
        precision: The number format of convolutions.

    Raises:
        UserError: It does not fit; the largest crop that would is named.
    """
    needed = memory_needed(job, lsd, precision)
    there = memory_there(device)
    if needed <= there:
        return
    weights = architecture.parameter_count(job.geometry)
    way_out = "Make `network.feature_maps` or `network.growth` smaller."
    if 20 * weights < there:
        way_out = _fitting(job, lsd, precision, there)
    name = "GPU" if device.type == "cuda" else "machine"
    raise UserError(
        f"Training {job.setup} takes {needed / 1e9:.0f} GB of memory or more ({weights / 1e6:.1f} million weights, "
        f"{job.crops_at_once} crops of {job.crop} voxels at once), and this {name} has "
        f"{there / 1e9:.0f} GB. {way_out}"
    )


def _fitting(job: TrainingJob, lsd: architecture.UNetParameters | None, precision: Precision, there: int) -> str:
    """What to change so that a training fits."""
    one = job.model_copy(update={"at_once": 1})
    if job.crops_at_once > 1 and memory_needed(one, lsd, precision) <= there:
        return "Set `training.at_once` to 1: crops of a step are then computed one after the other."
    crop = list(job.crop)
    while max(crop) > 1:
        # every extent that a network gives is smaller by a step than the next, so shrink and take what it gives
        smaller = [max(1, extent - max(1, extent // 16)) for extent in crop]
        given = architecture.output_shape(job.geometry, architecture.input_shape(job.geometry, smaller))
        crop = list(given) if all(g < c for g, c in zip(given, crop, strict=True)) else smaller
        candidate = one.model_copy(update={"crop": given})
        if max(given) < max(job.crop) and memory_needed(candidate, lsd, precision) <= there:
            return f"A `training.crop` of {list(given)} with `training.at_once = 1` would fit."
    return "Make `network.feature_maps`, `network.growth` or `training.crop` smaller, or set `training.recompute`."
