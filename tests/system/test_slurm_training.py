"""Trainings as jobs of a real SLURM: the bytes of one machine, whatever becomes of nodes, jobs and whoever watches."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.slurm import Slurm

from neuroloom.files import hash_file
from neuroloom.project import FILE_NAME
from small_project import VALUES, make_project, neuroloom

pytestmark = pytest.mark.system

TRAINING = {
    **VALUES["training"],
    "batch_size": 2,
    "lsd": {"iterations": 24},
    "affinities": {"iterations": 3},
    "score_every": 3,
    "snapshot_every": 100,
}

PROFILES = """
[profiles.lab]
kind = "slurm"
poll_seconds = 0.3
memory_gb = 2
workers_max = 3

[profiles.spot]
kind = "slurm"
poll_seconds = 0.3
[profiles.spot.train]
partition = "spot"

[profiles.two]
kind = "slurm"
poll_seconds = 0.3
[profiles.two.train]
nodes = 2

[profiles.three]
kind = "slurm"
train = { nodes = 3 }

[profiles.broken]
kind = "slurm"
poll_seconds = 0.3
python = "/opt/no-such-python"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project, always the same: volumes that are written anew would make another training."""
    folder = make_project(tmp_path_factory.mktemp("project"), {"training": TRAINING})
    (folder / "cluster.toml").write_text(PROFILES)
    return folder


@pytest.fixture
def project(folder: Path) -> Iterator[Path]:
    """The project, with nothing trained."""
    yield folder
    shutil.rmtree(folder / "training", ignore_errors=True)


@pytest.fixture(scope="module")
def lsd_here(folder: Path) -> dict[str, str]:
    """Checkpoints of the descriptor network, trained on this machine without a stop."""
    return train_here(folder, "lsd")


def train_here(folder: Path, setup: str, device: str = "cpu") -> dict[str, str]:
    """Train on this machine; the content of the checkpoints, which are removed."""
    with pytest.MonkeyPatch.context() as patch, with_device(folder, device):
        for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):  # as in the jobs: roundings depend on them
            patch.setenv(name, "1")
        ran = neuroloom("train", setup, "--project", folder)
    assert ran.returncode == 0, ran.stderr
    trained = checkpoints(folder, setup)
    shutil.rmtree(folder / "training")
    return trained


@contextlib.contextmanager
def with_device(folder: Path, device: str) -> Iterator[None]:
    """The project with another device."""
    file = folder / FILE_NAME
    text = file.read_text()
    file.write_text(text.replace('device = "cpu"', f'device = "{device}"'))
    try:
        yield
    finally:
        file.write_text(text)


def training(folder: Path, setup: str = "lsd") -> Path:
    return next(folder.glob(f"training/{setup}-*"))


def checkpoints(folder: Path, setup: str = "lsd") -> dict[str, str]:
    return {name: hash_file(training(folder, setup) / name) for name in ("best.ckpt", "last.ckpt")}


def events(folder: Path, *names: str) -> list[dict[str, Any]]:
    """Events of some names, in order."""
    lines = [json.loads(line) for line in (training(folder) / "events.jsonl").read_text().splitlines()]
    return [event for event in lines if event["event"] in names]


def start(folder: Path, profile: str) -> subprocess.Popen[str]:
    """A process that trains the descriptor network."""
    command = [sys.executable, "-m", "neuroloom.cli", "train", "lsd", "--on", profile, "--project", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code of a process, and what it said."""
    try:
        said, _ = process.communicate(timeout=90)
    finally:
        process.kill()
    return process.returncode, said


def done_steps(folder: Path) -> tuple[int, int]:
    """How often the job has been started again, and steps that it has made since."""
    try:
        told = json.loads(max((training(folder) / "slurm").glob("[0-9]*.json"), key=os.path.getmtime).read_text())
        return told["restart"], told["done"]
    except (StopIteration, ValueError):  # it has not begun
        return 0, 0


def test_a_job_trains_and_scores_like_this_machine_and_only_once(slurm: Slurm, project: Path) -> None:
    here = train_here(project, "affs")
    for _ in range(2):
        ran = neuroloom("train", "affs", "--on", "lab", "--project", project)
        assert ran.returncode == 0, ran.stderr
    assert checkpoints(project, "affs") == here
    submitted = (training(project, "affs") / "events.jsonl").read_text().count("submitted")
    assert submitted == 1
    assert not slurm.jobs()


