"""All networks of a checkpoint as one TorchScript module: raw in, affinities out, any valid extent.

    raw in [0, 1]  ->  range of the networks  ->  descriptor network  ->  to uint8 and back  ->  affinity network
                                            \\->  raw, cut in the middle                    -/

TorchScript, though PyTorch calls it deprecated, is what the programs around bioimage.io run, and it keeps extents open.
It knows no `zip(strict=True)` and no `super().forward`, so the U-Net is put together again from the same layers.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import List  # noqa: UP035  TorchScript looks this name up

import torch
from torch import nn

from neuroloom.networks.architecture import UNetParameters, input_shape, output_shape
from neuroloom.networks.checkpoint import Checkpoint
from neuroloom.networks.setups import SETUPS
from neuroloom.networks.unet import CutBorder, UNet
from neuroloom.volume.array import Triple


@dataclass(frozen=True)
class Extents:
    """Inputs that a fused module takes, in voxels, z y x: `smallest` + k * `step`.

    Attributes:
        smallest: The smallest input.
        step: From one input to the next.
        context: Input minus output, both sides together.
        surplus: What the descriptor network gives more than the affinity network takes, on each side.
    """

    smallest: Triple
    step: Triple
    context: Triple
    surplus: Triple


def extents(outer: UNetParameters | None, inner: UNetParameters) -> Extents:
    """The extents that two networks, one after the other, take.

    Args:
        outer: The descriptor network, if there is one.
        inner: The network that gives the output.
    """
    begin = input_shape(inner, (1, 1, 1))
    end = output_shape(inner, begin)
    if outer is None:
        return Extents(begin, inner.factor, _minus(begin, end), (0, 0, 0))
    raw = input_shape(outer, begin)
    # an even surplus keeps the centre
    while any((a - b) % 2 for a, b in zip(output_shape(outer, raw), begin, strict=True)):
        given = output_shape(outer, raw)
        z, y, x = (a + (a - b) % 2 for a, b in zip(given, begin, strict=True))
        raw = input_shape(outer, (z, y, x))
    z, y, x = (e // 2 for e in _minus(output_shape(outer, raw), begin))
    step_z, step_y, step_x = (math.lcm(a, b) for a, b in zip(outer.factor, inner.factor, strict=True))
    return Extents(raw, (step_z, step_y, step_x), _minus(raw, end), (z, y, x))


def fuse(checkpoint: Checkpoint) -> torch.jit.ScriptModule:
    """One module that takes raw `(b, 1, z, y, x)` in [0, 1] and gives affinities `(b, c, z', y', x')` in [0, 1].

    Args:
        checkpoint: An affinity network, with its descriptor network if it needs one.
    """
    module = _Fused(checkpoint).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(module)
    assert isinstance(scripted, torch.jit.ScriptModule)
    return scripted


def _minus(a: Triple, b: Triple) -> Triple:
    z, y, x = (m - n for m, n in zip(a, b, strict=True))
    return z, y, x


def _crop(values: torch.Tensor, extent: List[int]) -> torch.Tensor:  # noqa: UP006
    z = (values.size(2) - extent[0]) // 2
    y = (values.size(3) - extent[1]) // 2
    x = (values.size(4) - extent[2]) // 2
    return values[:, :, z : z + extent[0], y : y + extent[1], x : x + extent[2]]


class _Fused(nn.Module):
    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        metadata, lsd = checkpoint.metadata, checkpoint.lsd
        self.low, self.high = metadata.raw_range
        self.inputs: List[str] = list(SETUPS[metadata.setup].inputs)  # noqa: UP006
        self.surplus: List[int] = list(extents(lsd.metadata.network if lsd else None, metadata.network).surplus)  # noqa: UP006
        heads = dict(metadata.network.heads)
        names = list(heads)
        self.first = sum(heads[name] for name in names[: names.index("affinities")])
        self.channels = heads["affinities"]
        self.lsd = None if lsd is None else _Scriptable(lsd.network)
        self.network = _Scriptable(checkpoint.network)

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        values = raw * (self.high - self.low) + self.low
        if self.lsd is not None:
            # as they are when stored, and as the second network was trained with
            descriptors = self.lsd(values).mul(255).round().clamp(0, 255).div(255)
            z, y, x = self.surplus
            extent = [descriptors.size(2) - 2 * z, descriptors.size(3) - 2 * y, descriptors.size(4) - 2 * x]
            parts: List[torch.Tensor] = []  # noqa: UP006
            for name in self.inputs:
                parts.append(_crop(values if name == "raw" else descriptors, extent))
            values = torch.cat(parts, dim=1)
        return self.network(values)[:, self.first : self.first + self.channels]


class _Scriptable(nn.Module):
    """The U-Net, its way up listed from below."""

    def __init__(self, network: UNet) -> None:
        super().__init__()
        blocks = [_plain(block) for block in network.down]
        self.down, self.bottom = nn.ModuleList(blocks[:-1]), blocks[-1]
        self.pool = network.pool
        self.grow = nn.ModuleList(_plain(layer) for layer in reversed(network.grow))
        self.up = nn.ModuleList(_plain(block) for block in reversed(network.up))
        self.head = network.head

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        skips: List[torch.Tensor] = []  # noqa: UP006
        for down, pool in zip(self.down, self.pool):  # noqa: B905
            values = down(values)
            skips.append(values)
            values = pool(values)
        values = self.bottom(values)
        for grow, up in zip(self.grow, self.up):  # noqa: B905
            values = grow(values)
            extent = [values.size(2), values.size(3), values.size(4)]
            values = up(torch.cat([_crop(skips.pop(), extent), values], dim=1))
        return torch.sigmoid(self.head(values))


class _ScriptableCut(nn.Module):
    def __init__(self, width: List[int]) -> None:  # noqa: UP006
        super().__init__()
        self.width: List[int] = width  # noqa: UP006

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        z, y, x = self.width
        return _crop(values, [values.size(2) - 2 * z, values.size(3) - 2 * y, values.size(4) - 2 * x])


def _plain(layer: nn.Module) -> nn.Module:
    """A layer of the U-Net with nothing in it that TorchScript does not know."""
    if isinstance(layer, nn.Sequential):
        return nn.Sequential(*(_plain(part) for part in layer))
    if isinstance(layer, nn.Conv3d):
        kernel = layer.kernel_size
        plain = nn.Conv3d(layer.in_channels, layer.out_channels, (kernel[0], kernel[1], kernel[2]))
        plain.load_state_dict(layer.state_dict())
        return plain
    if isinstance(layer, CutBorder):
        return _ScriptableCut(layer.width)
    return layer
