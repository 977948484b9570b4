"""Fragments: ours against the reference's chain, on predicted affinities.

The reference's chain is scipy's distance transform and maximum filter, its labels, and mahotas' watershed (METHOD of
Sheridan et al. 2022). Both give the same fragments, voxel by voxel, so that every score of them is the same, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import mahotas
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.affinities import predicted
from benchmarks.results import Disagreement, Result, alternate
from benchmarks.volumes import Options
from neuroloom.fragments import fragments
from neuroloom.fragments.watershed import connected

MIN_SEED_DISTANCE = 10


def run(options: Options) -> list[Result]:
    """Compare seconds of one core.

    Raises:
        Disagreement: Fragments differ.
    """
    what, affinities, _ = predicted(options, 100 if options.quick else 250)
    print(f"{what}, one core each")
    small = affinities[:, :40, :40, :40]
    fragments(np.ascontiguousarray(small))  # compiled by now
    kept: dict[str, NDArray[Any]] = {}
    mine, theirs = alternate(
        timed(lambda: kept.update(ours=fragments(affinities, min_seed_distance=MIN_SEED_DISTANCE))),
        timed(lambda: kept.update(peer=reference(affinities))),
        1 if options.quick else 3,
    )
    if not np.array_equal(connected(kept["ours"]), connected(kept["peer"].astype(np.uint32))):
        raise Disagreement("fragments differ")
    print(f"the same {kept['ours'].max():,} fragments")
    return [Result("fragments", tuple(mine), tuple(theirs), "s")]


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """What takes the seconds of some work."""

    def seconds() -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    return seconds


def reference(affinities: NDArray[np.uint8]) -> NDArray[Any]:
    """Mean affinity above one half, distance, its maxima as seeds, and flooding."""
    inside = (affinities.astype(np.float32) / 255).mean(axis=0) > 0.5
    distance = ndimage.distance_transform_edt(inside)
    seeds, _ = ndimage.label(ndimage.maximum_filter(distance, MIN_SEED_DISTANCE) == distance)
    return mahotas.cwatershed(distance.max() - distance, seeds)
