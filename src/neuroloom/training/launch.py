"""Training on several devices of one machine, or as one of the processes that torchrun or srun started.

this process ---- starts one process per device, passes on signals, hears of progress
  |-- process 0   cuda:0    writes all files
  |-- process 1   cuda:1
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from neuroloom.errors import Interrupted, UserError
from neuroloom.networks.precision import choose_device, devices
from neuroloom.training.group import join, leave
from neuroloom.training.job import TrainingJob, checkpoint_paths
from neuroloom.training.loop import Report, train
from neuroloom.training.score import Scorer
from neuroloom.training.stopping import SIGNALS

GRACE_SECONDS = 15.0
"""How long the other processes may take to end after one has failed: they may be waiting for it."""


def train_on_devices(
    job: TrainingJob,
    folder: Path,
    lsd_checkpoint: Path | None = None,
    report: Report | None = None,
    start: Path | None = None,
    scorer: Scorer | None = None,
    trial: bool = False,
    take_over: bool = False,
) -> Path:
    """Train on all devices that the job names; see `neuroloom.training.loop.train` for arguments, result and errors.

    "auto" means all GPUs that can be seen, or the processor; several devices are separated by commas. Under torchrun or
    srun (`WORLD_SIZE` above 1 in the environment), this process is one of several and takes one device.
    """
    names = devices(job.device)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1:
        rank = int(os.environ["RANK"])
        local = int(os.environ.get("LOCAL_RANK", "0"))
        own = _shared(job, size, "start fewer processes").model_copy(update={"device": names[local % len(names)]})
        group = join(rank, size, "env://", torch.device(own.device))
        try:
            reported = report if group.first else None
            return train(own, folder, lsd_checkpoint, reported, start, scorer, group, trial, take_over)
        finally:
            leave(group)
    if job.device == "auto":
        names = names[: job.batch_size]  # more devices than crops would have nothing to do
    if len(names) == 1 or (folder / "done.json").exists():
        own = job.model_copy(update={"device": names[0]})
        return train(own, folder, lsd_checkpoint, report, start, scorer, trial=trial, take_over=take_over)
    job = _shared(job, len(names), "name fewer devices in `resources.device`")
    for name in names:
        choose_device(name)  # told here, not by each process
    return _train_together(job, names, (folder, lsd_checkpoint, start, scorer, trial, take_over), report)


def _shared(job: TrainingJob, processes: int, otherwise: str) -> TrainingJob:
    """A job whose steps have parts small enough for every process to have one.

    Raises:
        UserError: There are more processes than crops; `otherwise` says what else to do than to take more crops.
    """
    if job.batch_size < processes:
        raise UserError(
            f"{processes} devices cannot share a step of {job.batch_size} crop{'s' if job.batch_size != 1 else ''}. "
            f"Set `training.batch_size` to {processes} or more, or {otherwise}."
        )
    at_once = next(
        n for n in range(job.crops_at_once, 0, -1) if job.batch_size % n == 0 and job.batch_size // n >= processes
    )
    return job.model_copy(update={"at_once": at_once})


def _train_together(job: TrainingJob, names: list[str], rest: tuple[Any, ...], report: Report | None) -> Path:
    """One process per device, until the last has ended."""
    context = multiprocessing.get_context("spawn")
    messages = context.Queue()
    address = f"tcp://127.0.0.1:{_free_port()}"
    processes: list[BaseProcess] = [
        context.Process(target=_process, args=(rank, names, address, job, rest, messages), daemon=True)
        for rank in range(len(names))
    ]
    for process in processes:
        process.start()
    failures: list[tuple[str, str]] = []
    with _passing_on(processes):
        deadline = None
        while any(process.is_alive() for process in processes) or not messages.empty():
            with contextlib.suppress(queue.Empty):
                kind, content = messages.get(timeout=0.2)
                if kind == "report" and report is not None:
                    report(*content)
                elif kind != "report":
                    failures.append((kind, content))
            if deadline is None and (failures or any(p.exitcode not in (None, 0) for p in processes)):
                deadline = time.monotonic() + GRACE_SECONDS
            if deadline is not None and time.monotonic() > deadline:
                for process in processes:
                    process.kill()
                deadline = float("inf")
    for kind, content in failures:
        if kind == "UserError":
            raise UserError(content)
    for kind, content in failures:
        raise Interrupted(content) if kind == "Interrupted" else RuntimeError(content)
    codes = [process.exitcode for process in processes]
    if any(codes):
        raise RuntimeError(f"processes of the training ended with {codes}")
    return checkpoint_paths(rest[0])[0]


def _process(rank: int, names: list[str], address: str, job: TrainingJob, rest: tuple[Any, ...], messages: Any) -> None:
    """What one of the processes does."""
    os.setpgrp()  # Ctrl-C goes to the first process, which passes it on once
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    folder, lsd_checkpoint, start, scorer, trial, take_over = rest
    own = job.model_copy(update={"device": names[rank]})

    def report(done: int, total: int, words: str) -> None:
        messages.put(("report", (done, total, words)))

    try:
        group = join(rank, len(names), address, torch.device(own.device))
        reported = report if group.first else None
        train(own, folder, lsd_checkpoint, reported, start, scorer, group, trial, take_over)
        leave(group)
    except (UserError, Interrupted) as error:
        messages.put((type(error).__name__, str(error)))
    except Exception as error:
        messages.put((type(error).__name__, f"{type(error).__name__} on {own.device}: {error}"))
        raise


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


@contextlib.contextmanager
def _passing_on(processes: list[BaseProcess]) -> Iterator[None]:
    """Hand the signals that stop a training to all its processes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, number)

    previous = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
