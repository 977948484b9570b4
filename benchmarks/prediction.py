"""Prediction: ours against the reference's way, and against the rate of the network's own convolutions.

The reference predicts with gunpowder: descriptors of the whole volume in tiles, written to zarr, read again for the
affinities, fp32, in tiles of about 260³. Both predict the same volume with the same weights. Affinities have to agree
where neither sees beyond the volume, and the reference no second tile: its tiles begin anywhere in the networks' cells,
and borders between them show.

The ceiling is the rate of the largest convolutions of both networks (those with half of the operations), called one
after the other on values that are there already. Ours includes reading, all other layers, and writing.

Memory is that of the process after a hundred regions, and after five.

All this is about processors. Where there is a GPU, it is measured instead, as `teravoxel` says.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch

from benchmarks.peers import GUNPOWDER, ask, environment
from benchmarks.results import Disagreement, Result, alternate
from benchmarks.volumes import VOXEL_SIZE, Options, tissue
from neuroloom.blockwise import Source
from neuroloom.models import find_weights
from neuroloom.networks.architecture import UNetParameters, context, flop, input_shape, output_shape
from neuroloom.networks.checkpoint import load_checkpoint
from neuroloom.networks.precision import choose_precision, number_format
from neuroloom.networks.unet import UNet
from neuroloom.prediction import Predict, default_block
from neuroloom.prediction.planning import block_operations
from neuroloom.prediction.sweep import planes_at_once
from neuroloom.prediction.tiles import extents
from neuroloom.volume import create_volume
from neuroloom.volume.array import Triple

DIFFERENT_AT_MOST = {"fp32": 0.001, "bf16": 0.01, "fp16": 0.01}
"""Share of affinities that may differ by more than two grey values of 255, by what ours is computed in."""

TILE = 260
"""Voxels of the reference's tiles along an axis, about."""

REGIONS = 100
"""After which memory is compared."""


