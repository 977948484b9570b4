"""What a training will take: size, operations and memory by arithmetic, time by a few real steps."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict

from neuroloom.chain import estimates
from neuroloom.chain.artifacts import Chain, Progress
from neuroloom.chain.networks import setups_to_train
from neuroloom.chain.pacing import TRIAL_STEPS, keeping_seconds, try_trainings
from neuroloom.chain.weights import lsd_geometry
from neuroloom.networks import architecture
from neuroloom.networks.memory import memory_there
from neuroloom.networks.precision import Precision
from neuroloom.networks.setups import SETUPS
from neuroloom.training.batches import input_shapes
from neuroloom.training.size import memory_needed
from neuroloom.volume.array import Triple


class TrainingPlan(BaseModel):
    """A training before it begins.

    Attributes:
        setup: What is learned from what.
        weights: Of the network that is trained.
        frozen_weights: Of the descriptor network that feeds it; 0 without one.
        sees: Voxels that the networks see beyond what they predict, on either side, z y x.
        crop: Voxels that are predicted of one crop, z y x.
        raw: Voxels of raw that this takes, z y x.
        batch_size: Crops per step.
        flop: Floating-point operations of one step's convolutions: forward and back, and forward through the
            descriptor network.
        memory: Bytes that weights, the optimiser and what layers put out take at least.
        memory_there: Bytes of the device.
        device: Where it was tried.
        precision: The number format of convolutions.
        seconds_per_step: Measured.
        measured_steps: How many steps that is the mean of.
        steps: As the project has it.
        seconds: Of all steps.
        keeping_seconds: Estimated, of descriptors that are computed once before the first step; 0 where they are not.
        scoring_seconds: Estimated, of all scores of the whole chain along the way.
    """

    model_config = ConfigDict(frozen=True)

    setup: str
    weights: int
    frozen_weights: int
    sees: Triple
    crop: Triple
    raw: Triple
    batch_size: int
    flop: int
    memory: int
    memory_there: int
    device: str
    precision: Precision
    seconds_per_step: float
    measured_steps: int = TRIAL_STEPS
    steps: int
    seconds: float
    keeping_seconds: float
    scoring_seconds: float


def plan_training(chain: Chain, setup: str, report: Progress) -> TrainingPlan:
    """Try a training, and say what all of it takes.

    Args:
        chain: The project's; nothing is written into it.
        setup: A key of `SETUPS`.
        report: Called with steps done, steps in all, and a few words.

    Raises:
        UserError: The project cannot be trained.
    """
    trials = try_trainings(chain.project, setups_to_train(setup, chain.parameters.training), report)
    trial = trials[setup]
    job = trial.job
    lsd = lsd_geometry(chain.project) if SETUPS[setup].needs_lsd_network else None
    raw, inner = input_shapes(job, lsd)
    # the way back is two passes, and one more where layers are computed again
    passes = 4 if job.recompute else 3
    flop = passes * architecture.flop(job.geometry, inner) + (
        architecture.flop(lsd, raw) if lsd and not job.keep_descriptors else 0
    )
    steps = chain.parameters.training.length(setup).iterations
    scoring = 0.0
    if chain.scored_in_training(setup):
        scoring = estimates.scoring(chain.parameters, chain.networks, chain.scored_shapes)
    z, y, x = ((r - c) // 2 for r, c in zip(raw, job.crop, strict=True))
    return TrainingPlan(
        setup=setup,
        weights=architecture.parameter_count(job.geometry),
        frozen_weights=architecture.parameter_count(lsd) if lsd else 0,
        sees=(z, y, x),
        crop=job.crop,
        raw=raw,
        batch_size=job.batch_size,
        flop=flop * job.batch_size,
        memory=memory_needed(job, lsd, trial.precision),
        memory_there=memory_there(torch.device(trial.device)),
        device=trial.device,
        precision=trial.precision,
        seconds_per_step=trial.seconds,
        steps=steps,
        seconds=steps * trial.seconds,
        keeping_seconds=keeping_seconds(chain.project, job),
        scoring_seconds=scoring,
    )
