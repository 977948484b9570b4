"""The U-Net itself."""

from __future__ import annotations

import pytest
import torch

from neuroloom.networks import unet
from neuroloom.networks.architecture import (
    UNetParameters,
    context,
    input_shape,
)
from neuroloom.networks.unet import UNet, crop

SMALL = UNetParameters(in_channels=2, heads=(("affinities", 3),), feature_maps=2, growth=2)


class TestNetwork:
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


def test_gradients_of_skips_are_those_of_cutting_and_laid_out_as_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = UNet(SMALL).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    raw = torch.rand(1, 2, *input_shape(SMALL, (4, 8, 4))).contiguous(memory_format=torch.channels_last_3d)

    def gradients() -> list[torch.Tensor]:
        network.zero_grad()
        network(raw).square().sum().backward()
        return [weight.grad.clone() for weight in network.parameters() if weight.grad is not None]

    ours = gradients()
    with monkeypatch.context() as patched:
        patched.setattr(unet, "_cut", crop)
        plain = gradients()
    assert len(ours) == len(plain) == len(list(network.parameters()))
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)

    skip = torch.rand(1, 3, 8, 9, 10).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    unet._cut(skip, torch.Size([4, 3, 6])).sum().backward()
    assert skip.grad is not None
    assert skip.grad.is_contiguous(memory_format=torch.channels_last_3d)


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
