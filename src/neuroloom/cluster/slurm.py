"""The few commands of SLURM that are used, as functions: partitions, submitting jobs, states, cancelling.

A controller that does not answer for a while (it is being started again, or too busy) is asked again; what it refuses
is the user's to put right.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from neuroloom.errors import UserError

PATIENCE = 600.0
"""Seconds for which a controller that does not answer is asked again."""

COMMAND_SECONDS = 60.0
"""For one command."""

_AWAY = ("unable to contact", "timed out", "connection refused", "connection failure", "temporarily unable")
_COLUMNS = {"JobArrayID": 40, "State": 20, "exit_code": 12, "RestartCnt": 12, "NodeList": 120, "Reason": 60}
_PENDING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_HELD = ("REQUEUE_HOLD", "SPECIAL_EXIT")
_RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "SIGNALING", "STAGE_OUT", "STOPPED", "RESIZING")


@dataclass(frozen=True)
class JobState:
    """One job, of an array or of none.

    Attributes:
        name: "12_3": of array 12, number 3; "12" of none.
        state: SLURM's word: PENDING, RUNNING, COMPLETED, FAILED, OUT_OF_MEMORY, ...
        code: With which it ended, 0 if it was killed.
        signal: That killed it, 0 if none did.
        restarts: How often it went back to the queue.
        node: Where it runs or ran.
        reason: Why it waits, in SLURM's word: Resources, Priority, ...
    """

    name: str
    state: str
    code: int
    signal: int
    restarts: int
    node: str
    reason: str = ""

    @property
    def is_held(self) -> bool:
        """Whether it could not be launched, and would wait until a person looks after it."""
        return self.state in _HELD or (self.is_pending and "launch failed" in self.reason.replace("_", " "))

    @property
    def is_pending(self) -> bool:
        """Whether it waits to run."""
        return self.state in _PENDING

    @property
    def is_running(self) -> bool:
        """Whether it runs."""
        return self.state in _RUNNING


@dataclass(frozen=True)
class Partition:
    """What a partition offers.

    Attributes:
        name: Its name.
        default: Whether jobs go there that name none.
        nodes: How many nodes it has.
        memory_gb: Of the node that has most.
        cpus: Of the node that has most.
        gpus: Of the node that has most.
        features: Of all nodes.
        minutes: Its time limit; None without.
    """

    name: str
    default: bool
    nodes: int
    memory_gb: float
    cpus: int
    gpus: int
    features: frozenset[str]
    minutes: float | None


def check_installed() -> None:
    """Refuse a machine that cannot submit jobs.

    Raises:
        UserError: It has no sbatch.
    """
    if shutil.which("sbatch") is None:
        raise UserError(
            "There is no `sbatch` on this machine. Run the command on a login node of the cluster, or load SLURM first "
            "(`module load slurm`)."
        )


def partitions() -> dict[str, Partition]:
    """All partitions that jobs may go to, by name.

    Raises:
        UserError: SLURM does not answer.
    """
    found: dict[str, Partition] = {}
    for line in _ask(["sinfo", "--noheader", "--all", "--format=%P|%D|%m|%c|%G|%f|%l"]).splitlines():
        name, nodes, memory, cpus, gres, features, limit = line.strip().split("|")
        offer = Partition(
            name.rstrip("*"),
            name.endswith("*"),
            int(nodes),
            _number(memory) / 1024,
            int(_number(cpus)),
            gpus_of(gres),
            frozenset(() if features == "(null)" else features.split(",")),
            minutes_of(limit),
        )
        known = found.get(offer.name, offer)
        found[offer.name] = Partition(
            offer.name,
            offer.default,
            offer.nodes + (known.nodes if known is not offer else 0),
            max(offer.memory_gb, known.memory_gb),
            max(offer.cpus, known.cpus),
            max(offer.gpus, known.gpus),
            offer.features | known.features,
            offer.minutes,
        )
    return found


def gpus_of(gres: str) -> int:
    """GPUs in SLURM's words for what a node has: 6 of "gpu:a100:4(S:0-1),gpu:2,license:1"."""
    count = 0
    for resource in gres.split(","):
        kind, *rest = resource.partition("(")[0].split(":")
        if kind == "gpu":
            count += int(rest[-1]) if rest and rest[-1].isdigit() else 1
    return count


