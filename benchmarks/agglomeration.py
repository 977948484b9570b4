"""Agglomeration: merge scores against waterz, and everything from affinities to the segmentation.

waterz gets affinities as float32, which it wants, and gives a list of merges; ours gives the scores of all pairs as
well. Histories are equal to the last bit.

Everything: fragments, scores, forest and segmentation as stages with two workers, reading and writing included, on
affinities put beside each other; CPU seconds of all processes, starting them included. The other side is volara with
the tasks that are nearest, on the same affinities in the same blocks. Then ours alone on four times as many, where
starting processes counts less, against the goal.
"""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import waterz
from numpy.typing import NDArray

from benchmarks.affinities import predicted
from benchmarks.fragments import MIN_SEED_DISTANCE, timed
from benchmarks.peers import ask, environment
from benchmarks.results import Disagreement, Result, alternate
from benchmarks.stages import BLOCK, CONTEXT, FRAGMENTS_CONTEXT, stages
from benchmarks.volumes import VOXEL_SIZE, Options
from neuroloom.agglomeration import merge_scores
from neuroloom.blockwise import run_stage
from neuroloom.fragments import fragments
from neuroloom.fragments.contacts import find_contacts
from neuroloom.fragments.hierarchy import merge_history
from neuroloom.volume import create_volume

GOAL = 0.15
"""Core seconds per megavoxel."""
VOLARA = ("volara==1.0.5",)

QUANTILE = "OneMinus<HistogramQuantileAffinity<RegionGraphType, 75, ScoreValue, 256, false>>"


def run(options: Options) -> list[Result]:
    """Compare seconds of one core, and CPU seconds per megavoxel.

    Raises:
        Disagreement: Histories differ.
    """
    python = environment("volara", VOLARA)
    what, affinities, _ = predicted(options, 100 if options.quick else 250)
    print(f"{what}, hist_quant_75", flush=True)
    labels = fragments(affinities).astype(np.uint64)
    merge_scores(affinities[:, :40, :40, :40], labels[:40, :40, :40], "hist_quant_75")  # compiled by now
    mine, theirs = alternate(
        timed(lambda: merge_scores(affinities, labels, "hist_quant_75")),
        timed(lambda: by_waterz(affinities, labels)),
        1 if options.quick else 5,
    )
    merges, scores = merge_history(find_contacts(affinities, labels.astype(np.uint32)), "hist_quant_75", 1.0)
    history = [(merge["a"], merge["b"], merge["score"]) for merge in by_waterz(affinities, labels)]
    if history != [(*pair, score) for pair, score in zip(merges.tolist(), scores.tolist(), strict=True)]:
        raise Disagreement("histories differ")
    volume = affinities if options.quick else np.tile(affinities, (1, 1, 2, 2))
    megavoxels = volume[0].size / 1e6
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        np.save(folder / "affinities.npy", volume)
        whole(folder / "first", affinities[:, :64, :64, :64])  # whatever is compiled or cached, is now
        used = whole(folder / "whole", volume)
        answer = ask(
            python,
            Path(__file__).parent / "peer_scripts" / "volara_segmentation.py",
            folder,
            voxel_size=[int(size) for size in VOXEL_SIZE],
            block=BLOCK,
            fragments_context=FRAGMENTS_CONTEXT,
            agglomeration_context=CONTEXT,
            min_seed_distance=MIN_SEED_DISTANCE,
        )
        more = np.tile(volume, (1, 1, 2, 2))
        used_of_more = whole(folder / "more", more)
    sums = []
    for name, seconds, size in (
        ("ours", used, megavoxels),
        ("volara", answer["seconds"], megavoxels),
        ("ours", used_of_more, 4 * megavoxels),
    ):
        parts = ", ".join(f"{step} {spent / size:.3f}" for step, spent in seconds.items())
        print(f"{name}, core-s per megavoxel of {size:.0f}: {parts}")
        sums.append(sum(seconds.values()) / size)
    return [
        Result("merge scores", tuple(mine), tuple(theirs), "s"),
        Result("affinities to segmentation", (sums[0],), (sums[1],), "core-s/Mvoxel"),
        Result("four times as many, against the goal", (sums[2],), (GOAL,), "core-s/Mvoxel"),
    ]


def by_waterz(affinities: NDArray[np.uint8], labels: NDArray[np.uint64]) -> list[dict[str, Any]]:
    """The history of merges."""
    scaled = affinities.astype(np.float32)
    scaled /= np.float32(255)
    [(_, history)] = waterz.agglomerate(
        scaled,
        thresholds=[1.0],
        fragments=labels.copy(),
        scoring_function=QUANTILE,
        discretize_queue=256,
        return_merge_history=True,
    )
    return list(history)


def whole(folder: Path, affinities: NDArray[np.uint8]) -> dict[str, float]:
    """CPU seconds of every stage.

    Args:
        folder: For everything.
        affinities: `(3, z, y, x)`.
    """
    size = affinities.shape[1:]
    # level 1, as predictions are written
    create_volume(folder / "a.zarr", "a", affinities.shape, np.uint8, VOXEL_SIZE, level=1).write((0, 0, 0), affinities)
    used = {}
    for stage in stages(folder, (size[0], size[1], size[2]), BLOCK):
        before = cpu_seconds()
        run_stage(stage, 2)
        used[stage.title] = cpu_seconds() - before
    return used


def cpu_seconds() -> float:
    """Of this process and of those that it has started, and of what these have started and seen the end of."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    ended = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    # the process that workers are forked from goes on to the next stage
    going_on = (child.cpu_times() for child in psutil.Process().children())
    return ended + sum(t.user + t.system + t.children_user + t.children_system for t in going_on)
