"""How fast a network sweeps on this machine, measured on a small piece: all its layers, random weights.

The rate of a convolution does not tell: with matrix instructions, what lies between convolutions takes as long as they,
and convolutions of a few maps are far slower on a GPU than those of thousands.
"""

from __future__ import annotations

import time
from functools import lru_cache

import torch

from neuroloom.blockwise.allocation import keeping_freed_memory
from neuroloom.networks import architecture
from neuroloom.networks.architecture import UNetParameters
from neuroloom.networks.precision import Precision, number_format
from neuroloom.networks.unet import UNet
from neuroloom.prediction.fused import quantised
from neuroloom.prediction.sweep import sweep

PIECE = (20, 90, 90)
"""Voxels that come out, at least."""

LONG = 2.0
"""Seconds after which a sweep is not repeated: what it has to wait for once does not count then."""


def piece_operations(network: UNetParameters) -> int:
    """Operations of sweeping through the piece once."""
    return architecture.flop(network, architecture.input_shape(network, PIECE))


@lru_cache
def sweep_rate(network: UNetParameters, precision: Precision, device: torch.device) -> float:
    """Operations per second of a network in prediction.

    Args:
        network: Its geometry.
        precision: What convolutions compute in.
        device: Where.
    """
    like = torch.empty(0, dtype=number_format(precision), device=device)
    shape = architecture.input_shape(network, PIECE)
    gpus = [device] if device.type == "cuda" else []
    times: list[float] = []
    with torch.random.fork_rng(gpus), torch.inference_mode(), keeping_freed_memory():
        with device:
            twin = UNet(network).to(like)
        while len(times) < 3 and sum(times) < LONG:  # the first compiles kernels, and uses memory for the first time
            started = time.perf_counter()
            for slab in sweep(twin, lambda begin, end, place: place.fill_(0.5), shape, like):
                quantised(shape, slab)
            for gpu in gpus:
                torch.cuda.synchronize(gpu)
            times.append(time.perf_counter() - started)
    return piece_operations(network) / min(times)