def minutes_of(limit: str) -> float | None:
    """Minutes in SLURM's words for a time, such as "1-12:00:00", "30:00"; None for no limit."""
    if not limit[:1].isdigit():
        return None
    days, _, rest = limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if days:  # 1-12, 1-12:30, 1-12:30:00
        hours, minutes, seconds = [*parts, 0, 0][:3]
        return int(days) * 1440 + hours * 60 + minutes + seconds / 60
    hours, minutes, seconds = [0, 0, *parts][-3:] if len(parts) > 1 else [0, parts[0], 0]
    return hours * 60 + minutes + seconds / 60


def submit(options: Sequence[str], script: str, count: int | None = None) -> str:
    """Submit a job, or a job array.

    Args:
        options: Of sbatch.
        script: What each job runs.
        count: How many jobs an array has, numbered from 0; None for a job that is of none.

    Returns:
        The job's or array's number.

    Raises:
        UserError: SLURM refuses it or does not answer.
    """
    array = [] if count is None else [f"--array=0-{count - 1}"]
    said = _ask(["sbatch", "--parsable", *array, *options], script)
    return said.strip().splitlines()[-1].partition(";")[0]


def states(arrays: Sequence[str]) -> list[JobState]:
    """Jobs, of these arrays or numbers, that SLURM remembers: some minutes after they have ended, it does not.

    Raises:
        UserError: SLURM does not answer.
    """
    # of several numbers, one that is forgotten would hide the others
    return [state for array in arrays for state in _queue("--states=all", f"--jobs={array}")]


def jobs_named(name: str) -> list[JobState]:
    """Jobs of a name that wait or run, or are about to end.

    Raises:
        UserError: SLURM does not answer.
    """
    return _queue(f"--name={name}")


def _queue(*options: str) -> list[JobState]:
    columns = ",".join(f"{name}:{width}" for name, width in _COLUMNS.items())
    command = ["squeue", "--noheader", "--array", f"--Format={columns}", *options]
    said = _ask(command, forgotten="invalid job id").splitlines()
    return [_job_state(line) for line in said if line.strip()]


def _job_state(line: str) -> JobState:
    parts, begin = [], 0
    for width in _COLUMNS.values():
        parts.append(line[begin : begin + width].strip())
        begin += width
    name, state, status, restarts, node, reason = parts
    waited = int(status) if status.isdigit() else 0
    code, signal = waited >> 8, waited & 127
    return JobState(name, state, code, signal, int(restarts) if restarts.isdigit() else 0, node, reason)


def reason(array: str) -> str:
    """Why an array's jobs wait, in SLURM's word: Resources, Priority, PartitionDown, ...; empty if it does not say.

    Args:
        array: Its number.

    Raises:
        UserError: SLURM does not answer.
    """
    said = _ask(["squeue", "--noheader", "--format=%r", f"--jobs={array}"], forgotten="invalid job id").split()
    return said[0] if said and said[0] != "None" else ""


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs or whole arrays; those that have ended, or a SLURM that does not answer, are no mistake.

    Args:
        jobs: Names, or options of scancel.
    """
    if jobs:
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(["scancel", *jobs], capture_output=True, check=False, timeout=COMMAND_SECONDS)


def _ask(command: Sequence[str], said: str | None = None, forgotten: str | None = None) -> str:
    """What a command prints.

    Args:
        command: The command.
        said: To its standard input.
        forgotten: What it says where there is nothing to print.
    """
    end = time.monotonic() + PATIENCE
    while True:
        try:
            done = subprocess.run(
                command, input=said, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS
            )
            message = " ".join((done.stderr or done.stdout).split())
        except subprocess.TimeoutExpired:
            done, message = None, f"timed out after {COMMAND_SECONDS:.0f} s"
        if done is not None and done.returncode == 0:
            return done.stdout
        if forgotten is not None and forgotten in message.lower():
            return ""
        away = any(words in message.lower() for words in _AWAY)
        if away and time.monotonic() < end:
            time.sleep(5.0)
            continue
        advice = "Try again later" if away else "Correct the profile"
        if "configuration source" in message:
            advice = "Run it on a login node of the cluster, or set SLURM_CONF"
        raise UserError(
            f"SLURM {'does not answer' if away else 'refuses'} `{' '.join(command)}`: {message}. {advice}; what was "
            "finished is kept."
        )


def _number(text: str) -> float:
    return float(text.rstrip("+KMGT"))
