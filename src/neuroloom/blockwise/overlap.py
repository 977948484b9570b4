"""Stages that run at the same time: a block is done as soon as all that it reads is there.

    predict  ->  fragments  ->  agglomerate          A stage pauses while as many blocks as the `lead` of one that
       +--------------------------^                  reads it are ready there and wait: so disks do not fill.

daisy hands out the blocks, and knows their dependencies. What it does not know, workers find out from the stages' own
files: which stages run beside theirs stands in `overlap.json` of its folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from neuroloom.blockwise.dependencies import Flags, inputs_there, reads
from neuroloom.blockwise.failures import all_failures
from neuroloom.blockwise.stage import Block, Stage, load_stage
from neuroloom.blockwise.tracking import done_blocks
from neuroloom.files import read_json, write_json

WANTED = "wanted.json"
"""In the stage's folder as long as its blocks are handed out: numbers of those that are, or null for all. A supply of
workers ends when it goes."""

STARVING = "starving"
"""In the stage's folder as long as daisy has no block for it, though some may be ready: of blocks that an earlier run
has done, daisy hears only when workers of their own stage ask for more. So nobody waits for a stage that starves."""

FILE = "overlap.json"


@dataclass(frozen=True)
class Overlap:
    """A stage among those that run at the same time.

    Attributes:
        stage: The stage.
        sources: Those of them that it reads.
        readers: Those of them that read it.
        lead: How many of its blocks may be ready and wait, before its sources pause.
    """

    stage: Stage
    sources: tuple[Stage, ...] = ()
    readers: tuple[Stage, ...] = ()
    lead: int = 0

    def ready(self) -> Flags:
        """Which blocks can be done now: they are wanted and not done, and all that they read is."""
        sources = [(source, _done(source)) for source in self.sources]
        return wanted_blocks(self.stage) & ~_done(self.stage) & inputs_there(self.stage, sources)

    def is_ahead(self) -> bool:
        """Whether this stage should pause, since one that reads it has enough to do."""
        for reader in self.readers:
            if (reader.folder / STARVING).exists():
                continue
            beside = overlap_of(reader)
            if np.count_nonzero(beside.ready()) - len(all_failures(reader)) >= beside.lead:
                return True
        return False

    def lost_input(self, block: Block) -> str | None:
        """Why a block of this stage can never be done in this run; None if it can.

        Args:
            block: The block.
        """
        for source in self.sources:
            for failure in all_failures(source):
                lost = source.block_at(source.place_of(failure["block"]))
                if failure["given_up"] and lost.write_roi.intersects(block.read_roi):
                    return f"block {lost.number} of the {source.title}, which it reads, failed"
        return None


def wanted_blocks(stage: Stage) -> Flags:
    """Which blocks are handed out, `(z, y, x)` of the stage's grid; none where nobody does."""
    try:
        only = json.loads((stage.folder / WANTED).read_text())
    except (OSError, ValueError):
        return np.zeros(stage.grid, dtype=bool)
    return np.ones(stage.grid, dtype=bool) if only is None else chosen_blocks(stage, only)


def chosen_blocks(stage: Stage, numbers: Iterable[int]) -> Flags:
    """Flags of blocks by their numbers."""
    flags = np.zeros(stage.block_count, dtype=bool)
    flags[list(numbers)] = True
    return flags.reshape(stage.grid)


def _done(stage: Stage) -> Flags:
    """Blocks that daisy counts as done: those that are given up, too."""
    return done_blocks(stage.folder / "blocks", stage.grid)


def overlap_of(stage: Stage) -> Overlap:
    """What runs beside a stage; nothing, if it runs alone.

    Args:
        stage: One that runs.
    """
    if not (stage.folder / FILE).exists():
        return Overlap(stage)
    return _read(stage.folder)


@lru_cache(maxsize=16)
def _read(folder: Path) -> Overlap:
    """A worker reads it once."""
    content = read_json(folder / FILE)
    stages = {key: tuple(load_stage(Path(file)) for file in content[key]) for key in ("sources", "readers")}
    return Overlap(load_stage(folder / "stage.json"), stages["sources"], stages["readers"], content["lead"])


def write_overlaps(stages: Sequence[tuple[Stage, int]]) -> list[Overlap]:
    """Tell workers which stages run at the same time.

    Args:
        stages: In the order in which they read one another, each with its lead.

    Returns:
        One for each.
    """
    _read.cache_clear()
    overlaps = []
    for stage, lead in stages:
        sources = tuple(other for other, _ in stages if other is not stage and reads(stage, other))
        readers = tuple(other for other, _ in stages if other is not stage and reads(other, stage))
        overlaps.append(Overlap(stage, sources, readers, lead))
        (stage.folder / FILE).unlink(missing_ok=True)
        if sources or readers:
            files = {"sources": [str(s.description) for s in sources], "readers": [str(r.description) for r in readers]}
            write_json(stage.folder / FILE, {**files, "lead": lead})
    return overlaps
