"""Pipelines with our node and with that of `lsds` on the same labels; run in an environment of its own."""

import json
import sys
import traceback
from pathlib import Path

parameters = json.loads((Path(sys.argv[1]) / "parameters.json").read_text())
sys.path.insert(0, parameters["source"])

import gunpowder as gp  # noqa: E402
import numpy as np  # noqa: E402
from lsd.train.gp import AddLocalShapeDescriptor as Theirs  # noqa: E402

from neuroloom.exchange.gunpowder_node import AddLocalShapeDescriptor as Ours  # noqa: E402

assert "torch" not in sys.modules
assert not any(name.startswith("neuroloom.volume") for name in sys.modules)

LABELS, LSDS, LSDS_MASK = gp.ArrayKey("LABELS"), gp.ArrayKey("LSDS"), gp.ArrayKey("LSDS_MASK")
MASK, UNLABELLED = gp.ArrayKey("MASK"), gp.ArrayKey("UNLABELLED")
KEYS = {"labels_mask": MASK, "unlabelled": UNLABELLED}


class Source(gp.BatchProvider):
    """An array in memory."""

    def __init__(self, key: gp.ArrayKey, data: np.ndarray, voxel_size: gp.Coordinate) -> None:
        roi = gp.Roi((0,) * data.ndim, gp.Coordinate(data.shape) * voxel_size)
        self.key, self.array = key, gp.Array(data, gp.ArraySpec(roi, voxel_size))

    def setup(self) -> None:
        self.provides(self.key, self.array.spec.copy())

    def provide(self, request: gp.BatchRequest) -> gp.Batch:
        batch = gp.Batch()
        batch[self.key] = self.array.crop(request[self.key].roi)
        return batch


def run(node: type, voxel_size: tuple[int, ...], masks: list[str], margin: int | None, **arguments: object) -> list:
    random = np.random.default_rng(0)
    voxel_size = gp.Coordinate(voxel_size)
    shape = gp.Coordinate((48,) * len(voxel_size))
    labels = np.kron(random.integers(0, 4, (6,) * len(voxel_size)), np.ones((8,) * len(voxel_size))).astype(np.uint64)
    sources = [Source(LABELS, labels, voxel_size)]
    sources += [Source(KEYS[name], (random.random(shape) < 0.8).astype(np.uint8), voxel_size) for name in masks]
    request = gp.BatchRequest()
    for key in (LSDS, LSDS_MASK):
        request[key] = gp.ArraySpec(gp.Roi(voxel_size * 20, voxel_size * 8))
    if margin is not None:
        request[LABELS] = gp.ArraySpec(gp.Roi(voxel_size * (20 - margin), voxel_size * (8 + 2 * margin)))
    pipeline = tuple(sources) + gp.MergeProvider() if len(sources) > 1 else sources[0]
    pipeline += node(LABELS, LSDS, LSDS_MASK, **{name: KEYS[name] for name in masks}, **arguments)
    with gp.build(pipeline):
        batch = pipeline.request_batch(request)
    if margin is not None:
        assert np.array_equal(batch[LABELS].data, labels[(slice(20 - margin, 28 + margin),) * labels.ndim])
    assert batch[LSDS].spec.roi == batch[LSDS_MASK].spec.roi == request[LSDS].roi
    return [batch[LSDS].data, batch[LSDS_MASK].data]


def refusal(**arguments: object) -> str:
    try:
        run(Ours, (8, 8, 8), [], None, **arguments)
    except Exception:
        return traceback.format_exc()  # gunpowder puts its own words around ours
    return ""


largest = {}
for name, voxel_size, masks, margin, arguments in (
    ("plain", (8, 8, 8), [], 0, {"sigma": 40.0}),
    ("downsampled", (8, 8, 8), [], 0, {"sigma": 32.0, "downsample": 2}),
    ("anisotropic", (16, 8, 8), [], 0, {"sigma": (48.0, 24.0, 24.0)}),
    ("all labels", (8, 8, 8), [], 18, {"sigma": 32.0, "downsample": 2}),
    ("components", (8, 8, 8), [], 0, {"sigma": 40.0, "components": "0129"}),
    ("masked", (8, 8, 8), ["labels_mask"], 0, {"sigma": 40.0}),
    ("unlabelled", (8, 8, 8), ["labels_mask", "unlabelled"], 0, {"sigma": 40.0}),
    ("two axes", (8, 8), [], 0, {"sigma": 40.0}),
):
    ours = run(Ours, voxel_size, masks, margin, **arguments)
    theirs = run(Theirs, voxel_size, masks, margin, **arguments)
    assert [a.shape for a in ours] == [a.shape for a in theirs], name
    assert [a.dtype for a in ours] == [a.dtype for a in theirs], name
    assert np.array_equal(ours[1], theirs[1]), name
    largest[name] = float(np.abs(ours[0] - theirs[0]).max())
sphere = run(Ours, (8, 8, 8), [], None, sigma=40.0, mode="sphere")[0]
print(
    json.dumps(
        {
            "largest": largest,
            "sphere": [list(sphere.shape), float(sphere.min()), float(sphere.max())],
            "sigma": refusal(sigma=-1.0),
            "mode": refusal(mode="cube"),
            "components": refusal(components="90"),
        }
    )
)
