"""What a prediction will take: by arithmetic and the rate of a short sweep, or as measured on a piece of the volume."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from neuroloom.chain import estimates
from neuroloom.chain.artifacts import Chain
from neuroloom.chain.weights import given_ensemble, trained_voxel_size
from neuroloom.errors import UserError
from neuroloom.files import write_text
from neuroloom.models.foreign import is_foreign
from neuroloom.networks.architecture import parameter_count
from neuroloom.networks.precision import Precision, choose_device, choose_precision, devices, number_format
from neuroloom.prediction import Predict
from neuroloom.prediction.measuring import Stopwatch, most_memory
from neuroloom.prediction.planning import (
    MEMORY,
    block_bytes,
    block_operations,
    choose_tile,
    memory_for_tiles,
    volume_operations,
)
from neuroloom.prediction.tiles import common_factor, round_up
from neuroloom.project import RawVolume
from neuroloom.volume import create_volume
from neuroloom.volume.array import Triple

if TYPE_CHECKING:
    import torch

SECONDS = 60.0
"""That a calibration computes, about; with what comes before and after, two minutes at most."""


class PredictionPlan(BaseModel):
    """How a volume will be predicted on this machine.

    Attributes:
        volume: Its name.
        device: Where networks run.
        precision: What convolutions compute in.
        block: Voxels that are predicted and written at once, z y x.
        blocks: How many.
        tile: Voxels that networks sweep through at once, z y x.
        operations: Floating-point operations of the whole volume.
        memory: Bytes that the process, or the GPU, needs.
        voxels_per_second: Of the volume.
        calibrated: Whether that was measured, or follows from a short sweep's rate, or a convolution's.
    """

    model_config = ConfigDict(frozen=True)

    volume: str
    device: str
    precision: Precision
    block: Triple
    blocks: int
    tile: Triple
    operations: float
    memory: float
    voxels_per_second: float
    calibrated: bool

    def __str__(self) -> str:
        block, tile = (" x ".join(map(str, extent)) for extent in (self.block, self.tile))
        how = "as measured" if self.calibrated else "roughly; `neuroloom predict --calibrate` measures it"
        return (
            f"{self.blocks} block{'s' * (self.blocks != 1)} of {block} voxels, computed in tiles of {tile}, in "
            f"{self.precision} on {self.device}: {self.memory / 1e9:.2g} GB of memory, "
            f"{self.voxels_per_second / 1e6:.2g} Mvoxel/s ({how})"
        )


class Calibration(BaseModel):
    """What predicting a piece of a volume took.

    Attributes:
        weights: Contents of the checkpoints.
        device: Where networks ran.
        precision: What convolutions computed in.
        crop: Voxels that were predicted, z y x.
        tile: Voxels that networks swept through at once.
        operations_per_second: Of the networks, all layers included.
        voxels_per_second: Of a large volume, as it is cut on this machine.
        memory: Bytes that the process, or its GPU, took at most for the crop.
        memory_planned: What was expected for the crop.
        seconds: Reading, computing and writing the crop.
        bytes_per_voxel: Of affinities, on disk.
    """

    model_config = ConfigDict(frozen=True)

    weights: tuple[str, ...]
    device: str
    precision: Precision
    crop: Triple
    tile: Triple
    operations_per_second: float
    voxels_per_second: float
    memory: int
    memory_planned: float
    seconds: dict[str, float]
    bytes_per_voxel: float

    def __str__(self) -> str:
        crop, tile = (" x ".join(map(str, extent)) for extent in (self.crop, self.tile))
        took = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in self.seconds.items())
        return (
            f"{crop} voxels in tiles of {tile}, in {self.precision} on {self.device}: {took}; "
            f"{self.operations_per_second / 1e9:.3g} GFLOP/s, {self.memory / 1e9:.2g} GB of memory "
            f"({self.memory_planned / 1e9:.2g} were planned), {self.bytes_per_voxel:.2g} bytes per voxel on disk. "
            f"The whole volume: {self.voxels_per_second / 1e6:.2g} Mvoxel/s."
        )


def plan_prediction(chain: Chain, volume: RawVolume) -> PredictionPlan:
    """Say how a volume will be predicted.

    Args:
        chain: The project's.
        volume: One of its volumes.

    Raises:
        UserError: Its network is not trained.
    """
    stage = _stage(chain, volume)
    device, precision = _where(chain)
    memory = memory_for_tiles(device, stage.memory_gb)
    tile, needed = _tile_and_memory(chain, stage, _largest_block(stage), memory)
    operations = seconds = 0.0
    known = read_calibration(chain)
    for networks in chain.members:
        counts = volume_operations(
            networks,
            stage.shape,
            stage.block_shape,
            memory,
            number_format(precision),
            lambda cut: _seen(chain, stage, cut),
        )
        operations += stage.mirrors * sum(counts)
        if known is None:
            for network, count in zip(networks, counts, strict=True):
                seconds += stage.mirrors * estimates.sweeping(chain.parameters, network, count)
    if known is not None:
        seconds = operations / known.operations_per_second
    elif device.type == "cpu":
        seconds += needed / estimates.measure_first_use()
    seconds /= _side_by_side(stage)
    return PredictionPlan(
        volume=volume.name,
        device=device_name(device),
        precision=precision,
        block=stage.block_shape,
        blocks=stage.block_count,
        tile=tile,
        operations=operations,
        memory=needed,
        voxels_per_second=math.prod(stage.shape) / seconds,
        calibrated=known is not None,
    )


def calibrate(chain: Chain, volume: RawVolume) -> Calibration:
    """Predict a piece from the middle of a volume, and keep what it took: plans and estimates use it.

    Args:
        chain: The project's.
        volume: One of its volumes.

    Raises:
        UserError: Its network is not trained, or does not fit the volume.
    """
    plan, stage = plan_prediction(chain, volume), _stage(chain, volume)
    device, precision = _where(chain)
    memory = memory_for_tiles(device, stage.memory_gb)
    rate = plan.operations * plan.voxels_per_second / math.prod(stage.shape)
    crop = _crop(chain, stage, rate)
    z, y, x = (min(size, extent) for size, extent in zip(stage.shape, crop, strict=True))
    shape = z, y, x
    z, y, x = ((size - n) // 2 for size, n in zip(stage.shape, shape, strict=True))
    tile, planned = _tile_and_memory(chain, stage, crop, memory)
    stopwatch = Stopwatch()
    affinities = stage.affinities((z, y, x), shape, stopwatch)
    with tempfile.TemporaryDirectory(prefix="calibration-", dir=chain.project.folder) as folder:
        output = create_volume(Path(folder) / "v.zarr", "a", affinities.shape, affinities.dtype, (1, 1, 1))
        output.write((0, 0, 0), affinities)
        stopwatch.lap("writing")
        stored = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    operations = _operations(chain, stage, shape, memory)
    rate = operations / sum(stopwatch.laps.values())
    found = Calibration(
        weights=_contents(chain),
        device=device_name(device),
        precision=precision,
        crop=shape,
        tile=tile,
        operations_per_second=rate,
        voxels_per_second=rate / plan.operations * math.prod(stage.shape) * _side_by_side(stage),
        memory=most_memory(device),
        memory_planned=planned,
        seconds=stopwatch.laps,
        bytes_per_voxel=stored / math.prod(shape),
    )
    write_text(calibration_file(chain), found.model_dump_json(indent=1))
    return found


def read_calibration(chain: Chain) -> Calibration | None:
    """What was measured with these weights on such a device, or None."""
    try:
        known = Calibration.model_validate_json(calibration_file(chain).read_text())
    except (OSError, ValidationError):
        return None
    device, precision = _where(chain)
    now = (_contents(chain), device_name(device), precision)
    return known if (known.weights, known.device, known.precision) == now else None


def _contents(chain: Chain) -> tuple[str, ...]:
    """Of all checkpoints that predict, as far as they are there."""
    weights = chain.weights()
    return (*([weights[1]] if weights else []), *(other.sha256 for other in given_ensemble(chain.project)))


def device_name(device: torch.device) -> str:
    """What a device is: as much as decides on how fast it is."""
    import torch

    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{torch.get_num_threads()} cores"


def calibration_file(chain: Chain) -> Path:
    """Where the last calibration is kept."""
    return chain.project.folder / "calibration.json"


def _stage(chain: Chain, volume: RawVolume) -> Predict:
    stage = chain.predict(volume)
    if stage is None:
        raise UserError("Prediction needs a trained network. Run `neuroloom train`, or `neuroloom run` for everything.")
    if not chain.members:
        others = [file for file in (stage.checkpoint, *stage.ensemble) if is_foreign(file)]
        raise UserError(f"How much {others[0]} computes is not known, so its predictions cannot be planned.")
    return stage


def _where(chain: Chain) -> tuple[torch.device, Precision]:
    device = choose_device(chain.parameters.resources.device)
    return device, choose_precision(device, chain.parameters.resources.precision)


def _side_by_side(stage: Predict) -> int:
    """How many devices predict at the same time."""
    return min(stage.block_count, len(devices(stage.device)))


def _largest_block(stage: Predict) -> Triple:
    """Extent of the first block: those that the project asks for may be larger than the volume."""
    z, y, x = map(min, stage.block_shape, stage.shape)
    return z, y, x


def _seen(chain: Chain, stage: Predict, shape: Triple) -> Triple:
    """Extent in the networks' voxels of what they predict for a region."""
    resampling = stage.resampling(trained_voxel_size(chain.project))
    factor = common_factor([network for member in chain.members for network in member])
    return shape if resampling is None else resampling.region((0, 0, 0), shape, factor).shape


