"""Tiles cannot be seen in what a network predicts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloom.networks.unet import UNet, UNetParameters, input_shape, output_shape
from neuroloom.prediction.tiles import from_uint8, round_up, run_tiled, to_uint8

NETWORK = UNetParameters(in_channels=1, heads=(("affinities", 3),), feature_maps=2, growth=2)


@pytest.mark.parametrize("upsampling", ["transposed", "nearest", "trilinear"])
def test_any_tile_gives_the_same_to_one_grey_value(upsampling: str) -> None:
    parameters = NETWORK.model_copy(update={"upsampling": upsampling})
    torch.manual_seed(3)
    network = UNet(parameters).eval()
    shape = (24, 20, 16)
    raw = torch.rand(1, 1, *input_shape(parameters, shape)) * 2 - 1

    def load(begin: tuple[int, int, int], size: tuple[int, int, int]) -> torch.Tensor:
        z, y, x = (slice(b, b + s) for b, s in zip(begin, size, strict=True))
        assert raw[:, :, z, y, x].shape[-3:] == size
        return raw[:, :, z, y, x]

    with torch.inference_mode():
        whole = run_tiled(network, parameters, load, shape, shape, 3)
        tiled = run_tiled(network, parameters, load, shape, (8, 4, 12), 3)
    assert whole.float().std() > 5  # not constant
    assert (whole.int() - tiled.int()).abs().max() <= 1


@settings(max_examples=60, deadline=None)
@given(
    levels=st.lists(st.tuples(*[st.integers(1, 3)] * 3), min_size=1, max_size=2),
    upsampling=st.sampled_from(["transposed", "trilinear"]),
    region=st.tuples(*[st.integers(1, 8)] * 3),
    tile=st.tuples(*[st.integers(1, 8)] * 3),
)
def test_tiles_ask_for_what_the_region_needs(
    levels: list[tuple[int, int, int]], upsampling: str, region: tuple[int, ...], tile: tuple[int, ...]
) -> None:
    parameters = NETWORK.model_copy(update={"downsampling": tuple(levels), "upsampling": upsampling})
    z, y, x = (f * r for f, r in zip(parameters.factor, region, strict=True))
    shape = z, y, x
    z, y, x = (min(f * t, s) for f, t, s in zip(parameters.factor, tile, shape, strict=True))
    ends: list[list[int]] = []

    def load(begin: tuple[int, int, int], size: tuple[int, int, int]) -> torch.Tensor:
        ends.append([b + s for b, s in zip(begin, size, strict=True)])
        return torch.zeros(1, 1, *size, device="meta")

    def network(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(1, 3, *output_shape(parameters, values.shape[-3:]), device="meta")

    run_tiled(network, parameters, load, shape, (z, y, x), 3)
    assert tuple(max(along) for along in zip(*ends, strict=True)) == input_shape(parameters, shape)


def test_uint8_there_and_back() -> None:
    values = torch.linspace(0, 1, 1001)
    assert (from_uint8(to_uint8(values)) - values).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(to_uint8(from_uint8(torch.arange(256, dtype=torch.uint8))), torch.arange(256, dtype=torch.uint8))


def test_round_up() -> None:
    assert round_up((5, 8, 9), (4, 4, 4)) == (8, 8, 12)
