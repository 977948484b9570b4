"""What sbatch is asked for, the script of a worker, and why jobs end; what SLURM does with them is in tests/system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from neuroloom.cluster.ends import why_ended, why_training_ended
from neuroloom.cluster.job import sbatch_options, worker_script
from neuroloom.cluster.slurm import JobState, check_installed, gpus_of, minutes_of
from neuroloom.errors import UserError
from neuroloom.project import Job, TrainJob


def test_options_say_what_the_profile_says() -> None:
    job = Job(cpus=4, memory_gb=16, gpus=1, gpu_type="a100", minutes=90, account="lab", extra=("--exclusive",))
    options = sbatch_options(job, "predict", Path("my %a logs/%A_%a.log"), "gpu", 32, ("bad1", "bad2"))
    for option in (
        "--requeue",
        "--output=my %%a logs/%A_%a.log",
        "--cpus-per-task=4",
        "--mem=32768M",
        "--partition=gpu",
        "--gres=gpu:a100:1",
        "--time=90",
        "--account=lab",
        "--exclude=bad1,bad2",
        "--exclusive",
    ):
        assert option in options
    plain = sbatch_options(job.model_copy(update={"gpu_option": "gpus", "minutes": None}), "x", Path("l"), None, 16)
    assert "--gpus=a100:1" in plain
    assert not [option for option in plain if option.startswith(("--time", "--partition", "--exclude=", "--qos"))]


def test_the_script_runs_the_worker_with_its_variables(tmp_path: Path) -> None:
    (tmp_path / "show.py").write_text(
        "import os, sys; print(os.environ['A'], os.environ['OMP_NUM_THREADS'], sys.argv[1])"
    )
    job = Job(cpus=3, setup=("B=set", "export A=$A-$B"))
    script = worker_script(job, [str(tmp_path / "show.py"), "a b"], {"A": "it's"})
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=True)
    assert done.stdout == "it's-set 3 a b\n"
    assert sys.executable in script


def test_a_container_gets_the_gpu_only_where_there_is_one() -> None:
    job = Job(container="/images/neuroloom.sif", container_options=("--bind=/data",), gpus=1)
    assert "exec apptainer exec --nv --bind=/data /images/neuroloom.sif python3 -m x" in worker_script(
        job, ["-m", "x"], {}
    )
    other = job.model_copy(update={"gpus": 0, "container_program": "singularity", "python": "/opt/python"})
    expected = "exec singularity exec --bind=/data /images/neuroloom.sif /opt/python -m x"
    assert expected in worker_script(other, ["-m", "x"], {})


def test_a_training_on_several_nodes_asks_for_as_many_processes_as_gpus() -> None:
    job = TrainJob(nodes=2, cpus=8, gpus=2, memory_gb=32)
    options = sbatch_options(job, "train", Path("logs/%j.log"), None, job.memory_gb)
    assert {"--nodes=2", "--ntasks-per-node=2", "--cpus-per-task=4", "--gres=gpu:2", "--mem=32768M"} <= set(options)
    options = sbatch_options(job.model_copy(update={"gpu_option": "gpus"}), "train", Path("l"), None, 32)
    assert "--gpus-per-node=2" in options
    # on one, the program itself starts its processes
    alone = sbatch_options(job.model_copy(update={"nodes": 1}), "train", Path("l"), None, 32)
    assert {"--nodes=1", "--ntasks-per-node=1", "--cpus-per-task=8", "--gres=gpu:2"} <= set(alone)
    assert "srun" not in worker_script(job.model_copy(update={"nodes": 1}), ["-m", "x"], {})


@pytest.mark.parametrize(("address", "expected"), [("NodeAddr=10.0.0.7", "10.0.0.7"), ("", "a1")])
def test_several_nodes_meet_at_the_first(tmp_path: Path, address: str, expected: str) -> None:
    for name, text in (
        ("scontrol", f'if [ $2 = hostnames ]; then printf "a1\\na2\\n"; else echo "NodeName=a1 {address}"; fi'),
        ("srun", 'echo "$MASTER_ADDR $MASTER_PORT $OMP_NUM_THREADS $*"'),
    ):
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    script = worker_script(TrainJob(nodes=2, cpus=8, gpus=2, python="py"), ["-m", "x"], {})
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_NODELIST": "a[1-2]", "SLURM_JOB_ID": "20007"}
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == f"{expected} 20007 4 --kill-on-bad-exit=1 --wait=0 --cpus-per-task=4 py -m x\n"


@pytest.mark.parametrize(
    ("state", "code", "killer", "told", "expected"),
    [
        ("COMPLETED", 0, 0, True, "finished"),
        ("CANCELLED", 0, 15, True, "cancelled"),
        ("NODE_FAIL", 0, 0, True, "evicted"),
        ("PREEMPTED", 0, 15, True, "evicted"),
        ("TIMEOUT", 0, 15, True, "time"),
        ("FAILED", 130, 0, True, "time"),  # it has saved its state
        ("FAILED", 0, 10, False, "time"),  # SIGUSR1 before it could hear it
        ("FAILED", 143, 0, True, "time"),  # one of several was sent SIGTERM
        ("OUT_OF_MEMORY", 0, 125, True, "memory"),
        ("FAILED", 1, 0, False, "not started"),
        ("FAILED", 1, 0, True, "killed"),
        ("FAILED", 87, 0, True, "killed"),  # what a hanging block's worker ends with
    ],
)
def test_ends_of_trainings_are_told_apart(state: str, code: int, killer: int, told: bool, expected: str) -> None:
    job = JobState("1", state, code, killer, 0, "node")
    assert why_training_ended(job, {"done": 3} if told else {}, "") == expected


@pytest.mark.parametrize(
    ("state", "code", "killer", "connected", "log", "expected"),
    [
        ("COMPLETED", 0, 0, True, "", "finished"),
        ("FAILED", 4, 0, True, "", "finished"),  # the master was gone
        ("NODE_FAIL", 0, 0, True, "", "evicted"),
        ("PREEMPTED", 0, 15, True, "", "evicted"),
        ("CANCELLED", 0, 15, True, "", "evicted"),
        ("TIMEOUT", 0, 1, True, "", "time"),
        ("OUT_OF_MEMORY", 0, 125, True, "", "memory"),
        ("FAILED", 0, 9, True, "slurmstepd: error: Exceeded job memory limit", "memory"),
        ("FAILED", 137, 0, True, "slurmstepd: error: Detected 1 oom-kill event(s)", "memory"),
        ("FAILED", 0, 9, True, "", "killed"),
        ("FAILED", 139, 0, True, "", "killed"),
        ("FAILED", 5, 0, True, "", "no room"),
        ("FAILED", 5, 0, False, "", "no room"),
        ("FAILED", 1, 0, False, "ModuleNotFoundError: no oom-kill here", "not started"),
        ("FAILED", 126, 0, False, "", "not started"),
    ],
)
def test_ends_are_told_apart(state: str, code: int, killer: int, connected: bool, log: str, expected: str) -> None:
    job = JobState("1_0", state, code, killer, 0, "node")
    assert why_ended(job, {"connected": connected}, log) == expected


def test_a_machine_without_slurm_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="no `sbatch` on this machine"):
        check_installed()


def test_slurms_words_are_understood() -> None:
    assert gpus_of("gpu:a100:4(S:0-1),gpu:2,license:1") == 6
    assert gpus_of("gpu") == 1
    assert gpus_of("(null)") == 0
    assert [minutes_of(text) for text in ("infinite", "30:00", "2:00:00", "1-12:00:00", "1-0")] == [
        None,
        30,
        120,
        2160,
        1440,
    ]


def test_jobs_that_could_not_be_launched_are_told_from_those_that_wait() -> None:
    def job(state: str, reason: str) -> JobState:
        return JobState("1_0", state, 0, 0, 1, "", reason)

    assert job("PENDING", "launch failed requeued held").is_held
    assert job("PENDING", "launch_failed_requeued_held").is_held
    assert job("REQUEUE_HOLD", "").is_held
    assert not job("PENDING", "Resources").is_held
    assert not job("PENDING", "JobHeldUser").is_held  # somebody wants it so
    assert not job("FAILED", "launch failed requeued held").is_held
