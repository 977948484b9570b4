"""Some blocks of a stage instead of all: by number, by region, or those that failed the last time."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from funlib.geometry import Coordinate, Roi

from neuroloom.blockwise import Stage
from neuroloom.blockwise.dependencies import Flags, still_read
from neuroloom.blockwise.failures import all_failures
from neuroloom.blockwise.overlap import chosen_blocks
from neuroloom.errors import UserError


@dataclass(frozen=True)
class Selection:
    """Which blocks are wanted.

    Attributes:
        only: Ranges of their numbers; None where they are not named.
        roi: The region that they lie in, voxels of the volume; likewise.
        failed: Those that failed the last time.
    """

    only: tuple[range, ...] | None = None
    roi: Roi | None = None
    failed: bool = False

    def blocks(self, stage: Stage) -> frozenset[int]:
        """Numbers of a stage's blocks that are wanted; none if none have failed.

        Raises:
            UserError: There is no such block, or the region lies outside.
        """
        if self.failed:
            return frozenset(int(report["block"]) for report in all_failures(stage) if not report["no_input"])
        if self.only is not None:
            last = max(numbers[-1] for numbers in self.only)
            if last >= stage.block_count:
                raise UserError(
                    f"There is no block {last}: {stage.title} has {stage.block_count} blocks, from 0 to "
                    f"{stage.block_count - 1}."
                )
            return frozenset(itertools.chain(*self.only))
        assert self.roi is not None
        if not self.touches(stage):
            raise UserError(f"--roi lies outside of the volume, which has {stage.shape} voxels (z, y, x).")
        return numbers_of(_overlapping(stage, self.roi.intersect(Roi((0, 0, 0), stage.shape))))

    def touches(self, stage: Stage) -> bool:
        """Whether anything of a stage's volume lies in the region; where none is asked for, it does."""
        return self.roi is None or not self.roi.intersect(Roi((0, 0, 0), stage.shape)).empty

    def of(self, stages: Sequence[Stage]) -> list[tuple[Stage, frozenset[int]]]:
        """What is to be done of a volume's stages: only those of which blocks are wanted.

        Args:
            stages: Prediction, fragments and agglomeration, in this order.

        Raises:
            UserError: As `blocks`.
        """
        if self.roi is not None:
            chosen = list(zip(stages, self.to_edges(stages), strict=True))
        else:
            left = [stage for stage in stages if not stage.is_done()]
            chosen = [(stage, self.blocks(stage)) for stage in (left if self.failed else left[:1])]
        return [(stage, numbers) for stage, numbers in chosen if numbers]

    def to_edges(self, stages: Sequence[Stage]) -> list[frozenset[int]]:
        """Blocks of stages that read one another: those of the last that are wanted, and all that these need.

        Args:
            stages: In the order in which they read one another.

        Raises:
            UserError: As `blocks`.
        """
        wanted = chosen_blocks(stages[-1], self.blocks(stages[-1]))
        flags = [wanted]
        for number in range(len(stages) - 2, -1, -1):
            readers = [(reader, ~known) for reader, known in zip(stages[number + 1 :], flags, strict=True)]
            flags.insert(0, still_read(stages[number], readers))
        return [numbers_of(found) for found in flags]


def numbers_of(flags: Flags) -> frozenset[int]:
    """Numbers of the blocks that are set."""
    return frozenset(np.flatnonzero(flags).tolist())


def _overlapping(stage: Stage, roi: Roi) -> Flags:
    flags = np.zeros(stage.grid, dtype=bool)
    ranges = zip(roi.begin, roi.end, stage.block_shape, strict=True)
    flags[tuple(slice(int(begin) // block, -(-int(end) // block)) for begin, end, block in ranges)] = True
    return flags


def parse_selection(only: str | None, roi: str | None, failed: bool) -> Selection | None:
    """What was typed.

    Args:
        only: Numbers and ranges, "3,7-9".
        roi: Voxels, "0:64,128:256,128:256" for z, y, x.
        failed: Whether those that failed are wanted.

    Returns:
        None if all blocks are wanted.

    Raises:
        UserError: It cannot be understood, or is more than one of them.
    """
    if (only is not None) + (roi is not None) + failed > 1:
        raise UserError("Give one of --only, --roi and --retry-failed.")
    if failed:
        return Selection(failed=True)
    if only is not None:
        return Selection(only=_numbers(only))
    return None if roi is None else Selection(roi=_region(roi))


def _numbers(text: str) -> tuple[range, ...]:
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise UserError(f"--only {text}: expected numbers of blocks and ranges of them, such as --only 3,7-9.")
        found.append(range(first, last + 1))
    return tuple(found)


def _region(text: str) -> Roi:
    ranges = [re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*", part) for part in text.split(",")]
    pairs = [(int(match[1]), int(match[2])) for match in ranges if match]
    if len(ranges) != 3 or len(pairs) != 3 or any(end <= begin for begin, end in pairs):
        raise UserError(f"--roi {text}: expected begin and end along z, y, x, such as --roi 0:64,128:256,0:256.")
    begin = Coordinate(*(b for b, _ in pairs))
    return Roi(begin, Coordinate(*(e for _, e in pairs)) - begin)
