"""What runs in the job of a training: who is who among its processes, and that it is the training that was meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neuroloom.chain import Chain, open_project
from neuroloom.chain.running import Running
from neuroloom.chain.training_job import Teller, chain_of, torch_environment
from neuroloom.chain.training_task import TrainingTask
from neuroloom.errors import UserError
from neuroloom.project import FILE_NAME, Profile
from small_project import make_project


def test_processes_learn_from_srun_who_they_are() -> None:
    one = {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    assert torch_environment(one) == torch_environment({}) == {}
    third = {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0"}
    assert torch_environment(third) == {"RANK": "2", "LOCAL_RANK": "0", "WORLD_SIZE": "4"}


def test_a_job_trains_what_was_meant_when_it_was_submitted(tmp_path: Path) -> None:
    chain = Chain(open_project(make_project(tmp_path)))
    meant = chain.job("lsd")
    assert meant is not None
    written = TrainingTask(
        project=tmp_path, parameters=chain.parameters, setup="lsd", fingerprint=meant.fingerprint()
    ).model_dump_json(by_alias=True)
    file = tmp_path / FILE_NAME
    file.write_text(file.read_text().replace("iterations = 4 ", "iterations = 5 "))
    assert Chain(open_project(tmp_path)).job("lsd") != meant
    assert chain_of(TrainingTask.model_validate_json(written)).job("lsd") == meant
    other = TrainingTask.model_validate_json(written).model_copy(update={"fingerprint": "1" * 64})
    with pytest.raises(UserError, match="is not what it was when its job was submitted"):
        chain_of(other)


def test_what_is_told_carries_job_and_start(tmp_path: Path) -> None:
    teller = Teller(tmp_path, {"SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": "3"})
    teller(5, 100, "loss 1")
    teller(6, 100, "loss 1")  # too soon
    told = {"restart": 3, "done": 5, "total": 100, "words": "loss 1"}
    assert json.loads((tmp_path / "12.json").read_text()) == told
    teller.mistake("Too large.")
    assert json.loads((tmp_path / "12.json").read_text()) == {"restart": 3, "mistake": "Too large."}


@pytest.mark.parametrize(
    ("train", "asked"), [({"nodes": 2}, "2 machines"), ({"nodes": 2, "gpus": 2}, "2 x 2 GPUs"), ({"gpus": 2}, "1 x 2")]
)
def test_more_processes_than_crops_are_refused_before_anything_is_submitted(
    tmp_path: Path, train: dict[str, int], asked: str
) -> None:
    project = open_project(make_project(tmp_path))
    chain = Chain(project, Running(Profile.model_validate({"kind": "slurm", "train": train})))
    with pytest.raises(UserError, match=rf"trains on {asked}.*`training.batch_size` = 1. Set it to \d or more"):
        chain.train("lsd", lambda done, total, words: None)
    assert not (tmp_path / "training").exists()
