"""GPU-hours per teravoxel: the reference's networks at full size, on a volume from disk, by the commands of users.

Two networks of 12 feature maps, six times as many at each of three further levels (263.7 million weights each, here
random ones), predict 2048³ voxels of made tissue. `neuroloom predict` is stopped after some minutes if it is not done:
blocks that are done count. Reading and writing are included, as is whatever the first block has to wait for.

Also: operations per second against those of the largest convolutions called back to back, on one device; and speed and
memory against what `predict --plan` says. Without a GPU only `--quick` runs, on the processor, with small networks.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.prediction import ceiling
from benchmarks.results import Disagreement, Result
from benchmarks.volumes import VOXEL_SIZE, Options
from neuroloom.chain import Chain, open_project
from neuroloom.errors import UserError
from neuroloom.networks.architecture import UNetParameters
from neuroloom.networks.checkpoint import Checkpoint, save_checkpoint
from neuroloom.networks.metadata import Metadata
from neuroloom.networks.precision import choose_device, devices
from neuroloom.networks.setups import NEIGHBORHOOD, network_parameters
from neuroloom.networks.unet import UNet
from neuroloom.prediction.measuring import Measured
from neuroloom.prediction.tiles import tiles_of
from neuroloom.project import Network
from neuroloom.volume import create_volume
from neuroloom.volume.sample import SampleParameters, make_block

NETWORK = Network(feature_maps=12, growth=6, downsampling=((2, 2, 2), (2, 2, 2), (3, 3, 3)))
SMALL = Network(feature_maps=4, growth=2, downsampling=((2, 2, 2), (2, 2, 2)))

SIDE = 2048
"""Voxels of the volume along an axis; 8.6 GB, and three times as much for affinities, in `TMPDIR`."""

REPEATED = 256
"""Voxels along an axis of the piece of tissue that the volume is made of."""

SECONDS = 240
"""After which prediction is stopped."""

GPU_HOURS = 5.0
"""Per teravoxel: the goal."""


def run(options: Options) -> list[Result]:
    """Predict as much of the volume as there is time for.

    Raises:
        UserError: There is no GPU.
        Disagreement: Not one block was done in the time.
    """
    device = choose_device()
    if device.type != "cuda" and not options.quick:
        raise UserError("This needs a GPU. With --quick, small networks run on the processor.")
    side, network = (64, SMALL) if options.quick else (SIDE, NETWORK)
    networks = [network_parameters("lsd", network, ()), network_parameters("acrlsd", network, NEIGHBORHOOD)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_pair(folder / "weights.ckpt", networks)
        make_volume(folder / "tissue.zarr", side, min(side, REPEATED))
        neuroloom("init", folder / "project", "--model", folder / "weights.ckpt", "--predict", folder / "tissue.zarr")
        (plan,) = json.loads(neuroloom("predict", "--plan", "--json", "--project", folder / "project"))
        print(f"{side}³ voxels of made tissue; {json.dumps(plan)}", file=sys.stderr, flush=True)
        measured = predict(folder / "project")
        busy = gpu_busy(folder / "project")
    if not measured.voxels:
        raise Disagreement(f"no block was done in {SECONDS} s")
    many = len(devices("auto"))
    rate = measured.voxels / measured.took
    print(
        f"{plan['device']}, {many} of them, in {plan['precision']}; blocks of {plan['block']}, {measured}"
        + ("" if busy is None else f"; computing for {busy:.0%} of the time")
    )
    operations = plan["operations"] / side**3 * rate / many / 1e9
    most = ceiling(networks, plan["block"], device)
    return [
        Result("prediction, a device", (rate / many / 1e6,), (1e6 / GPU_HOURS / 3600,), "Mvoxel/s", False),
        Result("device-hours per teravoxel", (many * 1e12 / rate / 3600,), (GPU_HOURS,), "h"),
        Result("share of the convolutions' rate", (operations,), (most,), "GFLOP/s", False),
        Result("speed, against the plan", (rate / 1e6,), (plan["voxels_per_second"] / 1e6,), "Mvoxel/s", False),
        Result("memory, against the plan", (measured.memory / 1e9,), (plan["memory"] / 1e9,), "GB"),
    ]


def save_pair(path: Path, networks: list[UNetParameters]) -> None:
    """A checkpoint of two networks with random weights: how fast they are does not depend on them."""
    lsd = UNet(networks[0])
    about: dict[str, Any] = {"voxel_size": VOXEL_SIZE, "sigma_nm": 80.0, "iteration": 0}
    first = Checkpoint(Metadata(setup="lsd", network=networks[0], **about), lsd, lsd=None, sha256="0" * 64)
    second = Metadata(setup="acrlsd", network=networks[1], neighborhood=NEIGHBORHOOD, lsd_sha256=first.sha256, **about)
    save_checkpoint(path, second, UNet(networks[1]).state_dict(), first, torch.bfloat16)


def make_volume(path: Path, side: int, repeated: int) -> None:
    """A volume of a piece of tissue, many times."""
    piece, _ = make_block(SampleParameters(seed=1), (0, 0, 0), (repeated, repeated, repeated))
    volume = create_volume(path, "volumes/raw", (side, side, side), piece.dtype, VOXEL_SIZE)

    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda tile: volume.write(tile[0], piece), tiles_of(volume.shape, piece.shape)))


def neuroloom(*words: object) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "neuroloom.cli", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def predict(project: Path) -> Measured:
    """Run `neuroloom predict` for `SECONDS` at most, and say what blocks that are done took."""
    command = [sys.executable, "-m", "neuroloom.cli", "predict", "--project", str(project)]
    with subprocess.Popen(command, stdout=2) as running:  # where messages go
        try:
            if running.wait(SECONDS):
                raise subprocess.CalledProcessError(running.returncode, command)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGINT)
            running.wait()
    chain = Chain(open_project(project))
    stage = chain.predict(chain.volumes[0])
    assert stage is not None
    return stage.measured


def gpu_busy(project: Path) -> float | None:
    """The share of a device's hours in which it computed, or None where nobody tells."""
    (step,) = (
        step
        for step in json.loads(neuroloom("status", "--json", "--project", project))["steps"]
        if step["name"].startswith("predict")
    )
    account = (step["blocks"] or {}).get("account")
    if not account or not account["gpu_hours"] or account["gpu_busy_hours"] is None:
        return None
    return float(account["gpu_busy_hours"] / account["gpu_hours"])
