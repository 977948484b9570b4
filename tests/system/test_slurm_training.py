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

from neuroloom.chain import Chain, open_project
from neuroloom.chain.running import running_on
from neuroloom.errors import UserError
from neuroloom.files import hash_file
from neuroloom.project import FILE_NAME
from small_project import VALUES, make_project, neuroloom

pytestmark = pytest.mark.system

TRAINING = {
    **VALUES["training"],
    "batch_size": 2,
    "lsd": {"iterations": 20},
    "affinities": {"iterations": 3},
    "score_every": 3,
    "snapshot_every": 100,
    "checkpoint_every": 1,
}

PROFILES = """
[profiles.lab]
kind = "slurm"
poll_seconds = 0.3
memory_gb = 2
workers_max = 3

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


def train_here(folder: Path, setup: str) -> dict[str, str]:
    """Train on this machine; the content of the checkpoints, which are removed."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):  # as in the jobs: roundings depend on them
            patch.setenv(name, "1")
        ran = neuroloom("train", setup, "--project", folder)
    assert ran.returncode == 0, ran.stderr
    trained = checkpoints(folder, setup)
    shutil.rmtree(folder / "training")
    return trained


@contextlib.contextmanager
def changed(folder: Path, line: str, other: str) -> Iterator[None]:
    """The project with another line."""
    file = folder / FILE_NAME
    text = file.read_text()
    assert line in text
    file.write_text(text.replace(line, other))
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
        said, _ = process.communicate(timeout=600)
    finally:
        process.kill()
    return process.returncode, said


def train_there(folder: Path, profile: str, setup: str = "lsd") -> None:
    """Train with a profile, watched by this process."""
    opened = open_project(folder)
    Chain(opened, running_on(opened, profile)).train(setup, lambda done, total, words: None)


def told(folder: Path) -> tuple[int, int]:
    """How often the job has been started again, and steps that it says it has done; none before it says so."""
    try:
        newest = max((training(folder) / "slurm").glob("[0-9]*.json"), key=os.path.getmtime)
        content = json.loads(newest.read_text())
    except (StopIteration, ValueError):
        return 0, 0
    return content["restart"], content["done"]


def has_saved(folder: Path) -> bool:
    """Whether there is something to go on from."""
    return any(folder.glob("training/*/state.pt"))


def test_a_job_trains_and_scores_like_this_machine_and_only_once(slurm: Slurm, project: Path) -> None:
    here = train_here(project, "affs")
    ran = neuroloom("train", "affs", "--on", "lab", "--project", project)
    assert ran.returncode == 0, ran.stderr
    assert checkpoints(project, "affs") == here
    train_there(project, "lab", "affs")
    assert (training(project, "affs") / "events.jsonl").read_text().count("submitted") == 1
    assert not slurm.jobs()


def test_it_goes_on_after_an_eviction_and_at_the_time_limit(
    slurm: Slurm, project: Path, lsd_here: dict[str, str]
) -> None:
    master = start(project, "lab")
    try:
        slurm.wait_for(lambda: has_saved(project), 120)
        (job,) = slurm.jobs()
        assert slurm.evict(slurm.call("squeue", "-hj", job, "-o", "%N").strip())
        slurm.wait_for(lambda: told(project) > (1, 0), 120)
        slurm.call("scancel", "--signal=USR1", "--batch", job)  # as SLURM does before the limit
        code, said = ended(master)
    finally:
        master.kill()
    assert code == 0, said
    assert checkpoints(project) == lsd_here
    (requeued,), (timed,) = events(project, "requeued"), events(project, "time")
    assert 0 < requeued["step"] < timed["step"] < events(project, "started")[-1]["step"]
    assert [event["job"] for event in events(project, "submitted")] == [job, str(int(job) + 1)]


