"""The reference's prediction in `benchmarks prediction`: gunpowder's Predict and Scan; run by its own Python.

Written after the description of the published scripts: descriptors of the whole volume are written to zarr as uint8,
then read again, with raw, for the affinities; fp32, tiles of one extent, zeros beyond the volume.
"""

import json
import sys
import time
from pathlib import Path

import gunpowder as gp
import numpy as np
import torch
import zarr
from reference_network import Network

folder = Path(sys.argv[1])
parameters = json.loads((folder / "parameters.json").read_text())
voxel_size = gp.Coordinate(parameters["voxel_size"])
raw, lsds, affs = gp.ArrayKey("RAW"), gp.ArrayKey("LSDS"), gp.ArrayKey("AFFS")


def network(name: str) -> Network:
    """A network of the given size with the given weights."""
    settings = parameters[name]
    made = Network(
        settings["inputs"],
        settings["feature_maps"],
        settings["growth"],
        settings["downsampling"],
        [settings["outputs"]],
    )
    with np.load(folder / f"{name}.npz") as weights, torch.no_grad():
        for number, weight in enumerate(made.parameters()):
            weight.copy_(torch.from_numpy(weights[str(number)]))
    return made.eval()


def write_container() -> str:
    """The volume as zarr 2, which gunpowder reads."""
    path = str(folder / "volume.zarr")
    root = zarr.open_group(path, mode="w")
    root.create_dataset("raw", data=np.load(folder / "raw.npy"), chunks=(64,) * 3)
    root["raw"].attrs.update(resolution=[int(n) for n in voxel_size], offset=[0, 0, 0])
    return path


def predict(name: str, inputs: tuple[gp.ArrayKey, ...], output: gp.ArrayKey) -> None:
    """Run a network over the volume."""
    settings = parameters[name]
    seen, given = (gp.Coordinate(settings[key]) * voxel_size for key in ("input_shape", "output_shape"))
    request = gp.BatchRequest()
    for key in inputs:
        request.add(key, seen)
    request.add(output, given)
    sources = {
        raw: gp.ZarrSource(path, {raw: "raw"}, {raw: gp.ArraySpec(interpolatable=True)})
        + gp.Normalize(raw)
        + gp.Pad(raw, None)
        + gp.IntensityScaleShift(raw, 2, -1)
        + gp.Unsqueeze([raw])
    }
    if lsds in inputs:
        sources[lsds] = (
            gp.ZarrSource(path, {lsds: "lsds"}, {lsds: gp.ArraySpec(interpolatable=True)})
            + gp.Normalize(lsds)
            + gp.Pad(lsds, None)
        )
    chosen = tuple(sources[key] for key in inputs)
    pipeline = (chosen[0] if len(chosen) == 1 else chosen + gp.MergeProvider()) + gp.Stack(1)
    region = gp.Roi((0, 0, 0), gp.Coordinate(settings["region"]) * voxel_size)
    pipeline = (
        pipeline
        + gp.torch.Predict(
            network(name),
            inputs=dict(enumerate(inputs)),
            outputs={0: output},
            array_specs={output: gp.ArraySpec(roi=region, voxel_size=voxel_size)},
            device="cpu",
        )
        + gp.Squeeze([output])
        + gp.IntensityScaleShift(output, 255, 0.5)
        + gp.ZarrWrite(
            {output: str(output).lower()},
            output_dir=str(folder),
            output_filename="volume.zarr",
            dataset_dtypes={output: np.uint8},
        )
        + gp.Scan(request)
    )
    with gp.build(pipeline):
        pipeline.request_batch(gp.BatchRequest())


path = write_container()
torch.set_grad_enabled(False)
start = time.perf_counter()
predict("descriptors", (raw,), lsds)
predict("affinities", (raw, lsds), affs)
seconds = time.perf_counter() - start
size = [slice(0, n) for n in np.load(folder / "raw.npy", mmap_mode="r").shape]
np.save(folder / "affinities.npy", zarr.open(path, mode="r")["affs"][(slice(None), *size)])
print(json.dumps({"seconds": seconds}))
