"""Running the blocks of stages with daisy, in local worker processes or by workers that are supplied.

daisy hands out blocks, retries failed ones and keeps one done-byte per block in the stage's folder; a stage that is
interrupted or killed goes on with the blocks that are left. Every block depends only on the stage's inputs, so there
are no conflicts between blocks and any order gives the same bytes. Stages of which one reads another may run at the
same time (`overlap`).
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import daisy.logging
import daisy.v2
from funlib.geometry import Coordinate, Roi

from neuroloom.blockwise.connecting import CLAIMS
from neuroloom.blockwise.events import logged_blocks, logged_run
from neuroloom.blockwise.failures import all_failures, finished_blocks
from neuroloom.blockwise.intermediate import Unread
from neuroloom.blockwise.interrupting import interruptible
from neuroloom.blockwise.leftovers import remove_half_written
from neuroloom.blockwise.local import local_worker
from neuroloom.blockwise.observer import Observer
from neuroloom.blockwise.overlap import WANTED, Overlap, write_overlaps
from neuroloom.blockwise.quiet import standard_error_in
from neuroloom.blockwise.stage import Stage
from neuroloom.blockwise.standing import keep_account
from neuroloom.blockwise.tracking import check_room, mend_tracking, take_back
from neuroloom.blockwise.work import STOPPED, Progress, Supply, Work, say_nothing
from neuroloom.errors import BlocksFailed, UserError
from neuroloom.files import explain_os_errors, lock, read_json, write_json


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
    run_stages([Work(stage, workers, progress or say_nothing, supply)], take_over)
    return read_done(stage)


def run_stages(works: Sequence[Work], take_over: bool = False, unread: Unread | None = None) -> None:
    """Do what is missing of stages; of several, block by block as soon as all is there that a block reads.

    Args:
        works: In the order in which they read one another.
        take_over: As for `run_stage`.
        unread: What is deleted as soon as nobody is to read it any more, and made again if somebody is after all.

    Raises:
        UserError: Another run writes one of them, or an input is bad.
        BlocksFailed: Blocks failed.
        Interrupted: Ctrl-C or SIGTERM; finished blocks are kept.
    """
    again = unread.stage.folder if unread is not None and unread.wanted_again().any() else None
    works = [work for work in works if not work.stage.is_done() or work.stage.folder == again]
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
        if unread is not None and again in [work.stage.folder for work in works]:
            unread.make_again()
        held = [(work, run) for work, run in zip(works, runs, strict=True) if not work.stage.is_done()]
        started = time.monotonic()
        for work, _ in held:
            work.stage.describe()
            _make_ready(work.stage)
        left = [(work, run) for work, run in held if work.left]
        # a stage of which nothing is left is none that others wait for
        overlaps = write_overlaps([(work.stage, work.lead) for work, _ in left])
        for work, _ in held:
            work.stage.prepare()
        took = _run_blocks(left, overlaps, unread)
        for work, _ in held:
            stage = work.stage
            if not finished_blocks(stage).all():
                continue
            work.progress(stage.block_count, stage.block_count)
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


def _run_blocks(
    works: Sequence[tuple[Work, str]], overlaps: Sequence[Overlap], unread: Unread | None
) -> dict[Path, float]:
    """Do the blocks that are wanted and not done.

    Args:
        works: Those that have any, each with the name of its run.
        overlaps: One for each.
        unread: As for `run_stages`.

    Returns:
        When the last block of a stage was done (monotonic), by the stage's folder.
    """
    if not works:
        return {}
    tasks = [_task(work, run) for work, run in works]
    edges = [
        (tasks[number], tasks[reader])
        for number, overlap in enumerate(overlaps)
        for reader, (work, _) in enumerate(works)
        if work.stage in overlap.readers
    ]
    logs = works[0][0].stage.folder / "logs"
    shutil.rmtree(logs / CLAIMS, ignore_errors=True)
    daisy.logging.set_log_basedir(logs)
    logging.getLogger("daisy").setLevel(logging.CRITICAL)
    abandoned = ""
    for work, _ in works:
        write_json(work.stage.folder / WANTED, None if work.only is None else sorted(work.only))
    with contextlib.ExitStack() as stack:
        for work, run in works:
            stack.enter_context(logged_blocks(work.stage, run))
        observer = stack.enter_context(Observer([work for work, _ in works], unread))
        try:
            with standard_error_in(logs / "master.err"):
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
    block = Roi(Coordinate(0, 0, 0), Coordinate(stage.block_shape))
    # daisy numbers done-marks from where the first block's context begins, which is the first block only while context
    # is shorter than a block. What a block reads is the stage's business (`block_of`), so daisy is told no more.
    context = Coordinate(min(c, size - 1) for c, size in zip(stage.context, stage.block_shape, strict=True))
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
        "process_function": local_worker(stage, run),
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


def _log_of(stage: Stage, report: dict[str, Any]) -> str:
    """Where the worker of a job wrote that failed at a block; nothing of local workers, whose logs are others."""
    log = stage.folder / "logs" / f"{report.get('worker')}.log"
    return f" (log: {log})" if log.exists() else ""


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
        first = f" First: block {found[0]['block']}: {found[0]['message']}{_log_of(stage, found[0])}" if found else ""
        others = f" Failed: {', '.join(str(report['block']) for report in found[:100])}." if len(found) > 1 else ""
        details = stage.folder / "failures" if found else logs
        sentences.append(f"{stage.title}: {what}.{first}{others} Details are in {details}.")
    if reports and all(report["user_error"] for report in reports):
        raise UserError(reports[0]["message"])
    if sentences:
        raise BlocksFailed(f"{' '.join(sentences)} Run the same command again to retry what is missing.")
