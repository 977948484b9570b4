"""Several processes train what one would: here on the processor, through gloo."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from neuroloom.errors import UserError
from neuroloom.training.augmentation import Augmentation
from neuroloom.training.launch import train_on_devices

from .conftest import MakeJob, MakeVolume


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(folder / "state.pt", weights_only=True)["network"])


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.system
def test_two_processes_train_what_one_does(make_job: MakeJob, make_volume: MakeVolume, tmp_path: Path) -> None:
    volume = make_volume()
    job = make_job(
        batch_size=3, at_once=1, iterations=4, volumes=(volume,), validation=(volume,),
        augmentation=Augmentation(elastic_spacing=8.0),
    )  # fmt: skip
    train_on_devices(job, tmp_path / "one")
    seen: list[tuple[int, int]] = []
    # three crops cannot be cut into two parts: each process takes one at a time
    together = job.model_copy(update={"device": "cpu,cpu", "at_once": None})
    best = train_on_devices(together, tmp_path / "two", report=lambda done, total, words: seen.append((done, total)))
    assert best.exists()
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    done = json.loads((tmp_path / "two" / "done.json").read_text())
    assert (done["processes"], done["steps"]) == (2, 4)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert two[0] == pytest.approx(one[0], rel=1e-5)
    # Adam divides by the size of a gradient: rounding of the smallest ones moves a weight by parts of a step
    assert two == pytest.approx(one, rel=1e-2)


@pytest.mark.system
def test_stopped_together_and_resumed(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(batch_size=2, at_once=1, iterations=6, checkpoint_every=100, device="cpu,cpu")
    train_on_devices(job, tmp_path / "whole")
    program = (
        "import sys, os, signal; from pathlib import Path\n"
        "from neuroloom.errors import Interrupted; from neuroloom.training.job import TrainingJob\n"
        "from neuroloom.training.launch import train_on_devices\n"
        "def stop(done, total, words):\n"
        "    if done == 2: os.kill(os.getpid(), signal.SIGTERM)\n"
        "if __name__ == '__main__':\n"
        "    try: train_on_devices(TrainingJob.model_validate_json(sys.argv[2]), Path(sys.argv[1]), report=stop)\n"
        "    except Interrupted as error: print(error); sys.exit(3)\n"
    )
    script = tmp_path / "stop.py"
    script.write_text(program)
    stopped = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "parts"), job.model_dump_json()],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert stopped.returncode == 3, stopped.stderr
    assert "Run the same command again" in stopped.stdout
    assert not (tmp_path / "parts" / "done.json").exists()
    train_on_devices(job, tmp_path / "parts")
    for name, value in weights(tmp_path / "whole").items():
        assert torch.equal(weights(tmp_path / "parts")[name], value)


@pytest.mark.system
def test_processes_of_torchrun_are_one_training(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(batch_size=2, iterations=2)
    script = tmp_path / "one.py"
    script.write_text(
        "import sys; from pathlib import Path; from neuroloom.training.job import TrainingJob\n"
        "from neuroloom.training.launch import train_on_devices\n"
        "train_on_devices(TrainingJob.model_validate_json(sys.argv[2]), Path(sys.argv[1]))\n"
    )
    arguments = ["--standalone", "--nproc-per-node", "2", str(script), str(tmp_path / "run"), job.model_dump_json()]
    command = [sys.executable, "-m", "torch.distributed.run", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    assert json.loads((tmp_path / "run" / "done.json").read_text())["processes"] == 2
    assert json.loads((tmp_path / "run" / "job.json").read_text())["at_once"] == 1  # each has its share


@pytest.mark.system
def test_mistakes_are_told_once(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(batch_size=2, at_once=1, voxel_size=(8.0, 8.0, 4.0), device="cpu,cpu")
    with pytest.raises(UserError, match="they must agree"):
        train_on_devices(job, tmp_path / "run")
    with pytest.raises(UserError, match=r"3 devices cannot share a step of 2 crops.*batch_size` to 3"):
        train_on_devices(job.model_copy(update={"device": "cpu,cpu,cpu"}), tmp_path / "other")
