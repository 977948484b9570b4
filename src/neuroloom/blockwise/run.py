"""Running a stage's blocks with daisy, in local worker processes or by workers that are supplied.

daisy hands out blocks, retries failed ones and keeps one done-byte per block in the stage's folder; a stage that is
interrupted or killed goes on with the blocks that are left. Every block depends only on the stage's inputs, so there
are no conflicts between blocks and any order gives the same bytes.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import daisy.logging
import daisy.v2
from funlib.geometry import Coordinate, Roi

from neuroloom.blockwise.allocation import keep_freed_memory
from neuroloom.blockwise.failures import all_failures, record_exception
from neuroloom.blockwise.leftovers import remove_half_written
from neuroloom.blockwise.stage import TELL_EVERY, Stage, block_of
from neuroloom.blockwise.tracking import blocks_done, check_room, mend_tracking, reserve, take_back
from neuroloom.errors import BlocksFailed, Interrupted, UserError
from neuroloom.files import explain_os_errors, lock, read_json, write_json

Progress = Callable[[float, int], None]
"""Called with blocks done, counting parts of those underway, and blocks in all."""

STOPPED = "stopped.json"
"""In the stage's folder: why whoever supplies workers cannot go on."""

WANTED = "wanted"
"""In the stage's folder as long as supplied workers are wanted: daisy waits for their supply even if interrupted."""


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
    if stage.is_done():
        return read_done(stage)
    # interrupted while it waits for the lock, or by whoever takes it over
    wanted = stage.folder / WANTED
    with (
        interruptible(lambda: wanted.unlink(missing_ok=True)),
        lock(stage.folder / "lock", stage.title, take_over) as run,
    ):
        if stage.is_done():
            return read_done(stage)
        started = time.monotonic()
        stage.describe()
        stage.prepare()
        _run_blocks(stage, run, max(1, min(workers, stage.block_count)), progress or _say_nothing, supply)
        remove_half_written(stage.folder)
        stage.finish()
        result = {
            "stage": type(stage).__name__,
            "fingerprint": stage.fingerprint(),
            "blocks": stage.block_count,
            "workers": workers,
            "seconds": round(time.monotonic() - started, 3),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        write_json(stage.done_marker, result)
    return result


def _say_nothing(done: float, total: int) -> None:
    pass


def read_done(stage: Stage) -> dict[str, Any]:
    """What `run_stage` wrote when the stage was done."""
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


def _run_blocks(stage: Stage, run: str, workers: int, progress: Progress, supply: Supply | None) -> None:
    tracking = stage.folder / "blocks"
    mend_tracking(tracking)
    with explain_os_errors(stage.folder):
        check_room(stage.folder, stage.block_count)
        _take_back_failures(stage)
    for left_over in (stage.folder / "failures", stage.underway):
        shutil.rmtree(left_over, ignore_errors=True)
    (stage.folder / STOPPED).unlink(missing_ok=True)
    if blocks_done(tracking) == stage.block_count:
        progress(stage.block_count, stage.block_count)
        return
    context = Coordinate(stage.context)
    block = Roi(Coordinate(0, 0, 0), Coordinate(stage.block_shape))
    task = daisy.v2.Task(
        "blocks",
        Roi(Coordinate(0, 0, 0), Coordinate(stage.shape)).grow(context, context),
        block.grow(context, context),
        block,
        read_write_conflict=False,
        fit="shrink",
        tracking_path=str(tracking),
        **(_local_workers(stage, workers) if supply is None else _supplied_workers(stage, run, supply)),
    )
    daisy.logging.set_log_basedir(stage.folder / "logs")
    logging.getLogger("daisy").setLevel(logging.CRITICAL)
    abandoned = ""
    if supply is not None:
        (stage.folder / WANTED).touch()
    try:
        with _Observer(stage, progress) as observer:
            daisy.v2.run_blockwise(
                task,
                progress=observer,
                summary=False,
                host="127.0.0.1" if supply is None else supply.host,
            )
    except RuntimeError as error:  # daisy's word for "workers kept dying"
        abandoned = str(error)
    finally:
        (stage.folder / WANTED).unlink(missing_ok=True)
    with explain_os_errors(stage.folder):
        given_up = _take_back_failures(stage)
        left = stage.block_count - blocks_done(tracking)
        if left == 0:
            return
        if (stage.folder / STOPPED).exists():
            raise UserError(str(read_json(stage.folder / STOPPED)["message"]))
        check_room(stage.folder)  # where there is none, nobody could say why blocks have failed
    reports = all_failures(stage) if supply is None else given_up
    if reports and all(report["user_error"] for report in reports):
        raise UserError(reports[0]["message"])
    what = f"{left} of {stage.block_count} blocks failed"
    if abandoned:
        what = f"the workers kept ending ({abandoned[:300]})"
    first = f" First: block {reports[0]['block']}: {reports[0]['message']}" if reports else ""
    others = f" Failed: {', '.join(str(report['block']) for report in reports[:100])}." if len(reports) > 1 else ""
    raise BlocksFailed(
        f"{stage.title}: {what}.{first}{others} Details are in "
        f"{stage.folder / ('failures' if reports else 'logs')}; run the same command again to retry what is missing."
    )


def _local_workers(stage: Stage, workers: int) -> dict[str, Any]:
    return {
        "process_function": _BlockFunction(stage),
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
        "max_worker_restarts": 0,
        # a worker that is evicted gives its block back too; workers count themselves what is a block's own fault
        "max_retries": 10**6,
        "timeout": supply.block_seconds,
    }


def _take_back_failures(stage: Stage) -> list[dict[str, Any]]:
    """Mark blocks that workers gave up as not done; what is known of them."""
    given_up = [found for found in all_failures(stage) if found["given_up"]]
    take_back(stage.folder / "blocks", [stage.place_of(found["block"]) for found in given_up])
    return given_up


class _BlockFunction:
    """Called by daisy's worker processes with one block at a time; remembers why a block failed."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def __call__(self, block: Any) -> None:
        keep_freed_memory()
        ours = block_of(self.stage, block)
        try:
            self.stage.process(ours)
        except Exception as error:
            record_exception(self.stage, ours.number, socket.gethostname(), error)
            raise
        finally:
            (self.stage.underway / f"{ours.number}.json").unlink(missing_ok=True)


class _Observer:
    """daisy's progress interface, reduced to two numbers; between its calls, what workers say themselves."""

    def __init__(self, stage: Stage, progress: Progress) -> None:
        self.stage, self.progress = stage, progress
        self.done = 0
        self.told = 0.0
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        self.thread.join()
        shutil.rmtree(self.stage.underway, ignore_errors=True)

    def _watch(self) -> None:
        while not self.ended.wait(TELL_EVERY):
            parts = 0.0
            for file in self.stage.underway.glob("*.json"):
                with contextlib.suppress(OSError, ValueError):  # its block has just ended
                    parts += float(json.loads(file.read_text()))
            if parts:
                self._tell(parts)

    def _tell(self, parts: float = 0.0) -> None:
        """Tell what is done; never less than before, since daisy counts whole blocks only and calls at any time."""
        with self.lock:
            self.told = max(self.told, min(self.done + parts, self.stage.block_count))
            self.progress(self.told, self.stage.block_count)

    def on_start(self, states: Any) -> None:
        reserve(self.stage.folder / "blocks")
        self.on_progress(states)

    def on_progress(self, states: Any) -> None:
        for state in states.values():
            self.done = int(state.completed_count)
        self._tell()

    def on_finish(self, states: Any) -> None:
        # daisy waits for the supply of workers even where it was interrupted
        (self.stage.folder / WANTED).unlink(missing_ok=True)
        self.on_progress(states)
