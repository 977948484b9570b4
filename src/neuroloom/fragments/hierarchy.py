"""Hierarchical agglomeration by waterz, without its chatter: merge functions by name, and one merge history.

Regions that touch are merged, most alike first, until none is left whose score is below a threshold. A score is
1 - affinity, where the affinity between two regions is the mean or a quantile of the affinities across their contact:

    score(u, v) = 1 - quantile_q { affinity(a, b) : a in u, b in v, a and b share a face }      LOW merges first

Funke et al., "Large scale image segmentation with structured loss based deep learning", 2018.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.errors import UserError

QUEUE_BINS = 256
"""Scores are sorted into so many bins; within a bin, first come first served."""

_SCORE = "ScoreValue"
MERGE_FUNCTIONS: dict[str, str] = {
    "mean": f"OneMinus<MeanAffinity<RegionGraphType, {_SCORE}>>",
    **{
        f"hist_quant_{quantile}{suffix}": (
            f"OneMinus<HistogramQuantileAffinity<RegionGraphType, {quantile}, {_SCORE}, 256, {first_by_maximum}>>"
        )
        for suffix, first_by_maximum in (("", "false"), ("_initmax", "true"))
        for quantile in (10, 25, 50, 75, 90)
    },
}
"""The merge functions by name, as waterz spells them. `_initmax`: a contact starts with its largest affinity alone."""


def agglomerate(
    affinities: NDArray[np.uint8], numbers: NDArray[np.uint32], merge_function: str, threshold: float
) -> tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.float32]]:
    """Merge regions up to a threshold.

    Args:
        affinities: `(3, z, y, x)`, 255 = 1.
        numbers: `(z, y, x)`, regions 1 … n, 0 = none.
        merge_function: A key of `MERGE_FUNCTIONS`.
        threshold: Merge while the lowest score is below it.

    Returns:
        Merged regions `(z, y, x)`, each with the number of one of its parts; the merges in their order, `(m, 2)`:
        the second region becomes part of the first; and their scores, `(m,)`.

    Raises:
        UserError: The merge function has no such name.
    """
    import waterz

    check_merge_function(merge_function)
    regions = np.ascontiguousarray(numbers, dtype=np.uint64)
    if not regions.any():
        return regions, np.empty((0, 2), np.uint32), np.empty(0, np.float32)
    if regions is numbers:
        regions = regions.copy()
    scaled = np.ascontiguousarray(affinities, dtype=np.float32)
    scaled /= np.float32(255)
    with _silence():
        # waterz merges in place, so `regions` is the result
        [(_, history)] = waterz.agglomerate(
            scaled,
            thresholds=[threshold],
            fragments=regions,
            scoring_function=MERGE_FUNCTIONS[merge_function],
            discretize_queue=QUEUE_BINS,
            return_merge_history=True,
        )
    merges = np.array([(merge["a"], merge["b"]) for merge in history], dtype=np.uint32).reshape(-1, 2)
    return regions, merges, np.array([merge["score"] for merge in history], dtype=np.float32)


def check_merge_function(name: str) -> None:
    """Refuse a merge function that is not among `MERGE_FUNCTIONS`.

    Args:
        name: Such as "hist_quant_75".

    Raises:
        UserError: There is none of that name.
    """
    if name not in MERGE_FUNCTIONS:
        raise UserError(f"There is no merge function {name!r}. Choose one of {', '.join(sorted(MERGE_FUNCTIONS))}.")


_lock = threading.Lock()


@contextmanager
def _silence() -> Iterator[None]:
    """Send what compiled code prints to standard output nowhere: that stream belongs to the command line's results."""
    library: Any = ctypes.CDLL(None)
    with _lock:
        sys.stdout.flush()
        library.fflush(None)
        saved = os.dup(1)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        saved_stream = sys.stdout
        try:
            os.dup2(nowhere, 1)
            with open(os.devnull, "w") as stream:
                sys.stdout = stream
                yield
        finally:
            sys.stdout = saved_stream
            library.fflush(None)
            os.dup2(saved, 1)
            os.close(saved)
            os.close(nowhere)
