"""`python -m benchmarks.memory [DIR]`: memory of a worker by stage and extent of a block, for `docs/scale.md`.

Each block is processed in a process of its own, on predicted affinities put beside each other, with the context that
stages have on all sides. There is no peer. DIR is a folder with `fib25-val.zarr`; without it, tissue is made up.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.stages import CONTEXT, stages
from neuroloom.blockwise.allocation import keep_freed_memory, most_taken
from neuroloom.volume import create_volume

EXTENTS = (128, 192, 256, 320)


def measure(data: Path) -> None:
    """Print the memory of every stage with every block."""
    # workers, which are this file as well, do not load PyTorch
    from benchmarks.affinities import predicted
    from benchmarks.volumes import VOXEL_SIZE, Options

    what, affinities, _ = predicted(Options(data, quick=False), 250)
    print(what)
    for extent in EXTENTS:
        with tempfile.TemporaryDirectory() as temporary:
            folder, size = Path(temporary), extent_of_volume(extent)
            times = [1, *(-(-size // n) for n in affinities.shape[1:])]
            volume = np.tile(affinities, times)[:, :size, :size, :size]
            create_volume(folder / "a.zarr", "a", volume.shape, np.uint8, VOXEL_SIZE, chunks=(64, 64, 64)).write(
                (0, 0, 0), volume
            )
            del volume
            for number, stage in enumerate(stages(folder, (size, size, size), (extent, extent, extent))):
                stage.prepare()
                command = [sys.executable, "-m", "benchmarks.memory", str(folder), str(extent), str(number)]
                taken = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                print(f"{stage.title}, block of {extent}³: {taken / 1e9:.2f} GB", flush=True)
                for block in stage.blocks():
                    stage.process(block)
                stage.finish()


def extent_of_volume(extent: int) -> int:
    """Of one whose second block along each axis, of that extent, has all of its context."""
    return 2 * extent + max(CONTEXT)


def process(folder: Path, extent: int, number: int) -> None:
    """Process one block of a stage, as a worker does, and print the bytes that the process has taken at most."""
    keep_freed_memory()
    size = extent_of_volume(extent)
    stage = stages(folder, (size, size, size), (extent, extent, extent))[number]
    stage.process(stage.block_at((1, 1, 1)))
    print(most_taken())


if __name__ == "__main__":
    if len(sys.argv) == 4:
        process(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    else:
        measure(Path(*sys.argv[1:]))
