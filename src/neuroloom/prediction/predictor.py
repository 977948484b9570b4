"""The fused predictor: raw in, affinities out, descriptors only in memory.

    raw        |<----------- context of both networks + block ----------->|
    LSDs             |<------ context of one network + block ------>|           uint8, in memory
    affinities                  |<------ block ------>|                         uint8

The descriptor network runs over the block and the affinity network's context in tiles, its output is kept as uint8 (as
it would be if it were stored) and goes with the raw of the same place into the affinity network.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.networks.checkpoint import Checkpoint, load_checkpoint
from neuroloom.networks.precision import choose_device, choose_precision
from neuroloom.networks.unet import UNet, context
from neuroloom.prediction.tiles import from_uint8, region_input, round_up, run_tiled
from neuroloom.volume.array import Triple


class Predictor:
    """Affinities of any region of raw, from one checkpoint.

    Args:
        checkpoint: The file; an AcrLSD checkpoint holds its descriptor network too.
        device: "auto", "cpu", "cuda", …
        precision: "auto", "fp32" or "bf16".

    Raises:
        UserError: The checkpoint is missing, damaged, or gives no affinities.
    """

    def __init__(self, checkpoint: Path, device: str = "auto", precision: str = "auto") -> None:
        self.metadata, network, lsd_network = load_checkpoint(checkpoint)
