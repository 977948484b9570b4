"""Memory of a worker, by stage and extent of a block: the figures of `docs/scale.md`.

    python tools/measure_memory.py [AFFINITIES.npy]        (3, z, y, x) uint8, at least 64 voxels long; made otherwise

Each block is processed in a process of its own, on affinities put beside each other, with the context that stages have.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.agglomeration.stage import Agglomerate
from neuroloom.blockwise import Source, Stage
from neuroloom.blockwise.allocation import keep_freed_memory, most_taken
from neuroloom.fragments.stage import Fragments
from neuroloom.segmentation.stage import Segment
from neuroloom.volume import create_volume
from neuroloom.volume.sample import SampleParameters, make_block

EXTENTS = (128, 192, 256, 320)


def stages(folder: Path, extent: int) -> dict[str, Stage]:
    """The stages of a volume of two blocks along each axis, so that a block has context on one side of each."""
    affinities = Source(path=str(folder / "a.zarr"), dataset="a", fingerprint="a")
    common: dict[str, Any] = {"shape": (2 * extent,) * 3, "block_shape": (extent,) * 3}
    cut = Fragments(folder=folder / "fragments", affinities=affinities, context=(20, 20, 20), **common)
    scored = Agglomerate(
        folder=folder / "agglomeration",
        affinities=affinities,
        fragments=cut.output,
        fragments_graph=cut.graph_place,
        context=(32, 32, 32),
        **common,
    )
    segmented = Segment(
        folder=folder / "segmentation",
        fragments=cut.output,
        forest=scored.forest,
        edges=scored.graph_place,
        threshold=0.3,
        **common,
    )
    return {"fragments": cut, "agglomeration": scored, "segmentation": segmented}


def process(folder: Path, extent: int, name: str) -> None:
    """Process one block, as a worker does, and print the bytes that the process has taken at most."""
    keep_freed_memory()
    stage = stages(folder, extent)[name]
    stage.process(stage.block_at((0, 0, 0)))
    print(most_taken())


def affinities_of_tissue() -> NDArray[np.uint8]:
    """Affinities of made tissue: those of its labels, blurred by nothing, with noise."""
    _, labels = make_block(SampleParameters(seed=1), (0, 0, 0), (160, 160, 160))
    result = np.zeros((3, *labels.shape), np.uint8)
    for axis in range(3):
        same = np.ones(labels.shape, bool)
        inner = [slice(None)] * 3
        inner[axis] = slice(1, None)
        same[tuple(inner)] = np.diff(labels.astype(np.int64), axis=axis) == 0
        result[axis] = np.where(same, 230, 30)
    noise = np.random.default_rng(0).integers(-25, 26, result.shape)
    return np.clip(result + noise, 0, 255).astype(np.uint8)


def main(arguments: list[str]) -> None:
    if len(arguments) == 3:
        process(Path(arguments[0]), int(arguments[1]), arguments[2])
        return
    affinities = np.load(arguments[0]) if arguments else affinities_of_tissue()
    for extent in EXTENTS:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            size = 2 * extent
            times = [1, *(-(-size // n) for n in affinities.shape[1:])]
            volume = np.tile(affinities, times)[:, :size, :size, :size]
            create_volume(folder / "a.zarr", "a", volume.shape, np.uint8, (8, 8, 8), chunks=(64, 64, 64)).write(
                (0, 0, 0), volume
            )
            del volume
            for name, stage in stages(folder, extent).items():
                stage.prepare()
                command = [sys.executable, __file__, str(folder), str(extent), name]
                taken = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                print(f"{name}, block of {extent}³: {taken / 1e9:.2f} GB", flush=True)
                for block in stage.blocks():
                    stage.process(block)
                stage.finish()


if __name__ == "__main__":
    main(sys.argv[1:])
