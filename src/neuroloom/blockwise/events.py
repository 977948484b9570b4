"""The log of a stage's runs: a line in `events.jsonl` whenever one begins, ends, or something happens to its workers.

    {"time": ..., "run": ..., "event": "run began", "host": ..., "process": ..., "blocks": 24, ...}
    {"time": ..., "run": ..., "event": "blocks began", "done": 0}
    {"time": ..., "run": ..., "event": "submitted", "array": ..., "jobs": ..., ...}
    {"time": ..., "run": ..., "event": "blocks ended", "done": 24}
    {"time": ..., "run": ..., "event": "run ended", "how": "done", ...}

What blocks cost stands in `accounts`. A run without an end was killed, or still goes on.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neuroloom import __version__
from neuroloom.blockwise.failures import all_failures, finished_blocks
from neuroloom.blockwise.stage import Stage
from neuroloom.errors import Interrupted, UserError
from neuroloom.files import append_line, explain_os_errors

EVENTS = "events.jsonl"
"""In the stage's folder."""


def log_event(folder: Path, run: str, event: str, **more: Any) -> None:
    """Append an event.

    Args:
        folder: The stage's.
        run: The name of the run.
        event: What happened.
        more: Other keys.

    Raises:
        UserError: The disk is full, or the folder cannot be written.
    """
    with explain_os_errors(folder / EVENTS):
        append_line(folder / EVENTS, {"time": round(time.time(), 3), "run": run, "event": event, **more})


@contextlib.contextmanager
def logged_run(stage: Stage, run: str, workers: int | None) -> Iterator[None]:
    """Log that a run begins and how it ends.

    Args:
        stage: The stage.
        run: The name of the run.
        workers: Local worker processes; None where others are supplied.

    Raises:
        UserError: The disk is full, or the folder cannot be written.
    """
    log_event(
        stage.folder,
        run,
        "run began",
        host=socket.gethostname(),
        process=os.getpid(),
        workers=None if workers is None else min(workers, stage.block_count),
        blocks=stage.block_count,
        stage=type(stage).__name__,
        fingerprint=stage.fingerprint(),
        version=__version__,
    )
    how, message = "failed", None
    try:
        yield
        how = "done"
    except (KeyboardInterrupt, Interrupted):
        how = "interrupted"
        raise
    except BaseException as error:
        message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        raise
    finally:
        with contextlib.suppress(UserError):  # the end of a run on a full disk has its own message
            log_event(stage.folder, run, "run ended", how=how, message=message)


@contextlib.contextmanager
def logged_blocks(stage: Stage, run: str) -> Iterator[None]:
    """Log how many blocks are done before and after, and those that failed meanwhile.

    Args:
        stage: The stage.
        run: The name of the run.

    Raises:
        UserError: The disk is full, or the folder cannot be written.
    """
    log_event(stage.folder, run, "blocks began", done=int(np.count_nonzero(finished_blocks(stage))))
    try:
        yield
    finally:
        with contextlib.suppress(UserError):
            for failure in all_failures(stage):
                told = {key: failure[key] for key in ("block", "message", "given_up")}
                log_event(stage.folder, run, "block failed", attempts=len(failure["attempts"]), **told)
            log_event(stage.folder, run, "blocks ended", done=int(np.count_nonzero(finished_blocks(stage))))
