"""How fast a network sweeps on this machine's processor, measured on a small piece: all its layers, random weights.

The rate of a convolution does not tell: with matrix instructions, what lies between convolutions takes as long as they.
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


def piece_operations(network: UNetParameters) -> int:
    """Operations of sweeping through the piece once."""
    return architecture.flop(network, architecture.input_shape(network, PIECE))


@lru_cache
def sweep_rate(network: UNetParameters, precision: Precision) -> float:
    """Operations per second of a network in prediction on the processor.

    Args:
        network: Its geometry.
        precision: What convolutions compute in.
    """
    like = torch.empty(0, dtype=number_format(precision))
    shape = architecture.input_shape(network, PIECE)
    times = []
    with torch.random.fork_rng(devices=[]), torch.inference_mode(), keeping_freed_memory():
        twin = UNet(network).to(like)
        for _ in range(3):  # the first compiles kernels, and uses memory for the first time
            started = time.perf_counter()
            for slab in sweep(twin, lambda begin, end, place: place.fill_(0.5), shape, like):
                quantised(shape, slab)
            times.append(time.perf_counter() - started)
    return piece_operations(network) / min(times)
