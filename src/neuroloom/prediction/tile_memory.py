"""How much memory a tile takes: found by a sweep through it that computes nothing."""

from __future__ import annotations

from functools import lru_cache

import torch

from neuroloom.networks.architecture import UNetParameters
from neuroloom.networks.live_bytes import LiveBytes
from neuroloom.networks.unet import UNet
from neuroloom.prediction.fused import Part, run_fused
from neuroloom.prediction.sweep import planes_at_once
from neuroloom.prediction.tiles import common_factor, extents, round_up
from neuroloom.volume.array import Triple


def tile_bytes(networks: tuple[UNetParameters, ...], tile: Triple, dtype: torch.dtype | None = None) -> int:
    """Bytes of all that is there at once while networks sweep through a tile, weights and raw left out.

    Args:
        networks: In the order they run.
        tile: Its extent in voxels, multiples of the networks' factors.
        dtype: What networks compute in; float32 if None.
    """
    # it does not grow any more once affinities come out regularly
    factor = common_factor(networks)
    deep = round_up((4 * (planes_at_once(tile) + factor[0]), 1, 1), factor)[0]
    return _most_bytes(networks, (min(tile[0], deep), *tile[1:]), dtype or torch.float32)


@lru_cache(maxsize=1024)
def _most_bytes(networks: tuple[UNetParameters, ...], tile: Triple, dtype: torch.dtype) -> int:
    """The same, found by a sweep that computes nothing."""
    last = ("raw", "lsd") if networks[-1].in_channels > networks[0].out_channels else ("lsd",)
    with torch.device("meta"):
        parts = [
            Part(("raw",) if number == 0 else last, UNet(network).to(dtype)) for number, network in enumerate(networks)
        ]
        raw, like = torch.empty(extents(networks, tile)[0], dtype=torch.uint8), torch.empty(0, dtype=dtype)
    with torch.inference_mode(), LiveBytes() as live:
        for _ in run_fused(parts, raw, tile, like):
            pass
    return live.most
