"""Stages that run at the same time: a block is done as soon as all that it reads is there.

    predict  ->  fragments  ->  agglomerate          A stage pauses while as many blocks as the `lead` of one that
       +--------------------------^                  reads it are ready there and wait: so disks do not fill.

daisy hands out the blocks, and knows their dependencies. What it does not know, workers find out from the stages' own
files: which stages run beside theirs stands in `overlap.json` of its folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from neuroloom.blockwise.dependencies import Flags, any_in, blocks_read, reads
from neuroloom.blockwise.failures import all_failures
from neuroloom.blockwise.stage import Block, Stage, load_stage
from neuroloom.blockwise.tracking import done_blocks
from neuroloom.files import read_json, tell, write_json

WANTED = "wanted.json"
"""In the stage's folder as long as its blocks are handed out: numbers of those that are, or null for all. A supply of
workers ends when it goes."""

FILE = "overlap.json"
HANDED = "handed.json"
SILENT = 60.0
"""Seconds after which what can be begun is found out without daisy, if it knows of nothing."""
FORGOTTEN = 600.0
"""Seconds after which a stage goes on by a block, though one that reads it has enough to do, while nobody does that."""


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

    def is_ahead(self) -> bool:
        """Whether this stage should pause, since one that reads it has enough to do.

        What daisy has told last may be long out of date: it does not tell every change, and if all others wait for this
        stage, none follows. So it counts only while it can be true.
        """
        return any(overlap_of(reader)._has_enough() for reader in self.readers)

    def _has_enough(self) -> bool:
        handed = _handed(self.stage)
        forgotten = handed["underway"] == 0 and self._silent() > FORGOTTEN
        return handed["ready"] >= self.lead and self._can_begin() >= self.lead and not forgotten

    def _can_begin(self) -> int:
        """How many blocks that are not done have all that they read; daisy hears of it later, or never of more."""
        blocks = wanted_blocks(self.stage) & ~done_blocks(self.stage.folder / "blocks", self.stage.grid)
        for source in self.sources:
            missing = wanted_blocks(source) & ~done_blocks(source.folder / "blocks", source.grid)
            blocks &= ~any_in(blocks_read(self.stage, source), missing)
        return int(np.count_nonzero(blocks))

    def _silent(self) -> float:
        """Seconds since daisy told something that had changed; 0 where it never did."""
        try:
            return time.time() - (self.stage.folder / HANDED).stat().st_mtime
        except OSError:
            return 0.0

    def open_blocks(self) -> int:
        """How many blocks are underway or can be begun now."""
        if self.sources:
            told = sum(_handed(self.stage).values())
            return self._can_begin() if told == 0 and self._silent() > SILENT else told
        done = done_blocks(self.stage.folder / "blocks", self.stage.grid)
        return int(np.count_nonzero(wanted_blocks(self.stage) & ~done))

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


def tell_handed(stage: Stage, ready: int, underway: int) -> None:
    """Tell workers, and whoever supplies them, how many blocks of a stage daisy has to hand out, and has handed out.

    Only daisy knows: blocks that were done before this run count for it when it comes to them.
    """
    tell(stage.folder / HANDED, {"ready": ready, "underway": underway})


def _handed(stage: Stage) -> dict[str, int]:
    try:
        return dict(json.loads((stage.folder / HANDED).read_text()))
    except (OSError, ValueError):
        return {"ready": 0, "underway": 0}


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
        for file in (FILE, HANDED):
            (stage.folder / file).unlink(missing_ok=True)
        if sources or readers:
            files = {"sources": [str(s.description) for s in sources], "readers": [str(r.description) for r in readers]}
            write_json(stage.folder / FILE, {**files, "lead": lead})
    return overlaps
