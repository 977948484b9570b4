"""Roughly how long steps take on this machine: operations of the networks over a measured rate, and known rates.

Networks: 2 operations per multiply-add, forward for prediction; a training step takes as long as `PASSES` of them. The
machine's rate is that of one convolution of the size that dominates, measured once per process in about a second.
"""

from __future__ import annotations

import math
import mmap
import time
from collections.abc import Sequence
from functools import lru_cache

from neuroloom.chain.networks import geometry, setups_to_train
from neuroloom.chain.scoring import MERGE_FUNCTIONS
from neuroloom.chain.weights import lsd_geometry
from neuroloom.cores import usable_cores
from neuroloom.networks import architecture
from neuroloom.networks.architecture import UNetParameters
from neuroloom.networks.precision import autocast, choose_device, choose_precision
from neuroloom.networks.setups import SETUPS
from neuroloom.prediction.planning import default_block, volume_operations
from neuroloom.project import Parameters, Project
from neuroloom.volume.array import Triple

CORE_SECONDS_PER_MEGAVOXEL = {"fragments": 0.25, "agglomerate": 0.3, "evaluate": 0.15, "segment": 0.05}
"""Measured on one core of a 2.6 GHz server processor, reading and writing included."""

SECONDS_PER_STAGE = 5.0
"""Starting workers and compiling kernels."""

EFFICIENCY = 0.85
"""Share of the convolutions' rate that a whole network's forward pass reaches; far less with matrix instructions."""

PIECE_SECONDS = 3.0
"""That sweeping once through a small piece may take a processor; else plans rest on the rate of a convolution."""

PASSES = 3.7
"""Forward passes that take as long as one training step, which has three times the operations and updates weights."""


def training(project: Project, setup: str) -> float:
    """Seconds for all steps of a setup.

    Args:
        project: The project.
        setup: A key of `SETUPS`.
    """
    length = project.parameters.training.length(setup)
    seconds = forward(project.parameters, geometry(project.parameters, setup), step_operations(project, setup))
    return SECONDS_PER_STAGE + length.iterations * seconds


def forward(parameters: Parameters, network: UNetParameters, operations: float) -> float:
    """Seconds for operations of a network's forward pass.

    Args:
        parameters: The project; its device and precision count.
        network: The network.
        operations: How many.
    """
    return operations / (EFFICIENCY * _rate(parameters, network.feature_maps))


def sweeping(parameters: Parameters, network: UNetParameters, operations: float) -> float:
    """Seconds for operations of a network in prediction: by a sweep through a small piece, where that is quick.

    Args:
        parameters: The project; its device and precision count.
        network: The network.
        operations: How many.
    """
    from neuroloom.prediction.rate import piece_operations, sweep_rate  # runs networks

    device = choose_device(parameters.resources.device)
    if device.type == "cpu" and forward(parameters, network, piece_operations(network)) > PIECE_SECONDS:
        return forward(parameters, network, operations)
    return operations / sweep_rate(network, choose_precision(device, parameters.resources.precision), device)


def scoring(parameters: Parameters, networks: Sequence[UNetParameters], shapes: Sequence[Triple]) -> float:
    """Seconds for all scores of a training by the whole chain.

    Args:
        parameters: The project.
        networks: The networks that run one after the other.
        shapes: Extents of the scored pieces in voxels.
    """
    every, steps = parameters.training.score_every, parameters.training.affinities.iterations
    if every == 0:
        return 0.0
    alone = parameters.prediction.model_copy(update={"mirrors": 1, "ensemble": ()})  # as networks are while they train
    parameters = parameters.model_copy(update={"prediction": alone})
    names = ("predict", "fragments", *["agglomerate"] * len(MERGE_FUNCTIONS), "evaluate")
    # the training does all that itself: no workers have to start
    once = sum(stage(parameters, name, shape, networks) - SECONDS_PER_STAGE for name in names for shape in shapes)
    return -(-steps // every) * once


def step_operations(project: Project, setup: str) -> float:
    """Operations of forward passes that take as long as a training step in the mean, with the descriptor network's.

    Args:
        project: The project.
        setup: A key of `SETUPS`.
    """
    parameters = project.parameters
    network = geometry(parameters, setup)
    inner = architecture.input_shape(network, parameters.training.crop)
    operations = PASSES * architecture.flop(network, inner)
    if SETUPS[setup].needs_lsd_network:
        lsd = lsd_geometry(project)
        settings = parameters.training
        left_out = settings.descriptors_after if "raw" in SETUPS[setup].inputs else 0.0
        if settings.keep_descriptors:  # once, before the first step
            left_out = 1.0
        operations += (1 - left_out) * architecture.flop(lsd, architecture.input_shape(lsd, inner))
    return operations * parameters.training.batch_size


def baseline_iterations(project: Project) -> int:
    """Steps straight from raw that take as long as the project's trainings together.

    Args:
        project: The project.
    """
    settings = project.parameters.training
    setups = setups_to_train(settings.setup, settings)
    operations = sum(settings.length(setup).iterations * step_operations(project, setup) for setup in setups)
    return round(operations / step_operations(project, "affs"))


def stage(parameters: Parameters, name: str, shape: Triple, networks: Sequence[UNetParameters]) -> float:
    """Seconds for a step over a volume.

    Args:
        parameters: The project.
        name: "predict", "fragments", "agglomerate", "evaluate", "segment".
        shape: The volume's extent in voxels.
        networks: Those that predict, in the order they run.
    """
    voxels = math.prod(shape)
    if name == "predict":
        settings = parameters.prediction
        times = settings.mirrors * (1 + len(settings.ensemble))
        block = settings.block or default_block(shape, networks, times)
        counts = zip(networks, volume_operations(networks, shape, block), strict=True)
        seconds = sum(forward(parameters, network, count) for network, count in counts)
        return SECONDS_PER_STAGE + times * seconds
    workers = 1 if name == "evaluate" else parameters.resources.workers or usable_cores()
    return SECONDS_PER_STAGE + CORE_SECONDS_PER_MEGAVOXEL[name] * voxels / 1e6 / workers


def _rate(parameters: Parameters, maps: int) -> float:
    return measure_rate(parameters.resources.device, parameters.resources.precision, 8 * math.ceil(maps / 8))


@lru_cache
def measure_first_use() -> float:
    """Bytes per second of memory that a process uses for the first time; 0.4 to 2 GB/s on one virtual machine."""
    size = 2**27
    with mmap.mmap(-1, size) as memory:
        started = time.perf_counter()
        memory[:: mmap.PAGESIZE] = bytes(size // mmap.PAGESIZE)
        return size / (time.perf_counter() - started)


@lru_cache
def measure_rate(device_name: str, wanted_precision: str, maps: int) -> float:
    """Operations per second of a 3x3x3 convolution with as many maps in and out.

    Args:
        device_name: As `choose_device` takes it.
        wanted_precision: As `choose_precision` takes it.
        maps: Feature maps.
    """
    import torch

    device = choose_device(device_name)
    precision = choose_precision(device, wanted_precision)
    layer = torch.nn.Conv3d(maps, maps, 3, device=device)
    layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last_3d)
    extent = 64 if device.type == "cpu" else 160
    values = torch.rand(1, maps, extent, extent, extent, device=device)
    values = values.contiguous(memory_format=torch.channels_last_3d)
    times: list[float] = []
    with torch.inference_mode(), autocast(device, precision):
        while len(times) < 4 or sum(times) < 0.3:  # the fastest: other programs take some of the time
            started = time.perf_counter()
            result = layer(values)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - started)
    return 2 * 27 * maps * result.numel() / min(times)
