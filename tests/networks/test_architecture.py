"""Numbers of the architecture against the published ones, and against the network itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from neuroloom.networks.architecture import (
    UNetParameters,
    Upsampling,
    context,
    feature_values,
    flop,
    input_shape,
    output_shape,
    parameter_count,
)
from neuroloom.networks.unet import UNet
from unet_geometries import geometries

FIB25 = UNetParameters(
    in_channels=1,
    heads=(("lsd", 10),),
    feature_maps=12,
    growth=6,
    downsampling=((2, 2, 2), (2, 2, 2), (3, 3, 3)),
)


def cube(extent: int) -> tuple[int, int, int]:
    return extent, extent, extent


class TestPublishedNetwork:
    @pytest.mark.parametrize(("inside", "outside"), [(196, 92), (304, 200), (364, 260)])
    def test_extents(self, inside: int, outside: int) -> None:
        assert output_shape(FIB25, cube(inside)) == cube(outside)
        assert input_shape(FIB25, cube(outside)) == cube(inside)

    def test_context_and_factor(self) -> None:
        assert context(FIB25) == cube(104)
        assert FIB25.factor == cube(12)

    def test_parameters_and_operations(self) -> None:
        assert parameter_count(FIB25) == pytest.approx(263.7e6, rel=1e-3)
        assert flop(FIB25, cube(196)) == pytest.approx(2.5e12, rel=0.01)
        assert flop(FIB25, cube(364)) == pytest.approx(29e12, rel=0.01)

    def test_anisotropic_network_has_context_by_axis(self) -> None:
        zebrafinch = FIB25.model_copy(update={"growth": 5, "downsampling": ((1, 3, 3), (1, 3, 3), (3, 3, 3))})
        z, y, x = context(zebrafinch)
        assert y == x > z
        assert zebrafinch.factor == (3, 27, 27)


@settings(max_examples=40, deadline=None)
@given(geometries(most_levels=3))
def test_counted_parameters_are_those_there_are(geometry: UNetParameters) -> None:
    assert parameter_count(geometry) == sum(weight.numel() for weight in UNet(geometry).parameters())


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"in_channels": 4, "heads": (("lsd", 10),)}, True),
        ({"growth": 4}, False),
        ({"kernels": ((1, 3, 3),) * 3}, False),
    ],
)
def test_networks_of_the_same_size(change: dict[str, object], same: bool) -> None:
    one = UNetParameters(in_channels=1, heads=(("affinities", 3),))
    other = UNetParameters.model_validate({**one.model_dump(), **change})
    assert one.same_size(other) == other.same_size(one) == same


@pytest.mark.parametrize("upsampling", ["transposed", "trilinear", "nearest"])
def test_feature_values_are_what_convolutions_put_out(upsampling: Upsampling) -> None:
    geometry = UNetParameters(in_channels=2, heads=(("lsd", 10),), feature_maps=3, growth=2, upsampling=upsampling)
    network = UNet(geometry)
    shape = input_shape(geometry, (5, 7, 9))
    values: list[int] = []
    for block in (*network.down, *network.up):
        for layer in (block[0], block[2]):  # type: ignore[index]
            layer.register_forward_hook(lambda _module, _inputs, output: values.append(output.numel()))
    for layer in network.grow:
        layer.register_forward_hook(lambda _module, _inputs, output: values.append(output.numel()))
    with torch.inference_mode():
        network(torch.rand(1, 2, *shape))
    assert feature_values(geometry, shape) == sum(values)
