"""What follows from the ends of a training's jobs; SLURM is a list of ends here, the real one is in tests/system."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroloom.cluster import training
from neuroloom.cluster.slurm import JobState
from neuroloom.cluster.training import TrainingWatcher, signal_option
from neuroloom.errors import Interrupted, UserError
from neuroloom.files import write_json, write_text
from neuroloom.project import TrainJob

End = tuple[str, int, int]
"""SLURM's word for a job's end, its exit code, and the step that was saved last."""
FINISHED: End = ("COMPLETED", 0, 100)
MakeWatcher = Callable[..., TrainingWatcher]


class ListedSlurm:
    """Jobs that are seen once while they run, and then have ended as a list says."""

    def __init__(self, folder: Path, ends: list[End]) -> None:
        self.folder, self.ends = folder, ends
        self.submitted: list[list[str]] = []
        self.seen: set[str] = set()

    def submit(self, options: list[str], script: str) -> str:
        self.submitted.append(options)
        return str(len(self.submitted))

    def states(self, jobs: list[str]) -> list[JobState]:
        job = jobs[0]
        if job not in self.seen:
            self.seen.add(job)
            return [JobState(job, "RUNNING", 0, 0, 0, "node1")]
        state, code, step = self.ends[int(job) - 1]
        if state != "FORGOTTEN":
            write_text(self.folder / "curve.jsonl", "".join(f'{{"step": {n + 1}, "loss": 1.0}}\n' for n in range(step)))
        if state == "COMPLETED":
            write_json(self.folder / "done.json", {})
        write_text(self.folder / "logs" / f"{job}.log", f"words of job {job}")
        return [] if state == "FORGOTTEN" else [JobState(job, state, code, 0, 0, "node1")]


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ListedSlurm]:
    """Watches a training whose jobs end as given, and returns what SLURM has seen."""
    monkeypatch.setattr(training.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(training.slurm, "jobs_named", lambda name: [])
    monkeypatch.setattr(training, "most_memory_gb", lambda job: 2 * job.memory_gb)

    def watch(*ends: End) -> ListedSlurm:
        listed = ListedSlurm(tmp_path, list(ends))
        monkeypatch.setattr(training.slurm, "submit", listed.submit)
        monkeypatch.setattr(training.slurm, "states", listed.states)
        TrainingWatcher(tmp_path, "lsd", 100, TrainJob(), ["-m", "x"], lambda done, total, words: None).train()
        return listed

    return watch


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_it_is_submitted_again_as_long_as_steps_are_saved(watched: Callable[..., ListedSlurm], tmp_path: Path) -> None:
    at_limit = [("FAILED", 130, step) for step in (10, 10, 10, 20, 20, 20, 30)]
    listed = watched(*at_limit, FINISHED)
    assert len(listed.submitted) == 8
    steps = [event["step"] for event in events(tmp_path) if event["event"] == "submitted"]
    assert steps == [0, 10, 10, 10, 20, 20, 20, 30]


def test_what_is_nobodys_fault_is_not_counted(watched: Callable[..., ListedSlurm]) -> None:
    ends = [("NODE_FAIL", 0, 0), ("PREEMPTED", 0, 0), ("NODE_FAIL", 0, 0), ("FORGOTTEN", 0, 0), ("NODE_FAIL", 0, 0)]
    assert len(watched(*ends, FINISHED).submitted) == 6


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ([("FAILED", 130, 0)] * 3, r"3 jobs .*stopped, at their time limit.*`minutes`"),
        ([("TIMEOUT", 0, 7)] * 4, r"3 jobs .*stopped, at their time limit"),
        (
            [("FAILED", 1, 0)] * 3,
            r"3 jobs .*without a new step. The first, on node1 \(exit code 1\)(.|\n)*words of job 1",
        ),
        ([("FAILED", 1, 5)] * 4, r"3 jobs .*without a new step(.|\n)*words of job 2"),
        ([("OUT_OF_MEMORY", 0, 5)] * 2, r"taking more than 8 GB on node1.*`memory_max_gb`.*`training.crop`"),
    ],
)
def test_what_is_of_no_use_is_given_up(watched: Callable[..., ListedSlurm], ends: list[End], message: str) -> None:
    with pytest.raises(UserError, match=message):
        watched(*ends)


def test_a_job_that_was_killed_for_memory_gets_more(watched: Callable[..., ListedSlurm]) -> None:
    memory = [option for options in watched(("OUT_OF_MEMORY", 0, 0), FINISHED).submitted for option in options]
    assert [option for option in memory if option.startswith("--mem=")] == ["--mem=4096M", "--mem=8192M"]


def test_a_job_that_was_cancelled_by_hand_is_not_submitted_again(watched: Callable[..., ListedSlurm]) -> None:
    with pytest.raises(Interrupted, match=r"Job 1 was cancelled\. Its training is kept until step 20"):
        watched(("CANCELLED", 0, 20))


def test_a_user_s_mistake_is_told_at_once(watched: Callable[..., ListedSlurm], tmp_path: Path) -> None:
    write_json(tmp_path / "slurm" / "1.json", {"restart": 0, "mistake": "The crop is too large."})
    with pytest.raises(UserError, match=r"^The crop is too large\.$"):
        watched(("FAILED", 2, 0))


def test_the_lock_of_a_job_that_was_killed_is_taken_away(watched: Callable[..., ListedSlurm], tmp_path: Path) -> None:
    write_json(tmp_path / "lock", {"host": "node1", "pid": 1, "run": "theirs", "beat": 3, "job": "1", "restart": 0})
    watched(("OUT_OF_MEMORY", 0, 0), FINISHED)
    assert not (tmp_path / "lock").exists()


def test_the_signal_comes_in_time_to_save() -> None:
    assert signal_option(TrainJob()) == "--signal=B:USR1@120"
    assert signal_option(TrainJob(minutes=2)) == "--signal=B:USR1@30"
    assert signal_option(TrainJob(minutes=600, nodes=2)) == "--signal=USR1@120"
