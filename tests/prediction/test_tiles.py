"""Tiles cannot be seen in what a network predicts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloom.networks.unet import UNet, UNetParameters, context
from neuroloom.prediction.stage import balanced_block, chunk_of_block, default_block
from neuroloom.prediction.tiles import from_uint8, region_input, round_up, run_tiled, to_uint8

NETWORK = UNetParameters(in_channels=1, heads=(("affinities", 3),), feature_maps=2, growth=2)
extent = st.integers(1, 300)


@pytest.mark.parametrize("upsampling", ["transposed", "nearest", "trilinear"])
def test_any_tile_gives_the_same_to_one_grey_value(upsampling: str) -> None:
    parameters = NETWORK.model_copy(update={"upsampling": upsampling})
    torch.manual_seed(3)
    network = UNet(parameters).eval()
    shape = (24, 20, 16)
    needed = [max(n) for n in zip(*(region_input(parameters, shape, t) for t in [shape, (8, 4, 12)]), strict=True)]
    raw = torch.rand(1, 1, *[n + 8 for n in needed]) * 2 - 1

    def load(begin: tuple[int, int, int], size: tuple[int, int, int]) -> torch.Tensor:
        z, y, x = (slice(b, b + s) for b, s in zip(begin, size, strict=True))
        assert raw[:, :, z, y, x].shape[-3:] == size
        return raw[:, :, z, y, x]

    with torch.inference_mode():
        whole = run_tiled(network, parameters, load, shape, shape, 3)
        tiled = run_tiled(network, parameters, load, shape, (8, 4, 12), 3)
    assert whole.float().std() > 5  # not constant
    assert (whole.int() - tiled.int()).abs().max() <= 1


def test_region_input_is_what_is_asked_for() -> None:
    asked: list[list[int]] = []
    torch.manual_seed(0)
    network = UNet(NETWORK).eval()

    def load(begin: tuple[int, int, int], size: tuple[int, int, int]) -> torch.Tensor:
        asked.append([b + s for b, s in zip(begin, size, strict=True)])
        return torch.zeros(1, 1, *size)

    with torch.inference_mode():
        run_tiled(network, NETWORK, load, (12, 20, 8), (8, 8, 8), 3)
    assert [max(ends) for ends in zip(*asked, strict=True)] == list(region_input(NETWORK, (12, 20, 8), (8, 8, 8)))


def test_uint8_there_and_back() -> None:
    values = torch.linspace(0, 1, 1001)
    assert (from_uint8(to_uint8(values)) - values).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(to_uint8(from_uint8(torch.arange(256, dtype=torch.uint8))), torch.arange(256, dtype=torch.uint8))


@settings(max_examples=60)
@given(shape=st.tuples(extent, extent, extent), factor=st.tuples(*[st.integers(1, 12)] * 3), target=st.integers(8, 200))
def test_balanced_blocks(shape: tuple[int, int, int], factor: tuple[int, int, int], target: int) -> None:
    block = balanced_block(shape, factor, target)
    for size, step, extent_ in zip(shape, factor, block, strict=True):
        assert extent_ % step == 0
        assert extent_ < target + step
        assert -(-size // extent_) <= -(-size // target)  # never more blocks than the target would need
    chunk = chunk_of_block(block)
    assert all(b % c == 0 and c <= 64 for b, c in zip(block, chunk, strict=True))


def test_default_block_fits_the_memory() -> None:
    wide = NETWORK.model_copy(update={"feature_maps": 64})
    assert default_block((1000, 1000, 1000), [NETWORK])[0] > default_block((1000, 1000, 1000), [wide])[0] >= 8
    assert round_up((5, 8, 9), (4, 4, 4)) == (8, 8, 12)
    assert context(NETWORK) == (40, 40, 40)
