"""SLURM's own figures of jobs, where the cluster keeps them (`sacct`): time, processors, memory.

A job that went back to the queue has one entry for each time that it ran.

    1_0|COMPLETED|8|00:02.495||2|cpu1|billing=2,cpu=2,mem=1500M,node=1            the job
    1_0.batch|COMPLETED|8|00:02.495|226639872|2|cpu1|cpu=2,mem=1500M,node=1       its steps: they alone have memory
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

SETTLE_SECONDS = 5.0
"""For which jobs are waited for that have not ended yet."""

COMMAND_SECONDS = 20.0
"""For one look."""

_COLUMNS = ("JobID", "State", "ElapsedRaw", "TotalCPU", "MaxRSS", "AllocCPUS", "NodeList", "AllocTRES")
_UNDERWAY = ("PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "CONFIGURING", "RESIZING")


@dataclass(frozen=True)
class Figures:
    """What SLURM measured of a job, one time that it ran.

    Attributes:
        job: "12_3": of array 12, number 3.
        state: SLURM's word: COMPLETED, CANCELLED, REQUEUED, NODE_FAIL, ...
        seconds: From start to end.
        cpu_seconds: Of processors that it used.
        memory: Bytes at most, as sampled now and then; 0 for a job that was too short.
        cpus: That it had.
        gpus: That it had.
        node: Where.
    """

    job: str
    state: str
    seconds: float
    cpu_seconds: float
    memory: int
    cpus: int
    gpus: int
    node: str


class NotKept(Exception):
    """The cluster keeps no figures, or does not tell them; the message says which."""


def log_figures(event: Callable[..., None], jobs: Sequence[str], since: float) -> None:
    """Log SLURM's own figures of jobs, where it keeps any.

    Args:
        event: Logs an event: what happened, and its keys.
        jobs: Numbers of jobs, or of arrays.
        since: As for `settled_figures`.
    """
    if not jobs:
        return
    try:
        for figures in settled_figures(jobs, since):
            event("measured", **vars(figures))
    except NotKept as error:
        event("not measured", why=str(error))


def settled_figures(arrays: Sequence[str], since: float) -> list[Figures]:
    """Figures of jobs that have ended, or end within `SETTLE_SECONDS`.

    Args:
        arrays: Numbers of job arrays.
        since: When the first was submitted, in seconds since 1970: numbers of jobs are used again after years.

    Raises:
        NotKept: There are none.
    """
    end = time.monotonic() + SETTLE_SECONDS
    while True:
        found = _ask(arrays, since)
        if time.monotonic() > end or not any(entry.state in _UNDERWAY for entry in found):
            return [entry for entry in found if entry.node != "None assigned"]
        time.sleep(0.5)


def _ask(arrays: Sequence[str], since: float) -> list[Figures]:
    if shutil.which("sacct") is None:
        raise NotKept("there is no `sacct` on this machine")
    command = ["sacct", "--noheader", "--parsable2", "--duplicates", "--noconvert"]
    start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since - 86400))  # whatever the zone of SLURM's time is
    command += [f"--jobs={','.join(arrays)}", f"--starttime={start}", f"--format={','.join(_COLUMNS)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS)
    except subprocess.TimeoutExpired:
        raise NotKept(f"`sacct` did not answer within {COMMAND_SECONDS:.0f} s") from None
    if done.returncode:
        raise NotKept(" ".join(done.stderr.split()) or f"`sacct` ended with exit code {done.returncode}")
    return parse(done.stdout)


def parse(text: str) -> list[Figures]:
    """Figures in what `sacct` prints, with `_COLUMNS`.

    Args:
        text: A line for each job and each of its steps, which follow it.
    """
    found: list[Figures] = []
    for line in text.splitlines():
        name, state, seconds, cpu, memory, cpus, node, tres = line.split("|")
        if "." not in name:
            gpus = re.search(r"gres/gpu=(\d+)", tres)
            found.append(
                Figures(
                    name,
                    state.partition(" ")[0],
                    float(seconds or 0),
                    seconds_of(cpu),
                    0,
                    int(cpus or 0),
                    int(gpus[1]) if gpus else 0,
                    node,
                )
            )
        elif found and memory.isdigit():
            found[-1] = replace(found[-1], memory=max(found[-1].memory, int(memory)))
    return found


def seconds_of(text: str) -> float:
    """Seconds in SLURM's words for a time: 93784.5 of "1-02:03:04.500", 2.495 of "00:02.495"."""
    days, _, rest = text.rpartition("-")
    seconds = 0.0
    for part in rest.split(":"):
        seconds = 60 * seconds + float(part or 0)
    return 86400 * int(days or 0) + seconds
