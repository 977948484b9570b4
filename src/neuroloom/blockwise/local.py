"""What worker processes of this machine do with the blocks that daisy hands them."""

from __future__ import annotations

import os
import socket
import time
from functools import cached_property
from typing import Any

from neuroloom.blockwise.accounts import Accounts
from neuroloom.blockwise.allocation import keep_freed_memory
from neuroloom.blockwise.failures import record_exception
from neuroloom.blockwise.overlap import overlap_of
from neuroloom.blockwise.stage import Stage, block_of

PAUSE_SECONDS = 0.5
"""Between two looks whether a stage that is ahead may go on."""


class BlockFunction:
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
