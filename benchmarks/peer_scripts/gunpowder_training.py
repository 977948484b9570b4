"""The reference's training in `benchmarks training`: a gunpowder pipeline; run by its own Python.

Written after the description of the published trainings: two elastic steps, mirror and transpose, intensity, boundaries
grown by a voxel, descriptors of every second voxel, affinities with balanced weights, batches prepared by processes;
MTLSD in fp32. The network has the layers of ours, in plain torch.
"""

import json
import math
import sys
import time
from pathlib import Path

import gunpowder as gp
import numpy as np
import torch
import zarr
from lsd.train.gp import AddLocalShapeDescriptor
from reference_network import Network

folder = Path(sys.argv[1])
parameters = json.loads((folder / "parameters.json").read_text())


def loss(descriptors, true_descriptors, descriptor_weights, affinities, true_affinities, affinity_weights):
    def weighted(prediction: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        scaled = weights * (prediction - target) ** 2
        return scaled[weights > 0].mean() if (weights > 0).any() else scaled.mean()

    return weighted(descriptors, true_descriptors, descriptor_weights) + weighted(
        affinities, true_affinities, affinity_weights
    )


class Stopwatch(gp.BatchFilter):
    """How long its downstream waits for batches, and when each came."""

    def __init__(self) -> None:
        self.waited: list[float] = []

    def provide(self, request: gp.BatchRequest) -> gp.Batch:
        start = time.perf_counter()
        batch = self.get_upstream_provider().request_batch(request)
        self.waited.append(time.perf_counter() - start)
        return batch


def write_container() -> str:
    """The volume as zarr 2, which gunpowder reads."""
    path = str(folder / "volume.zarr")
    root = zarr.open_group(path, mode="w")
    for name in ("raw", "labels", "mask"):
        values = np.load(folder / f"{name}.npy")
        root.create_dataset(name, data=values, chunks=(64,) * 3)
        root[name].attrs.update(resolution=[int(n) for n in parameters["voxel_size"]], offset=[0, 0, 0])
    return path


voxel_size = gp.Coordinate(parameters["voxel_size"])
raw, labels, mask = gp.ArrayKey("RAW"), gp.ArrayKey("LABELS"), gp.ArrayKey("MASK")
lsds, lsd_weights, lsd_prediction = gp.ArrayKey("LSDS"), gp.ArrayKey("LSD_WEIGHTS"), gp.ArrayKey("LSD_PREDICTION")
affs, affs_mask, affs_weights = gp.ArrayKey("AFFS"), gp.ArrayKey("AFFS_MASK"), gp.ArrayKey("AFFS_WEIGHTS")
affs_prediction = gp.ArrayKey("AFFS_PREDICTION")

request = gp.BatchRequest()
output = gp.Coordinate(parameters["crop"]) * voxel_size
request.add(raw, gp.Coordinate(parameters["raw_shape"]) * voxel_size)
for key in (labels, mask, lsds, lsd_weights, affs, affs_mask, affs_weights):
    request.add(key, output)

# what rotation by any angle and the window of the descriptors may ask for beyond the volume
half = math.ceil(max(output + gp.Coordinate((6 * parameters["sigma"],) * 3)) * math.sqrt(3) / 2 / voxel_size[0])
padding = gp.Coordinate((half,) * 3) * voxel_size
stopwatch = Stopwatch()
network = Network(1, parameters["feature_maps"], parameters["growth"], parameters["downsampling"], [10, 3])
pipeline = (
    gp.ZarrSource(
        write_container(),
        {raw: "raw", labels: "labels", mask: "mask"},
        {
            raw: gp.ArraySpec(interpolatable=True),
            labels: gp.ArraySpec(interpolatable=False),
            mask: gp.ArraySpec(interpolatable=False),
        },
    )
    + gp.Normalize(raw)
    + gp.Pad(raw, None)
    + gp.Pad(labels, padding)
    + gp.Pad(mask, padding)
    + gp.RandomLocation(min_masked=0.5, mask=mask)
    + gp.ElasticAugment([40, 40, 40], [0, 0, 0], [0, math.pi / 2], prob_slip=0, prob_shift=0, subsample=8)
    + gp.SimpleAugment()
    + gp.ElasticAugment(
        [40, 40, 40], [2, 2, 2], [0, math.pi / 2], prob_slip=0.01, prob_shift=0.01, max_misalign=1, subsample=8
    )
    + gp.IntensityAugment(raw, 0.9, 1.1, -0.1, 0.1)
    + gp.GrowBoundary(labels, mask, steps=1)
    + AddLocalShapeDescriptor(
        labels, lsds, lsds_mask=lsd_weights, sigma=parameters["sigma"], downsample=parameters["downsample"]
    )
    + gp.AddAffinities(
        parameters["neighborhood"], labels, affs, labels_mask=mask, affinities_mask=affs_mask, dtype=np.float32
    )
    + gp.BalanceLabels(affs, affs_weights, affs_mask)
    + gp.IntensityScaleShift(raw, 2, -1)
    + gp.Unsqueeze([raw])
    + gp.Stack(1)
    + gp.PreCache(cache_size=40, num_workers=parameters["workers"])
    + stopwatch
    + gp.torch.Train(
        network,
        loss,
        torch.optim.Adam(network.parameters(), lr=0.5e-4, betas=(0.95, 0.999)),
        inputs={0: raw},
        loss_inputs={0: lsd_prediction, 1: lsds, 2: lsd_weights, 3: affs_prediction, 4: affs, 5: affs_weights},
        outputs={0: lsd_prediction, 1: affs_prediction},
        checkpoint_basename=str(folder / "reference"),
        save_every=10**9,
    )
)

done, losses = [], []
with gp.build(pipeline):
    for _ in range(parameters["warm_up"] + parameters["steps"]):
        losses.append(float(pipeline.request_batch(request).loss))
        done.append(time.perf_counter())
first = parameters["warm_up"]
seconds = done[-1] - done[first - 1]
print(
    json.dumps(
        {
            "rate": (len(done) - first) / seconds,
            "idle": sum(stopwatch.waited[first:]) / seconds,
            "parameters": sum(weight.numel() for weight in network.parameters()),
            "loss": losses[-1],
        }
    )
)
