"""What became of a stage: its runs, its jobs, and what its blocks cost, as `replay` finds out.

A block may be done twice: its worker was taken away after it had written, and before the master heard of it. The last
attempt counts as the block's, all others are `repeated`, so that no sum holds a block twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROWS = 2**16
"""Of blocks that are added up at once."""


@dataclass
class Costs:
    """What attempts at blocks cost together.

    Attributes:
        blocks: How many attempts.
        seconds: Sum of their times.
        cpu_seconds: Of processors.
        memory: Bytes of the one that took most.
        read: Bytes.
        written: Bytes.
        gpu_seconds: Sum of the times of those that used a GPU.
        gpu_busy_seconds: In which their GPU computed, of those that tell; None where none does.
        gpu_memory: Bytes of the one that took most.
    """

    blocks: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    memory: int = 0
    read: int = 0
    written: int = 0
    gpu_seconds: float = 0.0
    gpu_busy_seconds: float | None = None
    gpu_memory: int = 0

    def add(self, rows: NDArray[np.void]) -> None:
        """Add attempts.

        Args:
            rows: As in `Replay.blocks`.
        """
        if not len(rows):
            return
        self.blocks += len(rows)
        for name in ("seconds", "cpu_seconds"):
            setattr(self, name, getattr(self, name) + float(rows[name].sum()))
        if not np.isnan(rows["gpu_busy_seconds"]).all():
            self.gpu_busy_seconds = (self.gpu_busy_seconds or 0.0) + float(np.nansum(rows["gpu_busy_seconds"]))
        for name in ("read", "written"):
            setattr(self, name, getattr(self, name) + int(rows[name].sum()))
        for name in ("memory", "gpu_memory"):
            setattr(self, name, max(getattr(self, name), int(rows[name].max())))
        self.gpu_seconds += float(rows["seconds"][rows["gpu_memory"] > 0].sum())


@dataclass
class Run:
    """One run of a stage.

    Attributes:
        name: Its name.
        host: Where it was started; None where that is not known.
        process: Its number there.
        began: When, in seconds since 1970.
        last: When something happened last.
        ended: When it ended; None if it was killed, or still goes on.
        how: "done", "failed" or "interrupted"; None likewise.
        message: Why it failed.
        workers: Local worker processes; None where others were supplied.
        done_before: Blocks that were done when its first was handed out; None where it came to none.
        failed: Blocks that failed for good.
    """

    name: str
    host: str | None = None
    process: int | None = None
    began: float | None = None
    last: float = 0.0
    ended: float | None = None
    how: str | None = None
    message: str | None = None
    workers: int | None = None
    done_before: int | None = None
    failed: list[int] = field(default_factory=list)


@dataclass
class Job:
    """One job of a cluster.

    Attributes:
        name: "12_3": of array 12, number 3.
        run: The name of the run that it was submitted by.
        state: "waiting", "running", or how it ended: "finished", "evicted", "memory", "time", "hung", "not started",
            "killed", "sent away"; "ended", by itself or cancelled, with the run.
        node: Where it runs, or ran last.
        cpus, gpus: That it asked for.
        seconds: That it was seen running.
        evictions: How often its machine was taken away.
        done: Blocks, as its worker told last.
        started: Since when it runs, in seconds since 1970.
        unwanted: Whether it was cancelled by the run.
        measured: SLURM's own figures, one for each time that it ran; empty where it keeps none.
    """

    name: str
    run: str
    state: str = "waiting"
    node: str | None = None
    cpus: int = 0
    gpus: int = 0
    seconds: float = 0.0
    evictions: int = 0
    done: int = 0
    started: float | None = None
    unwanted: bool = False
    measured: list[dict[str, Any]] = field(default_factory=list)

    def stop(self, state: str, at: float) -> None:
        """It runs no more.

        Args:
            state: What it is now.
            at: When, in seconds since 1970.
        """
        if self.started is not None:
            self.seconds += max(0.0, at - self.started)
        self.state, self.started = state, None

    def end_with(self, run: Run) -> None:
        """Its run has ended, if that was not known before.

        Args:
            run: Whose it is.
        """
        if self.state in ("waiting", "running"):
            self.stop("ended", run.last)


@dataclass
class Replay:
    """What became of a stage.

    Attributes:
        total: Blocks in all.
        blocks: A row for each block: when its last attempt `began`, what that cost, and the places of its `worker` and
            `run` in `workers` and `runs`; `began` is 0 where nobody has told that the block is done.
        workers: Each a name, a tab, and its node; a job that went back to the queue may come to another node.
        runs: In their order.
        jobs: By name.
        repeated: What blocks cost that were done once more.
        failed: What attempts cost that failed.
        left_out: Nodes where blocks failed.
        damaged: Lines that cannot be read.
    """

    total: int
    blocks: NDArray[np.void]
    workers: list[str] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    repeated: Costs = field(default_factory=Costs)
    failed: Costs = field(default_factory=Costs)
    left_out: list[str] = field(default_factory=list)
    damaged: int = 0

    @property
    def told(self) -> NDArray[np.bool_]:
        """Of each block, whether a worker told that it is done."""
        return np.asarray(self.blocks["began"] > 0)

    @property
    def costs(self) -> Costs:
        """What the blocks cost that are done, each counted once."""
        costs = Costs()
        for begin in range(0, self.total, _ROWS):
            rows = self.blocks[begin : begin + _ROWS]
            costs.add(rows[rows["began"] > 0])
        return costs

    @property
    def median_seconds(self) -> float | None:
        """Of a block; None where none is done."""
        return float(np.median(self.blocks["seconds"][self.told])) if self.told.any() else None

    @property
    def slowest(self) -> tuple[int, float] | None:
        """The block that took longest, and its seconds; None where none is done."""
        if not self.told.any():
            return None
        block = int(np.argmax(self.blocks["seconds"]))
        return block, float(self.blocks["seconds"][block])

    @property
    def evictions(self) -> int:
        """How often a machine was taken away from a job."""
        return sum(job.evictions for job in self.jobs.values())

    def done_in(self, run: Run) -> dict[str, int]:
        """How many blocks were done in a run by each worker, named as in `workers`.

        Args:
            run: One of `runs`.
        """
        theirs = self.blocks["worker"][self.told & (self.blocks["run"] == self.runs.index(run))]
        counts = np.bincount(theirs, minlength=len(self.workers))
        return {name: int(count) for name, count in zip(self.workers, counts, strict=True) if count}