def test_a_job_outlives_its_master_and_is_found_again_and_ctrl_c_cancels_it(
    slurm: Slurm, project: Path, lsd_here: dict[str, str]
) -> None:
    master = start(project, "lab")
    try:
        slurm.wait_for(lambda: told(project) > (0, 0), 120)
        (job,) = slurm.jobs()
        slurm.call("scontrol", "suspend", job)  # so that it is not finished before all this is done
        with pytest.raises(UserError, match=r"Another run is writing .*watching the training of lsd"):
            train_there(project, "lab")
        with pytest.raises(UserError, match=f"Another run is writing .*SLURM job {job}"):
            train_there(project, "local")
        master.kill()
        master.wait()
        master = start(project, "lab")
        slurm.wait_for(lambda: events(project, "found"), 60)
        slurm.call("scontrol", "resume", job)
        master.send_signal(signal.SIGINT)
        code, said = ended(master)
    finally:
        master.kill()
    assert code == 130, said
    assert [event["job"] for event in events(project, "found")] == [job]
    slurm.wait_for(lambda: not slurm.jobs(), 30)
    train_there(project, "lab")
    assert checkpoints(project) == lsd_here
    _, again = events(project, "submitted")
    assert again["step"] > 0


def test_two_nodes_train_what_two_processes_do(slurm: Slurm, project: Path) -> None:
    with changed(project, "iterations = 20", "iterations = 10"):
        with changed(project, 'device = "cpu"', 'device = "cpu,cpu"'):
            here = train_here(project, "lsd")
        stop_and_go_on(slurm, project)
    done = json.loads((training(project) / "done.json").read_text())
    assert (done["processes"], done["steps"]) == (2, 10)
    assert checkpoints(project) == here


def stop_and_go_on(slurm: Slurm, project: Path) -> None:
    """Train on two nodes, with the job cancelled by hand in between."""
    master = start(project, "two")
    try:
        slurm.wait_for(lambda: has_saved(project), 120)
        (job,) = slurm.jobs()
        slurm.call("scancel", job)
        code, said = ended(master)
    finally:
        master.kill()
    assert (code, f"Job {job} was cancelled. Its training is kept until step" in said) == (130, True), said
    train_there(project, "two")
    started = events(project, "started")[-1]
    assert started["node"] == "cpu[1-2]"
    assert started["step"] > events(project, "cancelled")[0]["step"] > 0


def test_mistakes_are_told_as_on_this_machine(slurm: Slurm, project: Path) -> None:
    with (
        changed(project, 'device = "cpu"', 'device = "cuda:7"'),
        pytest.raises(UserError, match=r"^The device 'cuda:7' is not to be had"),
    ):
        train_there(project, "lab")
    assert len(events(project, "submitted")) == 1
    with pytest.raises(UserError, match=r"'three', train: `nodes` is 3, more than partition cpu has: 2\.$"):
        train_there(project, "three")


def test_jobs_that_cannot_start_stop_the_training(slurm: Slurm, project: Path) -> None:
    with pytest.raises(
        UserError, match=r"3 jobs for the training of lsd ended without a new step(.|\n)*no-such-python"
    ):
        train_there(project, "broken")
    assert not slurm.jobs()


def test_one_command_trains_and_segments_on_the_cluster(slurm: Slurm, tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    (project / "cluster.toml").write_text(PROFILES)
    ran = neuroloom("run", "--on", "lab", "--project", project)
    assert ran.returncode == 0, ran.stderr
    slurm.wait_for(lambda: not slurm.jobs(), 30)
    chain = Chain(open_project(project))
    segment = chain.segment(chain.volume("val"))
    assert segment is not None
    assert segment.is_done()
    jobs = {
        file.parent.name.rpartition("-")[0]
        for file in project.glob("*/**/events.jsonl")
        if any(json.loads(line)["event"] == "submitted" for line in file.open())
    }
    assert jobs == {"lsd", "acrlsd", "affinities", "fragments", "agglomeration", "segmentation"}
