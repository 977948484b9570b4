"""What a training is told of its network by whoever scores it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Score:
    """What the whole chain makes of a network on the validation volumes.

    Attributes:
        voi: VOI split + merge in bits, at the best merge function and threshold; mean over the volumes.
        voi_eroded: The same with the truth eroded by one voxel; None where that leaves nothing.
        merge_function: The best one.
        threshold: The best merge threshold.
    """

    voi: float
    voi_eroded: float | None
    merge_function: str
    threshold: float


Scorer = Callable[[Path], Score]
"""Called with a checkpoint."""
