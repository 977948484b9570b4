"""Running the blocks of stages with daisy, in local worker processes or by workers that are supplied.

daisy hands out blocks, retries failed ones and keeps one done-byte per block in the stage's folder; a stage that is
interrupted or killed goes on with the blocks that are left. Every block depends only on the stage's inputs, so there
are no conflicts between blocks and any order gives the same bytes. Stages of which one reads another may run at the
same time (`overlap`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import daisy.logging
import daisy.v2
import numpy as np
from funlib.geometry import Coordinate, Roi

from neuroloom.blockwise.accounts import Accounts
from neuroloom.blockwise.allocation import keep_freed_memory
from neuroloom.blockwise.dependencies import Flags
from neuroloom.blockwise.events import logged_blocks, logged_run
from neuroloom.blockwise.failures import all_failures, finished_blocks, record_exception
from neuroloom.blockwise.intermediate import Unread
from neuroloom.blockwise.leftovers import remove_half_written
from neuroloom.blockwise.overlap import WANTED, Overlap, chosen_blocks, overlap_of, write_overlaps
from neuroloom.blockwise.stage import TELL_EVERY, Stage, block_of
from neuroloom.blockwise.standing import keep_account
from neuroloom.blockwise.tracking import check_room, mend_tracking, reserve, take_back
from neuroloom.errors import BlocksFailed, Interrupted, UserError
from neuroloom.files import explain_os_errors, lock, read_json, write_json

Progress = Callable[[float, int], None]
"""Called with blocks done, counting parts of those underway, and blocks in all."""

STOPPED = "stopped.json"
"""In the stage's folder: why whoever supplies workers cannot go on."""

DELETE_EVERY = 5.0
"""Seconds between two looks for results that nobody is to read any more."""

PAUSE_SECONDS = 0.5
"""Between two looks whether a stage that is ahead may go on."""


@dataclass(frozen=True)
class Supply:
    """Where workers come from, if not from this machine.

    Attributes:
        worker_function: Makes, of a stage and the name of this run (`files.lock`), what daisy holds in a process of its
            own as long as workers are wanted; it ends when all blocks are done.
        host: Address under which workers reach this machine; None for what daisy finds.
        block_seconds: How long a block may take; a worker that takes longer is stopped.
    """

    worker_function: Callable[[Stage, str], Callable[..., None]]
    host: str | None
    block_seconds: float


def _say_nothing(done: float, total: int) -> None:
    pass


@dataclass(frozen=True)
class Work:
    """A stage that is to be run, and by whom.

    Attributes:
        stage: The stage.
        workers: Local worker processes.
        progress: Called when blocks finish, and as they do so.
        supply: Other workers instead.
        only: Numbers of the blocks that are wanted; None for all.
        lead: How many blocks may be ready and wait, before stages that this one reads pause.
    """

    stage: Stage
    workers: int = 1
    progress: Progress = _say_nothing
    supply: Supply | None = None
    only: frozenset[int] | None = None
    lead: int = 64

    @property
    def wanted(self) -> Flags:
        """Which blocks are wanted, `(z, y, x)` of the stage's grid."""
        if self.only is None:
            return np.ones(self.stage.grid, dtype=bool)
        return chosen_blocks(self.stage, self.only)

    @property
    def left(self) -> int:
        """How many of them are not done."""
        return int(np.count_nonzero(self.wanted & ~finished_blocks(self.stage)))


def run_stage(
    stage: Stage,
    workers: int = 1,
    progress: Progress | None = None,
    supply: Supply | None = None,
    take_over: bool = False,
) -> dict[str, Any]:
    """Do what is missing of a stage.

    Args:
        stage: The stage.
        workers: Local worker processes.
        progress: Called when blocks finish, and as they do so.
        supply: Other workers instead.
        take_over: Whether a lock that a run on another host left behind is taken over.

    Returns:
        What the stage's `done.json` holds: fingerprint, blocks, workers, seconds.

    Raises:
        UserError: Another run writes this stage, or an input is bad.
        BlocksFailed: Blocks failed.
        Interrupted: Ctrl-C or SIGTERM; finished blocks are kept.
    """
    run_stages([Work(stage, workers, progress or _say_nothing, supply)], take_over)
    return read_done(stage)


