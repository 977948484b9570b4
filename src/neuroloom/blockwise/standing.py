"""How far a stage is, who works on it, and what it has cost so far: read from its files, without its lock.

What a done stage has cost is kept in its `account.json`, so that it need not be added up again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuroloom.blockwise.failures import failures_in
from neuroloom.blockwise.history import Job, Replay
from neuroloom.blockwise.replay import replay
from neuroloom.blockwise.stage import described_grid
from neuroloom.blockwise.tracking import done_blocks
from neuroloom.files import read_json, read_owner, seems_alive, write_json

ACCOUNT = "account.json"
"""In a done stage's folder."""


@dataclass(frozen=True)
class Account:
    """What a stage has cost so far; blocks that were done several times count once.

    Attributes:
        core_hours: Processor time of blocks.
        gpu_hours: Time of blocks that used a GPU.
        gpu_busy_hours: In which their GPU computed; None where nobody tells.
        bytes_read: By blocks.
        bytes_written: By blocks.
        block_memory: Bytes of the block that took most.
        block_gpu_memory: Likewise, on a GPU.
        block_seconds: Median of a block.
        slowest_block: Number of the block that took longest.
        slowest_seconds: What it took.
        repeated_blocks: Done once more, since a worker was taken away before it was heard.
        repeated_core_hours: Processor time of these, which `core_hours` leaves out.
        failed_attempts: At blocks.
        failed_core_hours: Processor time of these, which `core_hours` leaves out.
        untold_blocks: Done, but what they cost was lost with their worker.
        runs: How many there were.
        jobs: Submitted to a cluster.
        evictions: Machines taken away from jobs.
        job_core_hours: For which jobs had processors: by SLURM's own figures where it keeps them, else as seen.
        job_gpu_hours: Likewise, GPUs.
        slurm: Whether SLURM's own figures are in.
    """

    core_hours: float
    gpu_hours: float
    gpu_busy_hours: float | None
    bytes_read: int
    bytes_written: int
    block_memory: int
    block_gpu_memory: int
    block_seconds: float | None
    slowest_block: int | None
    slowest_seconds: float | None
    repeated_blocks: int
    repeated_core_hours: float
    failed_attempts: int
    failed_core_hours: float
    untold_blocks: int
    runs: int
    jobs: int
    evictions: int
    job_core_hours: float
    job_gpu_hours: float
    slurm: bool


@dataclass(frozen=True)
class WorkerNow:
    """A worker of a cluster that runs now.

    Attributes:
        name: Of its job.
        node: Where.
        block: That it is at; None while it waits for one.
        since: When it began that, in seconds since 1970.
    """

    name: str
    node: str
    block: int | None
    since: float


@dataclass(frozen=True)
class RunNow:
    """The run that holds a stage's lock.

    Attributes:
        name: Of the run.
        host: Where it was started.
        process: Its number there.
        since: When, as that machine's clock has it.
        alive: Whether it seems to live.
        local_workers: Processes of that machine; None where a cluster supplies workers.
        workers: Those of a cluster that are connected.
        waiting: Jobs in the queue.
    """

    name: str
    host: str
    process: int
    since: str
    alive: bool
    local_workers: int | None
    workers: tuple[WorkerNow, ...]
    waiting: int

    @property
    def workers_now(self) -> int:
        """How many there are."""
        return len(self.workers) if self.local_workers is None else self.local_workers


@dataclass(frozen=True)
class Standing:
    """How far a stage is.

    Attributes:
        total: Blocks in all.
        done: Of them.
        failed: Numbers of those that failed in this run, or the last.
        run: That is at it; None where none is.
        account: What it has cost.
    """

    total: int
    done: int
    failed: tuple[int, ...]
    run: RunNow | None
    account: Account

    def as_json(self) -> dict[str, Any]:
        """For `status --json`."""
        return asdict(self)


