"""volara's way from affinities to a segmentation in `benchmarks agglomeration`; run by its own Python.

The tasks nearest to ours: mutex watershed with seeds as far apart as ours, mean affinities of touching fragments, mutex
watershed of that graph, relabelling; the graph in SQLite, two workers, blocks and context as ours.
"""

import json
import os
import resource
import sys
from pathlib import Path

import numpy as np
from funlib.geometry import Coordinate
from funlib.persistence import prepare_ds
from volara.blockwise import AffAgglom, ExtractFrags, GraphMWS, Relabel
from volara.datasets import Affs, Labels
from volara.dbs import SQLite
from volara.lut import LUT

NEIGHBORHOOD = [Coordinate(-1, 0, 0), Coordinate(0, -1, 0), Coordinate(0, 0, -1)]


def cpu_seconds() -> float:
    """Of this process and of those that it has started and that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    """Run the tasks one after the other, and print the CPU seconds of each."""
    folder = Path(sys.argv[1]).resolve()
    parameters = json.loads((folder / "parameters.json").read_text())
    affinities = np.load(folder / "affinities.npy")
    voxel_size = Coordinate(parameters["voxel_size"])
    os.chdir(folder)  # it leaves logs and a folder of done blocks where it is run
    container = folder / "volara.zarr"
    stored = prepare_ds(
        container / "affs",
        shape=affinities.shape,
        offset=(0, 0, 0),
        voxel_size=voxel_size,
        axis_names=["c^", "z", "y", "x"],
        units=["nm"] * 3,
        chunk_shape=(3, 64, 64, 64),
        dtype=affinities.dtype,
        mode="w",
    )
    stored[stored.roi] = affinities
    affs = Affs(store=container / "affs", neighborhood=NEIGHBORHOOD)
    fragments, segments = Labels(store=container / "fragments"), Labels(store=container / "segments")
    db = SQLite(path=folder / "graph.sqlite", edge_attrs={"affinity": "float"})
    table = LUT(path=folder / "table.npz")
    block = Coordinate(parameters["block"])
    tasks = {
        "fragments": ExtractFrags(
            db=db,
            affs_data=affs,
            frags_data=fragments,
            block_size=block,
            context=Coordinate(parameters["fragments_context"]),
            bias=[-0.5] * 3,
            min_seed_distance=parameters["min_seed_distance"],
            num_workers=2,
        ),
        "agglomeration": AffAgglom(
            db=db,
            affs_data=affs,
            frags_data=fragments,
            block_size=block,
            context=Coordinate(parameters["agglomeration_context"]),
            scores={"affinity": NEIGHBORHOOD},
            num_workers=2,
        ),
        "table": GraphMWS(
            db=db,
            lut=table,
            weights={"affinity": (1.0, -0.5)},
            roi=(stored.roi.offset, stored.roi.shape),
        ),
        "segmentation": Relabel(frags_data=fragments, seg_data=segments, lut=table, block_size=block, num_workers=2),
    }
    used = {}
    for name, task in tasks.items():
        before = cpu_seconds()
        task.run_blockwise(multiprocessing=name != "table")
        used[name] = cpu_seconds() - before
    result = segments.array("r")
    print(json.dumps({"seconds": used, "segments": len(np.unique(result[result.roi]))}))


if __name__ == "__main__":
    main()