def _operations(chain: Chain, stage: Predict, shape: Triple, memory: float = MEMORY) -> int:
    """Of predicting a region."""
    seen, dtype = _seen(chain, stage, shape), number_format(_where(chain)[1])
    return stage.mirrors * sum(sum(block_operations(member, seen, memory, dtype)) for member in chain.members)


def _tile_and_memory(chain: Chain, stage: Predict, block: Triple, memory: float) -> tuple[Triple, float]:
    """What the first networks see at once, and bytes in all where most are needed."""
    import torch

    device, precision = _where(chain)
    seen, like = _seen(chain, stage, block), torch.empty(0, dtype=number_format(precision), device=device)
    tiles, needed = [], []
    for networks in chain.members:
        tiles.append(choose_tile(networks, round_up(seen, common_factor(networks)), memory, like.dtype))
        needed.append(block_bytes(networks, seen, tiles[-1], stage.mirrors, like))
    beside = 0.0
    if len(chain.members) > 1:  # weights of all, and a sum
        parts = [network for member in chain.members[1:] for network in member]
        beside += like.itemsize * sum(map(parameter_count, parts)) + 6 * math.prod(seen)
    if seen != block:
        beside += 3 * math.prod(block)
    return tiles[0], max(needed) + beside


def _crop(chain: Chain, stage: Predict, rate: float) -> Triple:
    """As much of a block as takes a minute: less deep, since a sweep is as fast then, and narrow if it must be."""
    factor = common_factor(chain.networks)
    crop = round_up(_largest_block(stage), factor)
    while True:
        seconds = _operations(chain, stage, crop) / rate
        if seconds <= SECONDS or crop == factor:
            return crop
        z, y, x = crop
        smaller = (z // 2, y, x) if z > factor[0] else (z, y // 2, x // 2)
        crop = round_up(smaller, factor)