def standing(folder: Path) -> Standing:
    """How far a stage is.

    Args:
        folder: The stage's; it has a `stage.json`.

    Raises:
        UserError: A file of the stage is damaged.
    """
    if (folder / "done.json").exists():
        kept = _kept_account(folder)
        if kept is not None:
            total = int(read_json(folder / "done.json")["blocks"])
            return Standing(total, total, (), None, kept)
    found = replay(folder)
    run = _run_now(folder, found)
    if run is None or not run.alive:
        for job in found.jobs.values():
            job.end_with(next(other for other in found.runs if other.name == job.run))
    failures = failures_in(folder)
    given_up = [failure["block"] for failure in failures if failure["given_up"]]
    if (folder / "done.json").exists():
        done = found.total
    else:
        try:
            done = _blocks_done(folder, given_up)
        except (OSError, ValueError):  # its master was killed while it wrote: the next one mends it
            done = int(found.told.sum())
    failed = tuple(failure["block"] for failure in failures if not failure["no_input"])
    return Standing(found.total, done, failed, run, account(found, done))


def _blocks_done(folder: Path, given_up: list[int]) -> int:
    """How many blocks are done, and not only given up."""
    done = done_blocks(folder / "blocks", described_grid(folder / "stage.json")).ravel()
    done[given_up] = False
    return int(np.count_nonzero(done))


def keep_account(folder: Path) -> None:
    """Write down what a stage has cost that is all but done.

    Args:
        folder: The stage's.

    Raises:
        UserError: The disk is full, or the folder cannot be written.
    """
    found = replay(folder)
    write_json(folder / ACCOUNT, asdict(account(found, found.total)))


def account(found: Replay, done: int) -> Account:
    """What a stage has cost.

    Args:
        found: What became of it.
        done: How many of its blocks are done.
    """
    costs, slowest = found.costs, found.slowest
    jobs = list(found.jobs.values())
    return Account(
        core_hours=_hours(costs.cpu_seconds),
        gpu_hours=_hours(costs.gpu_seconds),
        gpu_busy_hours=None if costs.gpu_busy_seconds is None else _hours(costs.gpu_busy_seconds),
        bytes_read=costs.read,
        bytes_written=costs.written,
        block_memory=costs.memory,
        block_gpu_memory=costs.gpu_memory,
        block_seconds=found.median_seconds,
        slowest_block=None if slowest is None else slowest[0],
        slowest_seconds=None if slowest is None else slowest[1],
        repeated_blocks=found.repeated.blocks,
        repeated_core_hours=_hours(found.repeated.cpu_seconds),
        failed_attempts=found.failed.blocks,
        failed_core_hours=_hours(found.failed.cpu_seconds),
        untold_blocks=max(0, done - costs.blocks),
        runs=len(found.runs),
        jobs=len(jobs),
        evictions=found.evictions,
        job_core_hours=_hours(sum(_had(job, "cpus") for job in jobs)),
        job_gpu_hours=_hours(sum(_had(job, "gpus") for job in jobs)),
        slurm=any(job.measured for job in jobs),
    )


def _hours(seconds: float) -> float:
    return round(seconds / 3600, 6)


def _had(job: Job, what: str) -> float:
    """Seconds for which a job had processors, or GPUs, times how many."""
    if job.measured:
        return sum(entry["seconds"] * entry[what] for entry in job.measured)
    now = time.time() - job.started if job.started is not None else 0.0
    return (job.seconds + now) * int(getattr(job, what))


def _kept_account(folder: Path) -> Account | None:
    """What `keep_account` wrote, if no worker has told anything since."""
    file = folder / ACCOUNT
    try:
        written = file.stat().st_mtime
        if any(told.stat().st_mtime > written for told in (folder / "workers").glob("*.jsonl")):
            return None
        return Account(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _run_now(folder: Path, found: Replay) -> RunNow | None:
    owner = read_owner(folder / "lock")
    if not owner:
        return None
    name = str(owner.get("run"))
    run = next((run for run in found.runs if run.name == name), None)
    local = None if run is None else run.workers
    jobs = [job for job in found.jobs.values() if job.run == name]
    return RunNow(
        name,
        str(owner.get("host")),
        int(owner.get("pid", 0)),
        str(owner.get("started")),
        seems_alive(folder / "lock"),
        local,
        () if local is not None else tuple(_workers_now(folder, {job.name for job in jobs if job.state == "running"})),
        sum(job.state == "waiting" for job in jobs),
    )


def _workers_now(folder: Path, running: set[str]) -> Iterator[WorkerNow]:
    for name in sorted(running):
        try:
            told = json.loads((folder / "workers" / f"{name}.json").read_text())
        except (OSError, ValueError):
            continue
        yield WorkerNow(name, str(told["node"]), told["block"], float(told["since"]))
