"""How many training steps fit into a time on this machine: a few real ones are made, timed and thrown away.

    +-- trial, in a folder of its own --+      +------------- the project -------------+
    | a few steps of each training      |  ->  | steps of each = its share of the time |
    +-----------------------------------+      |                 / seconds per step    |
                                               +---------------------------------------+

The numbers of steps are then written down like any others: from there on, nothing depends on the clock.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroloom.chain import estimates
from neuroloom.chain.artifacts import Chain, Progress
from neuroloom.chain.checks import open_project
from neuroloom.chain.weights import given_descriptors, lsd_geometry
from neuroloom.files import read_json_lines, write_text
from neuroloom.networks import architecture
from neuroloom.networks.precision import Precision
from neuroloom.project import FILE_NAME, Project, Training, TrainingLength
from neuroloom.project.template import render
from neuroloom.training.batches import AHEAD, input_shapes
from neuroloom.training.job import TrainingJob
from neuroloom.training.kept import PREDICTIONS, blocks_of
from neuroloom.volume import open_volume

TRIAL_STEPS = 10
"""Steps that are timed; before them two in which kernels are compiled and memory is had."""

LSD_SHARE = 0.25
"""Share of the time for the descriptor network; it learns fast, and the affinity network begins with its weights."""


@dataclass(frozen=True)
class Trial:
    """A few steps of a training.

    Attributes:
        job: What was trained, but for its length.
        seconds: Of one step, the mean.
        device: Where it was trained.
        precision: The number format of convolutions.
    """

    job: TrainingJob
    seconds: float
    device: str
    precision: Precision


def try_trainings(project: Project, setups: Sequence[str], report: Progress) -> dict[str, Trial]:
    """Train a few steps of each setup in a folder of its own, which is removed.

    Args:
        project: Its settings and volumes count; nothing is written into it.
        setups: In the order in which they are trained.
        report: Called with steps done, steps in all, and a few words.

    Returns:
        By setup.

    Raises:
        UserError: The project cannot be trained.
    """
    steps = 2 + TRIAL_STEPS + AHEAD
    length = TrainingLength(iterations=steps)
    volumes = project.parameters.volumes
    located = tuple(v.model_copy(update={"path": project.locate(v.path)}) for v in volumes.train)
    # neither where weights come from nor how they are judged changes how long a step takes
    given = given_descriptors(project)
    training = project.parameters.training.model_copy(
        update={
            "lsd": length,
            "affinities": length,
            "start": None,
            "descriptors": None if given is None else str(given.path),
            "snapshot_every": steps,
            "checkpoint_every": steps,
        }
    )
    parameters = project.parameters.model_copy(
        update={
            "volumes": volumes.model_copy(update={"train": located, "validate_": ()}),
            "training": training,
        }
    )
    trials = {}
    with tempfile.TemporaryDirectory(prefix="neuroloom-pace-") as folder:
        chain = Chain(Project(Path(folder), parameters))
        for number, setup in enumerate(setups):
            chain.train(setup, _part(report, number, len(setups)), trial=True)
            job, trained = chain.job(setup), chain.trained(setup)
            assert job is not None
            assert trained is not None
            trials[setup] = Trial(
                job,
                seconds_per_step(trained.folder / "curve.jsonl"),
                trained.summary["device"],
                trained.summary["precision"],
            )
    return trials


def fit_training(values: Mapping[str, Any], seconds: float, report: Progress) -> dict[str, Any]:
    """A project whose trainings together take a given time on this machine.

    Args:
        values: The project, as `project.template.render` takes it; paths of volumes are absolute.
        seconds: For all steps of its trainings, when nothing else runs on the machine.
        report: Called with steps done, steps in all, and a few words.

    Returns:
        The same with other numbers of steps.

    Raises:
        UserError: The project cannot be trained.
    """
    training = values["training"]
    some = {"iterations": 1}  # how many is found out here
    with tempfile.TemporaryDirectory(prefix="neuroloom-pace-") as folder:
        wanted = {**values, "training": {**training, "lsd": some, "affinities": some}}
        write_text(Path(folder) / FILE_NAME, render(wanted))
        project = open_project(Path(folder))
    setups = Chain(project).setups
    trials = try_trainings(project, setups, report)
    shares = (LSD_SHARE, 1 - LSD_SHARE) if len(setups) == 2 else (1.0,)
    trial = trials[setups[-1]]
    seconds = max(0.0, seconds - keeping_seconds(project, trial.job))
    lengths = {
        Training.length_key(setup): {"iterations": steps_in(seconds * share, trials[setup])}
        for setup, share in zip(setups, shares, strict=True)
    }
    return {**values, "training": {**training, **lengths}}


def keeping_seconds(project: Project, job: TrainingJob) -> float:
    """Time for the descriptors of the training volumes, where they are kept: at most, as if crops saw all of each.

    Args:
        project: The project.
        job: What is trained after that.
    """
    if not job.keep_descriptors:
        return 0.0
    network = lsd_geometry(project)
    largest, _ = input_shapes(job, network)
    operations = 0
    for volume in job.volumes:
        block, places = blocks_of(open_volume(volume.path, volume.raw).shape, network, largest)
        operations += len(places) * PREDICTIONS * architecture.flop(network, architecture.input_shape(network, block))
    return estimates.forward(project.parameters, network, operations)


def steps_in(seconds: float, trial: Trial) -> int:
    """How many steps fit into a time; one at least."""
    return max(1, int(seconds / trial.seconds))


def seconds_per_step(curve: Path) -> float:
    """Mean time of a trial's steps.

    Args:
        curve: The trial's `curve.jsonl`. Its first two steps do not count, nor the last, whose batches were ready.
    """
    entries = read_json_lines(curve)
    stamps = [float(entry["seconds"]) for entry in entries if "seconds" in entry]
    counted = stamps[1 : 2 + TRIAL_STEPS]
    return (counted[-1] - counted[0]) / (len(counted) - 1)


def _part(report: Progress, number: int, parts: int) -> Progress:
    """Progress of one of several parts of equal length."""
    return lambda done, total, text: report(number * total + done, parts * total, text)
