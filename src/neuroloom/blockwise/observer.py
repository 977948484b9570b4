"""What the master sees of stages that run: progress for people, and what follows from it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from neuroloom.blockwise.intermediate import Unread
from neuroloom.blockwise.overlap import WANTED, tell_handed
from neuroloom.blockwise.stage import TELL_EVERY
from neuroloom.blockwise.tracking import reserve
from neuroloom.blockwise.work import STOPPED, Work
from neuroloom.errors import UserError

DELETE_EVERY = 5.0
"""Seconds between two looks for results that nobody is to read any more."""


class Observer:
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
        self.handed: dict[str, tuple[int, int]] = {}
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
            if self.unread is not None and self.unread.deletes and time.monotonic() - deleted > DELETE_EVERY:
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
            handed = int(state.ready_count), int(state.processing_count)
            if len(self.works) > 1 and self.handed.get(name) != handed:
                self.handed[name] = handed
                with contextlib.suppress(OSError):  # a full disk is told by others
                    tell_handed(work.stage, *handed)

    def on_finish(self, states: Any) -> None:
        # daisy waits for the supply of workers even where it was interrupted
        self._unwanted()
        self.on_progress(states)

    def _unwanted(self) -> None:
        for work in self.works.values():
            (work.stage.folder / WANTED).unlink(missing_ok=True)
