"""Blocks: the same bytes whatever the workers and their order, and how far results of other block sizes are.

Fragments, agglomeration and the segmentation of predicted affinities, as stages, in blocks of 128 voxels: by one
worker, by eight, and block by block in a random order in this process. All files but logs and marks of what is done
must be equal, byte by byte. Then the same in blocks of other sizes: how much segmentations differ, at three thresholds.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.affinities import predicted
from benchmarks.results import Disagreement, Result
from benchmarks.stages import stages
from benchmarks.volumes import VOXEL_SIZE, Options
from neuroloom.agglomeration import load_forest
from neuroloom.blockwise import Stage, run_stage
from neuroloom.evaluation.contingency import overlap_table
from neuroloom.evaluation.scores import variation_of_information
from neuroloom.segmentation import lookup_table, relabel
from neuroloom.volume import create_volume

THRESHOLDS = (0.2, 0.3, 0.4)
GOAL = 0.02
"""Bits of VOI between the segmentations of two block sizes, at most."""


def run(options: Options) -> list[Result]:
    """Compare hashes, then segmentations.

    Raises:
        Disagreement: Workers or their order change a byte.
    """
    what, affinities, _ = predicted(options, 100 if options.quick else 250)
    print(f"{what}, hist_quant_75", flush=True)
    sizes = (40, 100, 48) if options.quick else (128, 256, 96, 64)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        print(f"blocks of {sizes[0]} voxels: one worker", flush=True)
        segmented = {sizes[0]: segmentations(folder / "one", affinities, sizes[0], workers=1)}
        expected = hashes(folder / "one")
        for name, workers in (("eight workers", 8), ("shuffled", 0)):
            segmentations(folder / name, affinities, sizes[0], workers)
            if hashes(folder / name) != expected:
                raise Disagreement(f"{name}: not the bytes of one worker")
            print(f"{name}: the same {len(expected)} files", flush=True)
        for size in sizes[1:]:
            # few blocks take less time than starting workers
            segmented[size] = segmentations(folder / str(size), affinities, size, workers=0 if options.quick else 2)
    results = []
    for number, size in enumerate(sizes):
        for other in sizes[number + 1 :]:
            apart = tuple(difference(segmented[size][t], segmented[other][t]) for t in THRESHOLDS)
            results.append(Result(f"VOI, blocks of {size} against {other}", apart, (GOAL,) * len(apart), "bits"))
    return results


def segmentations(
    folder: Path, affinities: NDArray[np.uint8], size: int, workers: int
) -> dict[float, NDArray[np.uint64]]:
    """The segmentation at each threshold.

    Args:
        folder: For everything.
        affinities: `(3, z, y, x)`.
        size: Voxels along each side of a block.
        workers: Processes; 0: this one, in a random order of blocks.
    """
    z, y, x = affinities.shape[1:]
    create_volume(folder / "a.zarr", "a", affinities.shape, np.uint8, VOXEL_SIZE, chunks=(64, 64, 64)).write(
        (0, 0, 0), affinities
    )
    cut, scored, segmented = stages(folder, (z, y, x), (size, size, size))
    for stage in (cut, scored, segmented):
        if workers:
            run_stage(stage, workers)
        else:
            shuffled(stage)
    fragments = cut.output.open().read()
    forest = load_forest(scored.forest_file)
    return {threshold: relabel(fragments, lookup_table(forest, threshold)) for threshold in THRESHOLDS}


def shuffled(stage: Stage) -> None:
    """A stage in this process, its blocks in a random order."""
    stage.prepare()
    blocks = list(stage.blocks())
    for number in np.random.default_rng(0).permutation(len(blocks)):
        stage.process(blocks[number])
    stage.finish()


def hashes(folder: Path) -> dict[str, str]:
    """Of every file with results, by its path."""
    files = [path for path in folder.rglob("*") if path.is_file() and _is_result(path.relative_to(folder))]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def difference(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> float:
    """The variation of information of two segmentations, bits."""
    return sum(variation_of_information(overlap_table(one, other)))


def _is_result(path: Path) -> bool:
    return path.suffix in (".arrow", ".npz") or ".zarr" in str(path)
