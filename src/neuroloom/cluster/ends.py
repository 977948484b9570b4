"""Why a job ended, told from SLURM's state, the exit code, what it said last, and its log."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any, Literal

from daisy._daisy import EXIT_BLOCK_TIMEOUT

from neuroloom.blockwise.worker import MASTER_GONE, NO_ROOM
from neuroloom.cluster.slurm import JobState

End = Literal["finished", "evicted", "memory", "time", "no room", "hung", "not started", "killed"]
"""finished      by itself: there were no blocks, or no master
evicted       taken away, with its node or by itself: nobody's fault
memory        killed for taking more than it had asked for
time          at its time limit
no room       by itself, since the disk is full
hung          stopped by itself, since a block took too long
not started   before it was connected with the master
killed        in any other way, while it had or waited for a block"""

TrainingEnd = Literal["finished", "evicted", "memory", "time", "not started", "killed", "cancelled"]
"""As above; there are no blocks that hang. Besides,
time          also: stopped by one of the signals that come before, after which its state is saved
cancelled     by a person: nobody else cancels a training"""

STOPPED = 130
"""Exit code of a training that was asked to stop."""

_EVICTED = ("NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "CANCELLED", "REVOKED")
_TIME = ("TIMEOUT", "DEADLINE")
_MEMORY_WORDS = re.compile(r"oom[-_ ]kill|out of memory|exceeded (job )?memory limit", re.IGNORECASE)
_TAIL = 4000
"""Characters of a log that are looked at and shown."""


def why_ended(job: JobState, told: dict[str, Any], log: str) -> End:
    """Why a job ended.

    Args:
        job: As SLURM tells it.
        told: What its worker said last; empty if it said nothing since it was started.
        log: The end of its log.
    """
    if job.state == "COMPLETED" or (job.code == MASTER_GONE and job.state == "FAILED"):
        return "finished"
    if job.state in _EVICTED:
        return "evicted"
    if job.state in _TIME:
        return "time"
    if job.state == "OUT_OF_MEMORY" or (9 in (job.signal, job.code - 128) and _MEMORY_WORDS.search(log)):
        return "memory"
    if job.state == "FAILED" and job.code == NO_ROOM:
        return "no room"
    if not told.get("connected"):
        return "not started"
    return "hung" if job.code == EXIT_BLOCK_TIMEOUT else "killed"


def why_training_ended(job: JobState, told: dict[str, Any], log: str) -> TrainingEnd:
    """Why the job of a training ended.

    Args:
        job: As SLURM tells it.
        told: How far it said it was; empty if it said nothing since it was started.
        log: The end of its log.
    """
    if job.state == "CANCELLED":
        return "cancelled"
    asked = (signal.SIGTERM, signal.SIGUSR1)
    if job.state == "FAILED" and (job.code == STOPPED or job.signal in asked or job.code - 128 in asked):
        return "time"
    why = why_ended(job, {"connected": bool(told)}, log)
    if why == "hung" or why == "no room":
        return "killed"
    return why


def how(job: JobState) -> str:
    """How a job ended, in a few words."""
    if job.is_held:
        return "SLURM could not launch it"
    killer = job.signal or (job.code - 128 if job.code > 128 else 0)
    return f"signal {killer}" if killer else f"exit code {job.code}"


def read_told(folder: Path, job: JobState) -> dict[str, Any]:
    """What a job's worker said last, since it was last started.

    Args:
        folder: Of what workers say.
        job: The job.
    """
    try:
        told = json.loads((folder / f"{job.name}.json").read_text())
    except (OSError, ValueError):
        return {}
    return dict(told) if told.get("restart") == job.restarts else {}


def log_tail(file: Path) -> str:
    """The end of a log; empty where there is none."""
    try:
        with open(file, "rb") as opened:
            opened.seek(0, 2)
            opened.seek(max(0, opened.tell() - _TAIL))
            return opened.read().decode(errors="replace").strip()
    except OSError:
        return ""
