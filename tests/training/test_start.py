"""Starting from given weights: all of them are taken over, and nothing else than what was named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from neuroloom.errors import UserError
from neuroloom.files import hash_file
from neuroloom.networks.checkpoint import load_checkpoint
from neuroloom.training.loop import train

from .conftest import MakeJob


def test_training_goes_on_from_the_weights(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(iterations=2, setup="affs")
    first = train(job, tmp_path / "first")
    slow = {"start_sha256": hash_file(first), "iterations": 1, "learning_rate": 1e-12, "weight_average": 0.0}
    second = train(job.model_copy(update=slow), tmp_path / "second", start=first)
    expected = load_checkpoint(first).network.state_dict()
    for name, weight in load_checkpoint(second).network.state_dict().items():
        torch.testing.assert_close(weight, expected[name], atol=1e-6, rtol=0)


def test_other_weights_are_refused(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(iterations=1, setup="affs")
    first = train(job, tmp_path / "first")
    with pytest.raises(UserError, match=r"best\.ckpt is not the file this training was to start from"):
        train(job.model_copy(update={"start_sha256": "0" * 64}), tmp_path / "second", start=first)
    other = {"setup": "mtlsd", "start_sha256": hash_file(first)}
    with pytest.raises(UserError, match=r"holds a network of setup 'affs' that is not the one to be trained"):
        train(job.model_copy(update=other), tmp_path / "third", start=first)
