"""Numbers of the architecture against the published ones, and against the network itself."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

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


SMALL = UNetParameters(in_channels=2, heads=(("affinities", 3),), feature_maps=2, growth=2)


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


class TestShapes:
    @settings(max_examples=30, deadline=None)
    @given(geometries(), st.tuples(*(st.integers(1, 6) for _ in range(3))))
    def test_output_shape_is_what_the_network_gives(
        self, geometry: UNetParameters, wanted: tuple[int, int, int]
    ) -> None:
        shape = input_shape(geometry, wanted)
        with torch.device("meta"):
            result = UNet(geometry)(torch.empty(1, geometry.in_channels, *shape))
        assert tuple(result.shape) == (1, 3, *output_shape(geometry, shape))

    @settings(max_examples=30, deadline=None)
    @given(geometries(), st.integers(1, 12))
    def test_input_shape_is_the_smallest_that_suffices(self, geometry: UNetParameters, wanted: int) -> None:
        shape = input_shape(geometry, cube(wanted))
        assert all(given >= wanted for given in output_shape(geometry, shape))
        for axis in range(3):
            for smaller in range(shape[axis]):
                probe = [smaller if a == axis else shape[a] for a in range(3)]
                try:
                    given_extent = output_shape(geometry, probe)[axis]
                except ValueError:
                    continue
                assert given_extent < wanted

    @settings(max_examples=20, deadline=None)
    @given(geometries(), st.integers(1, 40))
    def test_context_is_the_same_for_every_extent(self, geometry: UNetParameters, wanted: int) -> None:
        shape = input_shape(geometry, cube(wanted))
        given_shape = output_shape(geometry, shape)
        assert tuple(a - b for a, b in zip(shape, given_shape, strict=True)) == context(geometry)

    @settings(max_examples=20, deadline=None)
    @given(geometries(), st.integers(1, 40))
    def test_extents_come_in_steps_of_the_factor(self, geometry: UNetParameters, wanted: int) -> None:
        shape = input_shape(geometry, cube(wanted))
        larger = tuple(a + f for a, f in zip(shape, geometry.factor, strict=True))
        grown = [b - a for a, b in zip(output_shape(geometry, shape), output_shape(geometry, larger), strict=True)]
        assert tuple(grown) == geometry.factor

    def test_wrong_extent_names_the_nearest(self) -> None:
        with pytest.raises(ValueError, match="does not take 200 voxels along z; nearest extents it takes: 196 or 208"):
            output_shape(FIB25, (200, 196, 196))

    def test_extent_below_the_context_names_the_smallest(self) -> None:
        with pytest.raises(ValueError) as error:
            output_shape(FIB25, (196, 50, 196))
        smallest = int(re.findall(r"\d+", str(error.value))[-1])
        assert output_shape(FIB25, (196, smallest, 196))[1] >= 1

    def test_unusable_kernels_are_refused(self) -> None:
        with pytest.raises(ValueError, match="odd extents"):
            UNetParameters(in_channels=1, heads=(("a", 1),), kernels=((2, 3, 3),) * 3)
        with pytest.raises(ValueError, match="3 levels need as many kernels"):
            UNetParameters(in_channels=1, heads=(("a", 1),), kernels=((3, 3, 3),))


@pytest.mark.parametrize("upsampling", ["transposed", "nearest"])
def test_counted_operations_are_those_that_run(upsampling: str) -> None:
    geometry = UNetParameters(
        in_channels=2,
        heads=(("a", 3),),
        feature_maps=2,
        growth=3,
        kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        upsampling=upsampling,
    )
    shape = input_shape(geometry, (4, 4, 8))
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        UNet(geometry)(torch.empty(1, 2, *shape))
    assert counter.get_total_flops() == flop(geometry, shape)


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
