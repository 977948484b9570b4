"""What blocks cost: a line for each attempt, in a file that one worker alone appends to.

    workers/<worker>.jsonl    {"block": 7, "run": ..., "node": ..., "worker": ..., "began": ..., "seconds": ..., ...}

Each line is one write, so that a worker that is killed leaves whole lines. A worker that went back to the queue goes on
in a file of another name: where its machine was taken away, the process there may live on for a while and still write.
`replay` adds up.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from neuroloom.blockwise.allocation import most_taken
from neuroloom.blockwise.gpus import GpuMeter
from neuroloom.files import open_lines

FLUSH_SECONDS = 1.0
"""After which a file is closed, so that others see its lines on a shared file system, too."""


@dataclass(frozen=True)
class Cost:
    """What one attempt at a block cost.

    Attributes:
        block: Its number.
        run: The name of the run.
        node: The machine.
        worker: The job, or machine and process.
        began: When, in seconds since 1970.
        seconds: How long it took.
        cpu_seconds: Of processors, by the process and those that it started and that have ended.
        memory: Bytes that the process had at most meanwhile.
        read: Bytes, of files and whatever else; None where the system does not count.
        written: Likewise.
        gpu_busy_seconds: In which the worker's GPU computed, for whichever process; None without a GPU, or where
            `nvidia-smi` does not tell.
        gpu_memory: Bytes of tensors on the GPU at most; None without.
        failed: What it raised; None where the block is done.
    """

    block: int
    run: str
    node: str
    worker: str
    began: float
    seconds: float
    cpu_seconds: float
    memory: int
    read: int | None
    written: int | None
    gpu_busy_seconds: float | None
    gpu_memory: int | None
    failed: str | None


class Accounts:
    """Measures the blocks of one process, and writes down what they cost.

    Args:
        folder: The stage's.
        run: The name of the run.
        node: The machine.
        worker: The job, or machine and process.
        restart: How often the job went back to the queue.
    """

    def __init__(self, folder: Path, run: str, node: str, worker: str, restart: int = 0) -> None:
        self.run, self.node, self.worker = run, node, worker
        self.file = folder / "workers" / f"{worker}{f'.{restart}' if restart else ''}.jsonl"
        self.opened: int | None = None
        self.flushed = 0.0
        self.gpu = GpuMeter()

    @contextlib.contextmanager
    def block(self, number: int) -> Iterator[None]:
        """Measure a block while it is done; what it raises is written down and goes on.

        Args:
            number: The block's.
        """
        _forget_peak()
        self.gpu.begin()
        began, start, cpu, moved = time.time(), time.perf_counter(), _cpu_seconds(), _moved()
        failed = None
        try:
            yield
        except BaseException as error:
            failed = f"{type(error).__name__}: {error}"[:200]
            raise
        finally:
            gpu_busy_seconds, gpu_memory = self.gpu.end()
            read, written = (
                None if after is None or before is None else after - before
                for after, before in zip(_moved(), moved, strict=True)
            )
            self._append(
                Cost(
                    block=number,
                    run=self.run,
                    node=self.node,
                    worker=self.worker,
                    began=round(began, 3),
                    seconds=round(time.perf_counter() - start, 6),
                    cpu_seconds=round(_cpu_seconds() - cpu, 6),
                    memory=most_taken(),
                    read=read,
                    written=written,
                    gpu_busy_seconds=gpu_busy_seconds,
                    gpu_memory=gpu_memory,
                    failed=failed,
                )
            )

    def _append(self, cost: Cost) -> None:
        """Write a line; a disk that cannot take it is no reason to fail a block that is done."""
        with contextlib.suppress(OSError):
            if self.opened is None:
                self.opened = open_lines(self.file)
            os.write(self.opened, (json.dumps(vars(cost)) + "\n").encode())
            now = time.monotonic()
            if now - self.flushed >= FLUSH_SECONDS:
                os.close(self.opened)
                self.opened, self.flushed = None, now


def _cpu_seconds() -> float:
    own, ended = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


def _moved() -> tuple[int | None, int | None]:
    """Bytes that this process has read and written so far."""
    try:
        with open("/proc/self/io", "rb", buffering=0) as file:
            counts = dict(line.split(b": ") for line in file.read().splitlines())
    except OSError:
        return None, None
    return int(counts[b"rchar"]), int(counts[b"wchar"])


def _forget_peak() -> None:
    """Let the most that this process has taken begin anew; where the system cannot, it is that of all blocks so far."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "wb", buffering=0) as file:
            file.write(b"5")
