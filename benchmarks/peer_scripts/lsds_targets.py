"""The side of `lsds` in `benchmarks lsd`; run by its own Python, which has nothing of ours."""

import json
import sys
import time
from pathlib import Path

import numpy as np
from lsd.train.local_shape_descriptor import get_local_shape_descriptors

folder = Path(sys.argv[1])
parameters = json.loads((folder / "parameters.json").read_text())
labels = np.load(folder / "labels.npy")
start = time.perf_counter()
descriptors = get_local_shape_descriptors(
    labels,
    sigma=(parameters["sigma"],) * 3,
    voxel_size=[int(size) for size in parameters["voxel_size"]],
    downsample=parameters["downsample"],
)
seconds = time.perf_counter() - start
np.save(folder / "descriptors.npy", descriptors)
print(json.dumps({"seconds": seconds}))