def test_it_goes_on_after_an_eviction_and_at_the_time_limit(
    slurm: Slurm, project: Path, lsd_here: dict[str, str]
) -> None:
    master = start(project, "spot")
    try:
        slurm.wait_for(lambda: done_steps(project) >= (0, 6), 60)
        (job,) = slurm.jobs()
        assert slurm.evict(slurm.call("squeue", "-hj", job, "-o", "%N").strip())
        slurm.wait_for(lambda: done_steps(project) >= (1, 9), 60)
        slurm.call("scancel", "--signal=USR1", "--batch", job)  # as SLURM does before the limit
        code, said = ended(master)
    finally:
        master.kill()
    assert code == 0, said
    assert checkpoints(project) == lsd_here
    (requeued,) = events(project, "requeued")
    assert requeued["step"] >= 4
    first, second, third = (event["step"] for event in events(project, "started"))
    assert first < requeued["step"] < second < third
    assert [event["job"] for event in events(project, "submitted")] == [job, str(int(job) + 1)]


def test_a_job_outlives_its_master_and_is_found_again_and_ctrl_c_cancels_it(
    slurm: Slurm, project: Path, lsd_here: dict[str, str]
) -> None:
    master = start(project, "lab")
    try:
        slurm.wait_for(lambda: done_steps(project) > (0, 0), 60)
        refused = neuroloom("train", "lsd", "--on", "lab", "--project", project)
        assert (refused.returncode, "watching the training of lsd" in refused.stderr) == (2, True)
        refused = neuroloom("train", "lsd", "--project", project)
        assert (refused.returncode, f"SLURM job {slurm.jobs()[0]}" in refused.stderr) == (2, True)
        master.kill()
        master.wait()
        running = slurm.jobs()
        master = start(project, "lab")
        slurm.wait_for(lambda: events(project, "found"), 30)
        master.send_signal(signal.SIGINT)
        code, said = ended(master)
    finally:
        master.kill()
    assert code == 130, said
    assert [event["job"] for event in events(project, "found")] == running
    slurm.wait_for(lambda: not slurm.jobs(), 30)
    ran = neuroloom("train", "lsd", "--on", "lab", "--project", project)
    assert ran.returncode == 0, ran.stderr
    assert checkpoints(project) == lsd_here
    _, again = events(project, "submitted")
    assert again["step"] > 0


def test_two_nodes_train_what_two_processes_do(slurm: Slurm, project: Path) -> None:
    here = train_here(project, "lsd", "cpu,cpu")
    master = start(project, "two")
    slurm.wait_for(lambda: done_steps(project) >= (0, 6), 60)
    (job,) = slurm.jobs()
    slurm.call("scancel", job)
    code, said = ended(master)
    assert (code, f"Job {job} was cancelled. Its training is kept until step" in said) == (130, True), said
    assert events(project, "cancelled")[0]["step"] >= 6
    ran = neuroloom("train", "lsd", "--on", "two", "--project", project)
    assert ran.returncode == 0, ran.stderr
    done = json.loads((training(project) / "done.json").read_text())
    assert (done["processes"], done["steps"]) == (2, 24)
    assert checkpoints(project) == here
    assert {event["node"] for event in events(project, "started")} == {"cpu[1-2]"}


def test_mistakes_are_told_as_on_this_machine(slurm: Slurm, project: Path) -> None:
    with with_device(project, "cuda:7"):
        ran = neuroloom("train", "lsd", "--on", "lab", "--project", project)
    assert (ran.returncode, ran.stderr.startswith("The device 'cuda:7' is not to be had")) == (2, True), ran.stderr
    assert len(events(project, "submitted")) == 1
    ran = neuroloom("train", "lsd", "--on", "three", "--project", project)
    assert (ran.returncode, ran.stderr.strip()) == (
        2, "Profile 'three', train: `nodes` is 3, more than partition cpu has: 2."
    )  # fmt: skip
    ran = neuroloom("train", "lsd", "--on", "lab", "--minutes", "5", "--project", project)
    assert (ran.returncode, "give them without --on" in ran.stderr) == (2, True)


def test_jobs_that_cannot_start_stop_the_training(slurm: Slurm, project: Path) -> None:
    ran = neuroloom("train", "lsd", "--on", "broken", "--project", project)
    assert ran.returncode == 2
    assert "3 jobs for the training of lsd ended without a new step" in ran.stderr
    assert "/opt/no-such-python" in ran.stderr
    assert not slurm.jobs()
