"""Progress with rate and time left: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY = 20.0
"""Seconds between two lines where there is no terminal."""

Advance = Callable[[float, int, str], None]


@contextmanager
def show_progress(title: str) -> Iterator[Advance]:
    """Show the progress of one step.

    Args:
        title: What is being done.

    Yields:
        A function to call with units done, units in all, and a few words.
    """
    with show_progresses([title]) as (advance,):
        yield advance


@contextmanager
def show_progresses(titles: Sequence[str]) -> Iterator[list[Advance]]:
    """Show the progress of steps that are done at the same time.

    Args:
        titles: What is being done.

    Yields:
        A function for each, as of `show_progress`.
    """
    if Console().is_terminal:
        yield from _bars(titles)
    else:
        with ExitStack() as stack:
            yield [stack.enter_context(_lines(title)) for title in reversed(titles)][::-1]


def _bars(titles: Sequence[str]) -> Iterator[list[Advance]]:
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        tasks = [progress.add_task(title, total=None, words="") for title in titles]
        yield [partial(_move, progress, task) for task in tasks]


def _move(progress: Progress, task: TaskID, done: float, total: int, words: str) -> None:
    progress.update(task, completed=done, total=total, words=words)


@contextmanager
def _lines(title: str) -> Iterator[Advance]:
    started = time.monotonic()
    first, newest, begun = -1.0, -1.0, started
    last = started

    def advance(done: float, total: int, words: str) -> None:
        nonlocal first, newest, begun, last
        now = time.monotonic()
        # what comes before the first unit says nothing of the time of one, nor does what was lost
        if done < newest or first in (-1, done):
            first, begun = done, now
        newest = done
        if now - last < LINE_EVERY:
            return
        last = now
        moved = done - first
        left = f", {duration((now - begun) * (total - done) / moved)} left" if moved else ""
        so_far = f"{done:.0f}" if done == int(done) else f"{done:.1f}"
        print(f"  {title}: {so_far} of {total} {words}, {duration(now - started)}{left}", flush=True)

    yield advance
    print(f"  {title}: done in {duration(time.monotonic() - started)}", flush=True)
    sys.stdout.flush()


def duration(seconds: float) -> str:
    """A time span for people: "8 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
