"""What is to be run: a stage, and by whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from neuroloom.blockwise.dependencies import Flags
from neuroloom.blockwise.failures import finished_blocks
from neuroloom.blockwise.overlap import chosen_blocks
from neuroloom.blockwise.stage import Stage

Progress = Callable[[float, int], None]
"""Called with blocks done, counting parts of those underway, and blocks in all."""

STOPPED = "stopped.json"
"""In the stage's folder: why whoever supplies workers cannot go on."""


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


def say_nothing(done: float, total: int) -> None:
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
    progress: Progress = say_nothing
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
