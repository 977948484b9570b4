"""The doctor's jobs: which ones a profile needs, and their script, which tells what went wrong before Python ran.

The script starts as a worker's does: variables, set-up lines, then Python, in the container if there is one. Its log is
kept on the node and sent along, since SLURM would not run a job whose log lies on a disk that the node does not see.
What cannot be told in any other way is told by its exit code.
"""

from __future__ import annotations

import inspect
import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from neuroloom.cluster import probe
from neuroloom.cluster.job import worker_command, worker_exports
from neuroloom.project import AnyJob, Profile, StageName, TrainJob

STEPS = (*get_args(StageName), "train")
"""All that a profile has jobs for."""

MINUTES = 10.0
"""Time limit of a job."""

SETUP_ENDED, PYTHON_FAILED = 91, 92
"""Exit codes of the script."""

_SIZES = ("cpus", "memory_gb", "gpus")
_START = (
    "account",
    "qos",
    "constraint",
    "extra",
    "setup",
    "container",
    "container_program",
    "container_options",
    "python",
    "host",
)
"""Keys that say how and where a worker starts."""

_SCRIPT = """\
neuroloom_log=$(mktemp) || neuroloom_log=/dev/null
exec >"$neuroloom_log" 2>&1
neuroloom_tell() {{
  trap - ERR EXIT
  {{ echo {title} $1; echo "$2 $SLURMD_NODENAME"; tail -c 4000 "$neuroloom_log"; }} >"$neuroloom_log.told"
  [ -d {folder} ] && cp "$neuroloom_log.told" {folder}/{job}.$1.part && mv {folder}/{job}.$1.part {folder}/{job}.$1
  timeout {patience} bash -c 'cat "$1" >"/dev/tcp/$2/$3"' tell "$neuroloom_log.told" {host} {port}
  rm -f "$neuroloom_log.told"
}}
neuroloom_failed=
trap 'neuroloom_code=$?; : "${{neuroloom_failed:=$neuroloom_code $LINENO}}"' ERR
trap 'neuroloom_tell setup "${{neuroloom_failed:-$? 0}} ended"; rm -f "$neuroloom_log"; exit {setup_ended}' EXIT
"""

_AFTER_SETUP = """\
set +eu
trap - ERR
[ -z "$neuroloom_failed" ] || neuroloom_tell setup "$neuroloom_failed on"
trap - EXIT
{command} <<'NEUROLOOM_PROBE'
{probe}
NEUROLOOM_PROBE
neuroloom_code=$?
[ $neuroloom_code = 0 ] || neuroloom_tell python "$neuroloom_code 0 ended"
rm -f "$neuroloom_log"
[ $neuroloom_code = 0 ] || exit {python_failed}
"""


@dataclass(frozen=True)
class Trial:
    """One job that tries a partition.

    Attributes:
        name: Of its files.
        stages: Whose workers are started as it is.
        partition: Where it goes.
        job: The largest of these workers.
        host: Address of the master, if the profile names one.
    """

    name: str
    stages: tuple[str, ...]
    partition: str
    job: AnyJob
    host: str | None = None

    @property
    def title(self) -> str:
        """For people: "gpu (predict)"."""
        return title_of(self.partition, self.stages)


def title_of(partition: str, stages: tuple[str, ...]) -> str:
    """A partition with the steps that use it; none are named where all do."""
    return partition if stages == STEPS else f"{partition} ({', '.join(stages)})"


def trials_of(profile: Profile, default_partition: str) -> list[Trial]:
    """One job for each partition that a profile uses; several where stages start their workers there in several ways.

    Args:
        profile: One of SLURM.
        default_partition: Where jobs go that name none.
    """
    jobs: dict[str, AnyJob] = {stage: profile.job(stage) for stage in get_args(StageName)}
    jobs["train"] = profile.train_job
    groups: dict[tuple[str, str], list[str]] = {}
    for step, job in jobs.items():
        # a training has no master to reach
        start = json.dumps({key: getattr(job, key, getattr(profile, key)) for key in _START})
        partitions = job.partition or default_partition, getattr(job, "spot_partition", None)
        for partition in dict.fromkeys(filter(None, partitions)):
            groups.setdefault((partition, start), []).append(step)
    return [
        Trial(
            f"job{number}", tuple(steps), partition, _largest([jobs[step] for step in steps]), json.loads(start)["host"]
        )
        for number, ((partition, start), steps) in enumerate(groups.items())
    ]


def _largest(jobs: list[AnyJob]) -> AnyJob:
    """A worker as large as the largest in every respect, for a short time."""
    most = {name: max(getattr(job, name) for job in jobs) for name in _SIZES}
    like = max(jobs, key=lambda job: job.gpus)
    minutes = min([MINUTES, *(job.minutes for job in jobs if job.minutes is not None)])
    nodes = {"nodes": 1} if isinstance(like, TrainJob) else {}
    return like.model_copy(update={**most, **nodes, "minutes": minutes, "memory_max_gb": None})


def trial_script(
    trial: Trial, places: Iterable[dict[str, str]], packages: list[str], mark: str, folder: Path, **to: Any
) -> str:
    """The script of a job.

    Args:
        trial: The job.
        places: What it looks at; see `probe`.
        packages: Of which it tells the versions.
        mark: The folder in each place where the doctor has left a token.
        folder: Where the job writes what it tells.
        to: token, host and port of the doctor.
    """
    asked = {
        "job": trial.name,
        "places": list(places),
        "packages": packages,
        "mark": mark,
        "folder": str(folder),
        "gpus": trial.job.gpus,
        **to,
    }
    before = _SCRIPT.format(
        title=f"{to['token']} {trial.name}",
        folder=shlex.quote(str(folder)),
        job=trial.name,
        host=shlex.quote(str(to["host"])),
        port=to["port"],
        patience=round(probe.CONNECT_SECONDS),
        setup_ended=SETUP_ENDED,
    )
    after = _AFTER_SETUP.format(
        command=shlex.join(worker_command(trial.job, ["-", json.dumps(asked)])),
        probe=inspect.getsource(probe),
        python_failed=PYTHON_FAILED,
    )
    return "\n".join(["#!/bin/bash", *worker_exports(trial.job, {}), before.rstrip(), *trial.job.setup, after])


def setup_line(trial: Trial, line: int) -> str | None:
    """The set-up line that stands in some line of a job's script; None if none does.

    Args:
        trial: The job.
        line: Counted from 1, as bash does.
    """
    line -= 2 + len(worker_exports(trial.job, {})) + _SCRIPT.count("\n")
    for entry in trial.job.setup:
        length = entry.count("\n") + 1
        if 0 <= line < length:
            return entry
        line -= length
    return None
