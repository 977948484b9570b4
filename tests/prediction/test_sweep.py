"""A sweep gives what the network gives for the whole region at once, whatever the slabs, in little memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloom.networks.architecture import UNetParameters, input_shape
from neuroloom.networks.live_bytes import LiveBytes
from neuroloom.networks.unet import UNet
from neuroloom.prediction.sweep import Kept, sweep
from unet_geometries import geometries


def swept(network: UNet, values: torch.Tensor, step: int) -> torch.Tensor:
    """The whole output of a sweep; also checks that the input is asked for in order, every plane once."""
    asked = [0]

    def load(begin: int, end: int, place: torch.Tensor) -> None:
        assert begin == asked[-1]
        asked.append(end)
        place.copy_(values[:, :, begin:end])

    with torch.inference_mode():
        shape = (values.shape[2], values.shape[3], values.shape[4])
        found = torch.cat(list(sweep(network, load, shape, values, step)), dim=2)
    assert asked[-1] == values.shape[2]
    return found


@settings(max_examples=60, deadline=None)
@given(
    geometry=geometries(most_levels=3, kernels=(1, 3, 5)),
    shape=st.tuples(*[st.integers(1, 14)] * 3),
    step=st.integers(1, 50),
)
def test_slabs_are_what_the_network_gives_at_once(
    geometry: UNetParameters, shape: tuple[int, int, int], step: int
) -> None:
    torch.manual_seed(0)
    network = UNet(geometry).eval()
    values = torch.rand(1, geometry.in_channels, *input_shape(geometry, shape)) * 2 - 1
    with torch.inference_mode():
        expected = network(values)
    torch.testing.assert_close(torch.sigmoid(swept(network, values, step)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 11])
@pytest.mark.parametrize("upsampling", ["transposed", "trilinear"])
def test_numbers_of_16_bits_are_off_by_their_rounding_only(channels: int, upsampling: str) -> None:
    """Also where channels are an odd number, which is made even."""
    torch.manual_seed(0)
    geometry = UNetParameters(
        in_channels=channels,
        heads=(("a", 3),),
        feature_maps=8,
        growth=2,
        downsampling=((2, 2, 2),),
        upsampling=upsampling,
    )
    network = UNet(geometry).eval()
    values = torch.rand(1, channels, *input_shape(geometry, (14, 10, 12))) * 2 - 1
    with torch.inference_mode():
        network.head.weight.mul_(20)  # or everything would be close to one half
        expected = network(values)
        found = torch.sigmoid(swept(network.to(torch.bfloat16), values.to(torch.bfloat16), 7).float())
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("upsampling", ["transposed", "trilinear"])
def test_memory_does_not_grow_with_depth(upsampling: str) -> None:
    geometry = UNetParameters(in_channels=1, heads=(("a", 3),), feature_maps=4, upsampling=upsampling)
    most = []
    for depth in (80, 800):
        with torch.device("meta"), torch.inference_mode():
            network, shape = UNet(geometry), input_shape(geometry, (depth, 40, 40))
            like = torch.empty(0)
            with LiveBytes() as live:
                planes = sum(
                    slab.shape[2] for slab in sweep(network, lambda begin, end, place: None, shape, like, step=8)
                )
        assert planes == depth
        most.append(live.most)
    assert most[0] == most[1]


def test_two_sweeps_of_a_network_do_not_disturb_each_other() -> None:
    geometry = UNetParameters(in_channels=1, heads=(("a", 1),), feature_maps=2, downsampling=((2, 2, 2),))
    network = UNet(geometry).eval()
    one, other = (torch.rand(1, 1, *input_shape(geometry, (12, 8, 8))) for _ in range(2))
    shape = (one.shape[2], one.shape[3], one.shape[4])
    with torch.inference_mode():
        both = zip(
            *(
                sweep(network, lambda b, e, place, v=values: place.copy_(v[:, :, b:e]), shape, values, 4)  # type: ignore[misc]
                for values in (one, other)
            ),
            strict=True,
        )
        first, second = (torch.cat(slabs, dim=2) for slabs in zip(*both, strict=True))
        torch.testing.assert_close(torch.sigmoid(first), network(one), rtol=0, atol=1e-5)
        torch.testing.assert_close(torch.sigmoid(second), network(other), rtol=0, atol=1e-5)


def test_kept_planes_come_back_in_order_cut_in_the_middle() -> None:
    planes = torch.arange(9 * 6 * 6).reshape(1, 1, 9, 6, 6)
    kept = Kept(skipped=3)
    kept.add(planes[:, :, :2])
    kept.add(planes[:, :, 2:5])
    kept.add(planes[:, :, 5:])
    assert kept.planes == 6
    for begin, end in ((3, 7), (7, 9)):
        place = torch.zeros(1, 1, end - begin, 4, 2, dtype=torch.int64)
        kept.take(place, torch.Tensor.copy_)
        assert torch.equal(place, planes[:, :, begin:end, 1:5, 2:4])
    assert kept.planes == 0