def run_stages(works: Sequence[Work], take_over: bool = False, unread: Unread | None = None) -> None:
    """Do what is missing of stages; of several, block by block as soon as all is there that a block reads.

    Args:
        works: In the order in which they read one another.
        take_over: As for `run_stage`.
        unread: What is deleted as soon as nobody is to read it any more.

    Raises:
        UserError: Another run writes one of them, or an input is bad.
        BlocksFailed: Blocks failed.
        Interrupted: Ctrl-C or SIGTERM; finished blocks are kept.
    """
    works = [work for work in works if not work.stage.is_done()]
    if not works:
        return

    def unwanted() -> None:
        for work in works:
            (work.stage.folder / WANTED).unlink(missing_ok=True)

    # interrupted while it waits for a lock, or by whoever takes it over
    with interruptible(unwanted), contextlib.ExitStack() as locks:
        runs = [locks.enter_context(lock(w.stage.folder / "lock", w.stage.title, take_over)) for w in works]
        for work, run in zip(works, runs, strict=True):
            locks.enter_context(logged_run(work.stage, run, work.workers if work.supply is None else None))
        held = [(work, run) for work, run in zip(works, runs, strict=True) if not work.stage.is_done()]
        started = time.monotonic()
        for work, _ in held:
            work.stage.describe()
        overlaps = write_overlaps([(work.stage, work.lead) for work, _ in held])
        for work, _ in held:
            work.stage.prepare()
        took = _run_blocks(held, overlaps, unread)
        for work, _ in held:
            stage = work.stage
            if not finished_blocks(stage).all():
                continue
            began = time.monotonic()
            remove_half_written(stage.folder)
            stage.finish()
            result = {
                "stage": type(stage).__name__,
                "fingerprint": stage.fingerprint(),
                "blocks": stage.block_count,
                "workers": work.workers,
                "seconds": round(took.get(stage.folder, began) - started + time.monotonic() - began, 3),
                "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            }
            keep_account(stage.folder)
            write_json(stage.done_marker, result)


def read_done(stage: Stage) -> dict[str, Any]:
    """What `run_stages` wrote when the stage was done."""
    return read_json(stage.done_marker)


@contextlib.contextmanager
def interruptible(at_once: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into `Interrupted`, so that locks are released and nothing is lost.

    Args:
        at_once: Called, in another thread, as soon as one of them is heard.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # SIGINT, too: a shell has what it starts in the background ignore it
    previous = {heard: signal.signal(heard, signal.default_int_handler) for heard in (signal.SIGTERM, signal.SIGINT)}
    # daisy waits in compiled code that only looks for SIGINT; a thread that reads the wake-up descriptor hears
    # SIGTERM at once and passes it on.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    previous_descriptor = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_pass_on_sigterm, args=(reader, at_once), daemon=True).start()
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted("Stopped. What was finished is kept; run the same command again to go on.") from error
    finally:
        signal.set_wakeup_fd(previous_descriptor)
        for heard, handler in previous.items():
            signal.signal(heard, handler)
        os.close(writer)  # ends the thread


def _pass_on_sigterm(reader: int, at_once: Callable[[], None]) -> None:
    while received := os.read(reader, 64):
        if signal.SIGTERM in received or signal.SIGINT in received:
            at_once()
        if signal.SIGTERM in received:
            os.kill(os.getpid(), signal.SIGINT)
    os.close(reader)


def _run_blocks(
    works: Sequence[tuple[Work, str]], overlaps: Sequence[Overlap], unread: Unread | None
) -> dict[Path, float]:
    """Do the blocks that are wanted and not done.

    Args:
        works: Each with the name of its run.
        overlaps: One for each.
        unread: As for `run_stages`.

    Returns:
        When the last block of a stage was done (monotonic), by the stage's folder; only of those that had any left.
    """
    for work, _ in works:
        _make_ready(work.stage)
    if not any(work.left for work, _ in works):
        for work, _ in works:
            work.progress(work.stage.block_count, work.stage.block_count)
        return {}
    tasks = [_task(work, run) for work, run in works]
    edges = [
        (tasks[number], tasks[reader])
        for number, overlap in enumerate(overlaps)
        for reader, (work, _) in enumerate(works)
        if work.stage in overlap.readers
    ]
    logs = works[0][0].stage.folder / "logs"
    daisy.logging.set_log_basedir(logs)
    logging.getLogger("daisy").setLevel(logging.CRITICAL)
    abandoned = ""
    for work, _ in works:
        write_json(work.stage.folder / WANTED, None if work.only is None else sorted(work.only))
    with contextlib.ExitStack() as stack:
        for work, run in works:
            stack.enter_context(logged_blocks(work.stage, run))
        observer = stack.enter_context(_Observer([work for work, _ in works], unread))
        try:
            daisy.v2.run_blockwise(
                daisy.v2.Pipeline(tasks, edges),
                progress=observer,
                summary=False,
                host=next((work.supply.host for work, _ in works if work.supply is not None), "127.0.0.1"),
            )
        except RuntimeError as error:  # daisy's word for "workers kept dying"
            abandoned = str(error)
        except KeyboardInterrupt:
            if not observer.hopeless:
                raise
        finally:
            for work, _ in works:
                (work.stage.folder / WANTED).unlink(missing_ok=True)
    _tell_failures([work for work, _ in works], abandoned or observer.abandoned, logs)
    return observer.ended


def _make_ready(stage: Stage) -> None:
    """Mend what a killed run left behind, and forget how blocks failed."""
    mend_tracking(stage.folder / "blocks")
    with explain_os_errors(stage.folder):
        check_room(stage.folder, stage.block_count)
        _take_back_failures(stage)
    for left_over in (stage.folder / "failures", stage.underway):
        shutil.rmtree(left_over, ignore_errors=True)
    (stage.folder / STOPPED).unlink(missing_ok=True)


def _task(work: Work, run: str) -> daisy.v2.Task:
    stage = work.stage
    context, block = Coordinate(stage.context), Roi(Coordinate(0, 0, 0), Coordinate(stage.block_shape))
    return daisy.v2.Task(
        type(stage).__name__,
        Roi(Coordinate(0, 0, 0), Coordinate(stage.shape)).grow(context, context),
        block.grow(context, context),
        block,
        read_write_conflict=False,
        fit="shrink",
        tracking_path=str(stage.folder / "blocks"),
        **({} if work.only is None else {"skip_mask": ~work.wanted}),
        **(
            _local_workers(stage, run, work.workers)
            if work.supply is None
            else _supplied_workers(stage, run, work.supply)
        ),
    )


def _local_workers(stage: Stage, run: str, workers: int) -> dict[str, Any]:
    workers = max(1, min(workers, stage.block_count))
    return {
        "process_function": _BlockFunction(stage, run),
        "max_workers": workers,
        "max_retries": 1,
        # a worker ends with a block that raises, and starting one takes seconds: a few bad blocks are worth going on
        # for, more are a defect of the input or of this program
        "max_worker_restarts": workers + 6,
        "timeout": 24 * 3600,
    }


def _supplied_workers(stage: Stage, run: str, supply: Supply) -> dict[str, Any]:
    return {
        "process_function": supply.worker_function(stage, run),
        "max_workers": 1,
        # with none, daisy gives up a stage that waits for another before it has started it; a supply that cannot go on
        # says so in `STOPPED`, and ends at once if it is started again
        "max_worker_restarts": 1,
        # a worker that is evicted gives its block back too; workers count themselves what is a block's own fault
        "max_retries": 10**6,
        "timeout": supply.block_seconds,
    }


def _take_back_failures(stage: Stage) -> None:
    """Mark blocks that workers gave up as not done."""
    given_up = [stage.place_of(found["block"]) for found in all_failures(stage) if found["given_up"]]
    take_back(stage.folder / "blocks", given_up)


def _tell_failures(works: Sequence[Work], abandoned: str, logs: Path) -> None:
    """Raise what is to be said of blocks that are wanted and not done; nothing if there are none.

    Args:
        works: What was run.
        abandoned: What daisy said of workers that kept ending.
        logs: Where local workers wrote.
    """
    for work in works:
        with explain_os_errors(work.stage.folder):
            if not work.left:
                continue
            if (work.stage.folder / STOPPED).exists():
                raise UserError(str(read_json(work.stage.folder / STOPPED)["message"]))
            check_room(work.stage.folder)  # where there is none, nobody could say why blocks have failed
    sentences: list[str] = []
    reports: list[dict[str, Any]] = []
    for work in works:
        stage, left = work.stage, work.left
        found = [report for report in all_failures(stage) if not report["no_input"]]
        if work.supply is not None:
            found = [report for report in found if report["given_up"]]
        _take_back_failures(stage)
        if left == 0:
            continue
        reports += found
        if reports and not found and not abandoned:
            sentences.append(f"{left} blocks of {stage.title} wait for them.")
            continue
        of = stage.block_count if work.only is None else len(work.only)
        what = f"the workers kept ending ({abandoned[:300]})" if abandoned else f"{left} of {of} blocks failed"
        first = f" First: block {found[0]['block']}: {found[0]['message']}" if found else ""
        others = f" Failed: {', '.join(str(report['block']) for report in found[:100])}." if len(found) > 1 else ""
        details = stage.folder / "failures" if found else logs
        sentences.append(f"{stage.title}: {what}.{first}{others} Details are in {details}.")
    if reports and all(report["user_error"] for report in reports):
        raise UserError(reports[0]["message"])
    if sentences:
        raise BlocksFailed(f"{' '.join(sentences)} Run the same command again to retry what is missing.")


class _BlockFunction:
    """Called by daisy's worker processes with one block at a time; remembers why a block failed."""

    def __init__(self, stage: Stage, run: str) -> None:
        self.stage, self.run = stage, run

    @cached_property
    def accounts(self) -> Accounts:
        """Of the worker process, which gets a copy of this before it begins."""
        node = socket.gethostname()
        return Accounts(self.stage.folder, self.run, node, f"{node}-{os.getpid()}")

    def __call__(self, block: Any) -> None:
        keep_freed_memory()
        overlap, master = overlap_of(self.stage), os.getppid()
        while overlap.is_ahead() and os.getppid() == master:
            time.sleep(PAUSE_SECONDS)
        ours = block_of(self.stage, block)
        try:
            with self.accounts.block(ours.number):
                self.stage.process(ours)
        except Exception as error:
            record_exception(self.stage, ours.number, socket.gethostname(), error)
            raise
        finally:
            (self.stage.underway / f"{ours.number}.json").unlink(missing_ok=True)


class _Observer:
    """daisy's progress interface, reduced to two numbers for each stage; between its calls, what workers say of theirs.

    Attributes:
        ended: When the last block of a stage was done (monotonic), by the stage's folder.
        hopeless: Whether daisy was interrupted, since one of the stages cannot go on.
        abandoned: What daisy said of workers that kept ending.
    """

    def __init__(self, works: Sequence[Work], unread: Unread | None) -> None:
        self.works, self.unread = {type(work.stage).__name__: work for work in works}, unread
        # blocks that are not wanted count as done, for daisy
        self.wanted = {name: int(np.count_nonzero(work.wanted)) for name, work in self.works.items()}
        self.done = dict.fromkeys(self.works, 0)
        self.told = dict.fromkeys(self.works, 0.0)
        self.ended: dict[Path, float] = {}
        self.hopeless, self.abandoned = False, ""
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.thread.join()
        for work in self.works.values():
            shutil.rmtree(work.stage.underway, ignore_errors=True)

    def _watch(self) -> None:
        deleted = time.monotonic()
        while not self.over.wait(TELL_EVERY):
            for name, work in self.works.items():
                parts = 0.0
                for file in work.stage.underway.glob("*.json"):
                    with contextlib.suppress(OSError, ValueError):  # its block has just ended
                        parts += float(json.loads(file.read_text()))
                if parts:
                    self._tell(name, parts)
            if self.unread is not None and time.monotonic() - deleted > DELETE_EVERY:
                with contextlib.suppress(OSError, UserError):  # what cannot be deleted now stays
                    self.unread.delete()
                deleted = time.monotonic()
            stopped = any((work.stage.folder / STOPPED).exists() for work in self.works.values())
            if len(self.works) > 1 and (stopped or self.abandoned) and not self.hopeless:
                self.hopeless = True  # the others would go on for nothing
                self._unwanted()
                os.kill(os.getpid(), signal.SIGINT)

    def _tell(self, name: str, parts: float = 0.0) -> None:
        """Tell what is done; never less than before, since daisy counts whole blocks only and calls at any time."""
        with self.lock:
            wanted = self.wanted[name]
            self.told[name] = max(self.told[name], min(self.done[name] + parts, wanted))
            self.works[name].progress(self.told[name], wanted)

    def on_start(self, states: Any) -> None:
        for work in self.works.values():
            reserve(work.stage.folder / "blocks")
        self.on_progress(states)

    def on_progress(self, states: Any) -> None:
        for name, state in states.items():
            work = self.works[name]
            self.done[name] = int(state.completed_count) - (work.stage.block_count - self.wanted[name])
            if state.abandoned and not self.abandoned:
                self.abandoned = str(state.abandon_reason or "workers kept ending")
            if self.done[name] == self.wanted[name]:
                self.ended.setdefault(work.stage.folder, time.monotonic())
                (work.stage.folder / WANTED).unlink(missing_ok=True)
            self._tell(name)

    def on_finish(self, states: Any) -> None:
        # daisy waits for the supply of workers even where it was interrupted
        self._unwanted()
        self.on_progress(states)

    def _unwanted(self) -> None:
        for work in self.works.values():
            (work.stage.folder / WANTED).unlink(missing_ok=True)
