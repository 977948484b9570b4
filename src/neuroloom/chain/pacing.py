"""How many training steps fit into a time on this machine: a few real ones are made, timed and thrown away.

    +-- trial, in a folder of its own --+      +------------- the project -------------+
    | a few steps of each training      |  ->  | steps of each = its share of the time |
    +-----------------------------------+      |                 / seconds per step    |
                                               +---------------------------------------+

The numbers of steps are then written down like any others: from there on, nothing depends on the clock.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuroloom.chain.artifacts import Chain, Progress
from neuroloom.chain.checks import open_project
from neuroloom.files import write_text
from neuroloom.project import FILE_NAME
from neuroloom.project.template import render
from neuroloom.training.batches import AHEAD

TRIAL_STEPS = 8
"""Steps that are timed; before them two in which kernels are compiled and memory is had."""

LSD_SHARE = 0.25
"""Share of the time for the descriptor network; it learns fast, and the affinity network begins with its weights."""


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
    steps = 2 + TRIAL_STEPS + AHEAD
    length = {"iterations": steps}
    short = {"lsd": length, "affinities": length, "validate_every": steps, "score_every": 0}
    trial = {**values, "training": {**training, **short}}
    pace: list[float] = []
    with tempfile.TemporaryDirectory(prefix="neuroloom-pace-") as folder:
        write_text(Path(folder) / FILE_NAME, render(trial))
        chain = Chain(open_project(Path(folder)))
        for number, setup in enumerate(chain.setups):
            chain.train(setup, _part(report, number, len(chain.setups)))
            pace.append(seconds_per_step((chain.training_folder(setup) or Path()) / "curve.jsonl"))
    shares = (LSD_SHARE, 1 - LSD_SHARE) if len(pace) == 2 else (1.0,)
    lengths = [{"iterations": max(1, int(seconds * share / p))} for share, p in zip(shares, pace, strict=True)]
    names = ("lsd", "affinities")[-len(pace) :]
    return {**values, "training": {**training, **dict(zip(names, lengths, strict=True))}}


def seconds_per_step(curve: Path) -> float:
    """Mean time of a trial's steps.

    Args:
        curve: The trial's `curve.jsonl`. Its first two steps do not count, nor the last, whose batches were ready.
    """
    entries = [json.loads(line) for line in curve.read_text().splitlines()]
    stamps = [float(entry["seconds"]) for entry in entries if "seconds" in entry]
    counted = stamps[1 : 2 + TRIAL_STEPS]
    return (counted[-1] - counted[0]) / (len(counted) - 1)


def _part(report: Progress, number: int, parts: int) -> Progress:
    """Progress of one of several parts of equal length."""
    return lambda done, total, text: report(number * total + done, parts * total, text)