def run(options: Options) -> list[Result]:
    """Compare voxels per second, with the peer and with the ceiling, and memory; on a GPU, see `teravoxel`.

    Raises:
        Disagreement: Affinities differ by more than the bound above.
    """
    if torch.cuda.is_available():
        from benchmarks import teravoxel

        return teravoxel.run(options)
    torch_version = torch.__version__.split("+")[0]
    python = environment("gunpowder", (*GUNPOWDER, f"torch=={torch_version}"))
    what, raw, _ = tissue(options, "fib25-train", 140 if options.quick else (500, 250, 500))
    weights = find_weights("fibsem-fly-8nm-small" if options.quick else "fibsem-fly-8nm")
    loaded = load_checkpoint(weights.path)
    assert loaded.lsd is not None
    parts, networks = (loaded.lsd, loaded), [part.network for part in weights.networks]
    shape: Triple = (raw.shape[0], raw.shape[1], raw.shape[2])
    precision = choose_precision(torch.device("cpu"), "auto")
    tile = output_shape(networks[0], input_shape(networks[0], [min(size, TILE) for size in shape]))
    print(
        f"{what}, {weights.path.parent.name}, ours in {precision}, the reference in fp32 in tiles of "
        f"{' x '.join(map(str, tile))}, {torch.get_num_threads()} threads"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        np.save(folder / "raw.npy", raw)
        for name, part in zip(("descriptors", "affinities"), parts, strict=True):
            values = [weight.detach().numpy() for weight in part.network.parameters()]
            np.savez(folder / f"{name}.npz", **{str(number): value for number, value in enumerate(values)})
        stage = stage_of(folder, raw, weights.path, weights.sha256, default_block(shape, networks))
        operations = sum(block_operations(networks, stage.block_shape)) * stage.block_count
        reached: list[float] = []

        def ours() -> float:
            start = time.perf_counter()
            for block in stage.blocks():
                stage.process(block)
            seconds = time.perf_counter() - start
            reached.append(operations / seconds / 1e9)
            print(f"ours: {seconds:.1f} s, {reached[-1]:.0f} GFLOP/s", file=sys.stderr, flush=True)
            return math.prod(shape) / seconds / 1e6

        def peer() -> float:
            settings = {
                name: {
                    "inputs": network.in_channels,
                    "outputs": network.out_channels,
                    "feature_maps": network.feature_maps,
                    "growth": network.growth,
                    "downsampling": network.downsampling,
                    "input_shape": input_shape(network, tile),
                    "output_shape": tile,
                    "region": [max(n, size) for n, size in zip(tile, shape, strict=True)],
                }
                for name, network in zip(("descriptors", "affinities"), networks, strict=True)
            }
            script = Path(__file__).parent / "peer_scripts" / "gunpowder_prediction.py"
            answer = ask(python, script, folder, voxel_size=[int(size) for size in VOXEL_SIZE], **settings)
            print(f"reference: {answer['seconds']:.1f} s", file=sys.stderr, flush=True)
            return math.prod(shape) / float(answer["seconds"]) / 1e6

        ours()  # warm
        reached.clear()
        mine, theirs = alternate(ours, peer, 1 if options.quick else 3)
        bound = DIFFERENT_AT_MOST[precision]
        compare(stage.output.open().read(), np.load(folder / "affinities.npy"), networks, tile, bound)
        reached.clear()
        device = torch.device("cpu")
        _, most = alternate(ours, lambda: ceiling(networks, stage.block_shape, device), 1 if options.quick else 3)
        memory = memory_of_regions(folder, raw, 10 if options.quick else REGIONS)
    return [
        Result("prediction", tuple(mine), tuple(theirs), "Mvoxel/s", less_is_better=False),
        Result("share of the convolutions' rate", tuple(reached), tuple(most), "GFLOP/s", less_is_better=False),
        Result(f"memory after {len(memory)} regions, after 5", (memory[-1],), (memory[4],), "GB"),
    ]


def stage_of(folder: Path, raw: np.ndarray, checkpoint: Path, sha256: str, block: Triple) -> Predict:
    """The stage that predicts a volume, with its output made."""
    container = folder / f"ours-{len(list(folder.iterdir()))}.zarr"
    create_volume(container, "raw", raw.shape, raw.dtype, VOXEL_SIZE).write((0, 0, 0), raw)
    stage = Predict(
        folder=container.with_suffix(""),
        shape=(raw.shape[0], raw.shape[1], raw.shape[2]),
        block_shape=block,
        raw=Source(path=str(container), dataset="raw", fingerprint="benchmark"),
        checkpoint=checkpoint,
        checkpoint_sha256=sha256,
        device="cpu",
    )
    stage.prepare()
    return stage


def compare(ours: np.ndarray, peer: np.ndarray, networks: list[UNetParameters], tile: Triple, bound: float) -> None:
    """Print how far affinities are from each other where no network saw beyond the volume, or the first tile.

    Args:
        ours: `(c, z, y, x)` uint8.
        peer: Likewise.
        networks: In the order they run.
        tile: Of the peer, in voxels.
        bound: Share of affinities that may differ by more than two grey values.

    Raises:
        Disagreement: Too many are too far.
    """
    rim = max(sum(along) // 2 for along in zip(*map(context, networks), strict=True))
    inner = (slice(None), *(slice(rim, min(ends) - rim) for ends in zip(ours.shape[1:], tile, strict=True)))
    difference = np.abs(ours[inner].astype(int) - peer[inner])
    far = float((difference > 2).mean())
    print(f"affinities differ by {difference.max()} of 255 at most; {far:.2%} of {difference.size:,} by more than two")
    if difference.size == 0 or far > bound:
        raise Disagreement(f"{far:.2%} of affinities differ by more than two grey values")


def ceiling(networks: list[UNetParameters], block: Triple, device: torch.device) -> float:
    """Operations per second, in GFLOP/s, of the largest convolutions, both networks weighted as they are used."""
    total, seconds = 0, 0.0
    for network, seen in zip(networks, extents(networks, block), strict=True):
        operations = flop(network, seen)
        total += operations
        seconds += operations / largest_convolutions(network, seen, device)
    return total / seconds / 1e9


def largest_convolutions(network: UNetParameters, shape: Triple, device: torch.device) -> float:
    """Operations per second of the convolutions that have half of a network's operations."""
    dtype = number_format(choose_precision(device, "auto"))
    slab = input_shape(network, (planes_at_once(shape), *(n - 64 for n in shape[1:])))
    calls: list[tuple[torch.nn.Conv3d, torch.Size, int]] = []
    with torch.device("meta"):
        twin = UNet(network)
    for layer in twin.modules():
        if isinstance(layer, torch.nn.Conv3d):
            layer.register_forward_hook(
                lambda layer, inputs, output: calls.append(
                    (layer, inputs[0].shape, 2 * layer.weight.numel() * output[0, 0].numel())
                )
            )
    with torch.inference_mode():
        twin(torch.empty(1, network.in_channels, *slab, device="meta"))
        calls.sort(key=lambda call: -call[2])
        half = sum(call[2] for call in calls) / 2
        done, seconds = 0, 0.0
        for layer, size, operations in calls:
            values, weight = (
                torch.rand(extent, device=device).to(dtype).contiguous(memory_format=torch.channels_last_3d)
                for extent in (size, layer.weight.shape)
            )
            times = []
            for _ in range(4):
                wait_for(device)
                start = time.perf_counter()
                torch.nn.functional.conv3d(values, weight)
                wait_for(device)
                times.append(time.perf_counter() - start)
            done += operations
            seconds += min(times)
            if done >= half:
                break
    return done / seconds


def wait_for(device: torch.device) -> None:
    """Until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_of_regions(folder: Path, raw: np.ndarray, regions: int) -> list[float]:
    """Memory of this process, in GB, after every region; they are small."""
    weights = find_weights("fibsem-fly-8nm-small")
    volume = np.resize(raw, (40 * regions, 40, 40))
    stage = stage_of(folder, volume, weights.path, weights.sha256, (40, 40, 40))
    found = []
    for block in stage.blocks():
        stage.process(block)
        found.append(psutil.Process().memory_info().rss / 1e9)
    return found
