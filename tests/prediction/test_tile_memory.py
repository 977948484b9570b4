"""What a tile is said to take, against tensors that are there."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from neuroloom.networks.architecture import UNetParameters
from neuroloom.networks.live_bytes import LiveBytes
from neuroloom.networks.setups import SETUPS
from neuroloom.networks.unet import UNet
from neuroloom.prediction.fused import Part, run_fused
from neuroloom.prediction.tile_memory import tile_bytes
from neuroloom.prediction.tiles import extents

LSD = UNetParameters(in_channels=1, heads=(("lsd", 10),), feature_maps=2, downsampling=((2, 2, 2), (5, 5, 5)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("setups", "channels"), [(("lsd", "acrlsd"), (1, 11)), (("lsd", "aclsd"), (1, 10)), (("mtlsd",), (1,))]
)
def test_bytes_of_a_tile_are_those_that_are_there(
    setups: tuple[str, ...], channels: tuple[int, ...], dtype: torch.dtype
) -> None:
    """Of a small one that is really computed; and a deeper one takes no more."""
    networks = [LSD.model_copy(update={"in_channels": some}) for some in channels]
    tile = (30, 20, 10)
    parts = [
        Part(SETUPS[setup].inputs, UNet(network).to(dtype)) for setup, network in zip(setups, networks, strict=True)
    ]
    raw = torch.zeros(extents(networks, tile)[0], dtype=torch.uint8)
    for _ in range(2):  # the table of sigmoids is made once
        with torch.inference_mode(), LiveBytes() as live:
            for _ in run_fused(parts, raw, tile, torch.empty(0, dtype=dtype)):
                pass
    table = 0 if dtype == torch.float32 else 2**16  # is there, or not, when most is
    assert live.most - tile_bytes(tuple(networks), tile, dtype) in (0, table)
    deep = [tile_bytes(tuple(networks), (depth, 200, 200), dtype) for depth in (400, 2000)]
    assert deep[0] == deep[1]


def test_planning_does_not_load_a_compiler() -> None:
    program = """
import sys
from neuroloom.networks.architecture import UNetParameters
from neuroloom.prediction.tile_memory import tile_bytes

for upsampling in ("trilinear", "nearest", "transposed"):
    lsd = UNetParameters(in_channels=1, heads=(("lsd", 10),), upsampling=upsampling)
    affs = UNetParameters(in_channels=11, heads=(("affs", 3),), upsampling=upsampling)
    tile_bytes((lsd, affs), (40, 40, 40))
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
