"""The U-Net itself, and its architecture against it."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from neuroloom.networks.architecture import (
    UNetParameters,
    context,
    flop,
    input_shape,
    output_shape,
)
from neuroloom.networks.unet import UNet, crop
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


class TestNetwork:
    @pytest.mark.parametrize("upsampling", ["transposed", "nearest"])
    def test_counted_operations_are_those_that_run(self, upsampling: str) -> None:
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

    @pytest.mark.parametrize("upsampling", ["transposed", "trilinear", "nearest"])
    def test_moves_with_its_input_by_the_factor(self, upsampling: str) -> None:
        torch.manual_seed(0)
        geometry = SMALL.model_copy(update={"upsampling": upsampling, "downsampling": ((2, 2, 2), (1, 3, 2))})
        network = UNet(geometry).eval()
        shape = input_shape(geometry, (4, 6, 4))
        fz, fy, fx = geometry.factor
        raw = torch.rand(1, 2, *(s + f for s, f in zip(shape, geometry.factor, strict=True)))
        z, y, x = shape
        with torch.no_grad():
            here = network(raw[..., :z, :y, :x])
            moved = network(raw[..., fz : fz + z, fy : fy + y, fx : fx + x])
            by_one = network(raw[..., 1 : 1 + z, :y, :x])
        torch.testing.assert_close(here[..., fz:, fy:, fx:], moved[..., :-fz, :-fy, :-fx])
        assert not torch.allclose(here[..., 1:, :, :], by_one[..., :-1, :, :], atol=1e-4)

    def test_output_depends_on_nothing_beyond_its_context(self) -> None:
        torch.manual_seed(0)
        geometry = UNetParameters(in_channels=1, heads=(("a", 1),), feature_maps=3, growth=1, downsampling=((2, 2, 2),))
        network = UNet(geometry)
        for parameter in network.parameters():  # positive weights: no ReLU hides a dependence
            parameter.data.abs_()
        shape = input_shape(geometry, (6, 6, 6))
        raw = torch.rand(1, 1, *shape, requires_grad=True)
        network(raw)[0, 0, 2:4, 2:4, 2:4].logit().sum().backward()
        assert raw.grad is not None
        reached = raw.grad[0, 0].abs().sum(dim=(1, 2)).nonzero()[:, 0]
        # a cell of the factor (here voxels 2 and 3) sees itself and the context around it, half on either side
        assert int(reached.min()) >= 2
        assert int(reached.max()) < 4 + context(geometry)[0]
        assert int(reached.min()) - 2 == 4 + context(geometry)[0] - 1 - int(reached.max())

    def test_one_input_channel_takes_no_shortcut_in_the_result(self) -> None:
        torch.manual_seed(0)
        geometry = SMALL.model_copy(update={"in_channels": 1})
        network = UNet(geometry)
        raw = torch.rand(1, 1, *input_shape(geometry, (4, 4, 4)), requires_grad=True)
        first = network.down[0][0]
        ours = first(raw)
        plain = torch.nn.functional.conv3d(raw, first.weight, first.bias)
        torch.testing.assert_close(ours, plain)
        gradient = torch.rand_like(plain)
        for a, b in zip(
            torch.autograd.grad(ours, (raw, first.weight, first.bias), gradient),
            torch.autograd.grad(plain, (raw, first.weight, first.bias), gradient),
            strict=True,
        ):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)

    def test_starts_neither_dead_nor_saturated(self) -> None:
        torch.manual_seed(0)
        geometry = UNetParameters(in_channels=1, heads=(("a", 3),), feature_maps=8, growth=3)
        with torch.no_grad():
            result = UNet(geometry)(torch.rand(1, 1, *input_shape(geometry, (12, 12, 12))) * 2 - 1)
        assert 0.05 < float(result.mean()) < 0.95
        assert float(result.std()) > 0.003
        assert float(((result < 0.01) | (result > 0.99)).float().mean()) < 0.2

    def test_batches_do_not_mix(self) -> None:
        torch.manual_seed(0)
        network = UNet(SMALL).eval()
        raw = torch.rand(2, 2, *input_shape(SMALL, (4, 4, 4)))
        with torch.no_grad():
            torch.testing.assert_close(network(raw)[1:], network(raw[1:]))


def test_crop_keeps_the_middle() -> None:
    values = torch.arange(6 * 5 * 4).reshape(1, 6, 5, 4)
    assert torch.equal(crop(values, (2, 3, 4)), values[:, 2:4, 1:4, :])


def test_a_network_begins_with_what_another_has_learned() -> None:
    torch.manual_seed(0)
    other = UNet(UNetParameters(in_channels=1, heads=(("lsd", 10),), feature_maps=2, growth=2))
    geometry = UNetParameters(in_channels=3, heads=(("affinities", 3),), feature_maps=2, growth=2)
    network = UNet(geometry)
    head = network.head.weight.clone()
    network.begin_with(other)
    assert torch.equal(network.head.weight, head)
    # whatever the further channels are, the last maps are those of the other network
    maps: list[torch.Tensor] = []
    for each in (network, other):
        each.head.register_forward_hook(lambda _module, inputs, _output: maps.append(inputs[0]))
    values = torch.rand(1, 1, 44, 44, 44)
    network(torch.cat([values, torch.rand(1, 2, 44, 44, 44)], dim=1))
    other(values)
    torch.testing.assert_close(maps[0], maps[1])
    assert maps[0].abs().max() > 0
