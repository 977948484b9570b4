"""What prediction takes: seconds of reading, computing and writing, and memory."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from neuroloom.blockwise.allocation import most_taken
from neuroloom.volume.array import Triple

if TYPE_CHECKING:
    import torch

STEPS = ("reading", "computing", "writing")


@dataclass(frozen=True)
class Measured:
    """What was measured of blocks.

    Attributes:
        voxels: How many the blocks have.
        predicted: How many of them: the rest is no tissue, or blank.
        missing: First voxels of the chunks of raw that have no file and were taken for zeros, z y x.
        took: Seconds in which at least one block was worked on.
        seconds: By step, in all blocks together.
        memory: Bytes of the process that took most, or of its GPU.
    """

    voxels: int
    predicted: int
    missing: list[Triple]
    took: float
    seconds: dict[str, float]
    memory: int

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {self.seconds[name]:.3g} s" for name in STEPS)
        rate = self.voxels / max(self.took, 1e-9) / 1e6
        left_out = 1 - self.predicted / max(self.voxels, 1)
        blank = f"; {left_out:.0%} is blank or no tissue and was left out" if left_out >= 0.005 else ""
        lost = f"; chunks of raw without a file were taken for zeros: {named(self.missing)}" if self.missing else ""
        return f"{rate:.2g} Mvoxel/s ({parts}), {self.memory / 1e9:.2g} GB of memory{blank}{lost}"


def union(times: Sequence[tuple[float, float]]) -> float:
    """Seconds that lie in at least one of some spans.

    Args:
        times: Begin and end of each.

    Example:
        >>> union([(0, 2), (1, 3), (5, 6)])
        4.0
    """
    total, last = 0.0, -math.inf
    for begin, end in sorted(times):
        total += max(0.0, end - max(begin, last))
        last = max(last, end)
    return total


def named(chunks: Sequence[Triple], most: int = 5) -> str:
    """The first few of some places, in words."""
    more = f" and {len(chunks) - most} more" if len(chunks) > most else ""
    return ", ".join(str(tuple(begin)) for begin in chunks[:most]) + more


@dataclass
class Stopwatch:
    """Seconds from one lap to the next.

    Attributes:
        laps: By name.
    """

    laps: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        """Keep the time since the last lap."""
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self.last
        self.last = now


def most_memory(device: torch.device) -> int:
    """Bytes that this process has taken at most so far; on a GPU, those of its tensors there."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    return most_taken()
