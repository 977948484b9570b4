"""The valid 3-D U-Net: no padding, so every output voxel has seen the same context.

    level 0   in -> conv conv -------------------------- crop + -> conv conv -> 1x1x1 heads, sigmoid
                        | max-pool                       up |
    level 1              -> conv conv ------- crop + -> conv conv
                                | max-pool    up |
    level 2                      -> conv conv ---

Level k has feature_maps * growth**k maps. All convolutions are "valid" with ReLU; skips are cut in the middle.
Moving the input by the factor (the product of all pooling steps) moves the output by the same; by less, it changes.
Extents at which a level does not divide by its pooling factor are refused, never cut, so that this always holds.

Source: Ronneberger et al. 2015, doi:10.1007/978-3-319-24574-4_28; Sheridan et al. 2022, doi:10.1038/s41592-022-01711-z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Literal

import torch
import torch.utils.checkpoint
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from neuroloom.volume.array import Triple

Positive = Annotated[int, Field(ge=1)]
Levels = tuple[tuple[Positive, Positive, Positive], ...]
Kernels = tuple[tuple[Positive, Positive, Positive], ...]
Upsampling = Literal["transposed", "trilinear", "nearest"]


class UNetParameters(BaseModel):
    """Geometry of a U-Net.

    Attributes:
        in_channels: Channels of the input.
        heads: Name and channels of each output, in order; outputs are concatenated.
        feature_maps: Maps of level 0.
        growth: Each level has this many times the maps of the level above.
        downsampling: Max-pool factors from level to level, z y x.
        kernels: Extent of the convolutions of each level, z y x, odd; 3x3x3 on all levels when empty.
        upsampling: Transposed convolution, or interpolation and a 1x1x1 convolution.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    in_channels: Positive
    heads: tuple[tuple[str, Positive], ...] = Field(min_length=1)
    feature_maps: Positive = 12
    growth: Positive = 3
    downsampling: Levels = ((2, 2, 2), (2, 2, 2))
    kernels: Kernels = ()
    upsampling: Upsampling = "transposed"

    @model_validator(mode="after")
    def _kernels_fit(self) -> UNetParameters:
        if self.kernels and len(self.kernels) != len(self.downsampling) + 1:
            raise ValueError(f"{len(self.downsampling) + 1} levels need as many kernels, not {len(self.kernels)}")
        if any(extent % 2 == 0 for kernel in self.kernels for extent in kernel):
            raise ValueError("kernels must have odd extents, or outputs would lie half a voxel off")
        return self

    @property
    def out_channels(self) -> int:
        """Channels of all heads."""
        return sum(channels for _, channels in self.heads)

    @property
    def factor(self) -> Triple:
        """Product of all pooling factors, z y x."""
        z, y, x = (math.prod(level[axis] for level in self.downsampling) for axis in range(3))
        return z, y, x

    def same_size(self, other: UNetParameters) -> bool:
        """Whether networks differ in what they see and say only."""
        free = {"in_channels", "heads"}
        return self.model_dump(exclude=free) == other.model_dump(exclude=free)

    def maps(self, level: int) -> int:
        """Feature maps of a level, counted from 0."""
        return self.feature_maps * int(self.growth) ** level

    def kernel(self, level: int) -> Triple:
        """Extent of the convolutions of a level, z y x."""
        return self.kernels[level] if self.kernels else (3, 3, 3)


def output_shape(parameters: UNetParameters, shape: Sequence[int]) -> Triple:
    """The output's extent for an input's.

    Args:
        parameters: The network.
        shape: Input extent in voxels, z y x.

    Raises:
        ValueError: The network does not take this extent; the nearest ones it takes are named.

    Example:
        >>> output_shape(UNetParameters(in_channels=1, heads=(("lsd", 10),)), (104, 104, 108))
        (64, 64, 68)
    """
    z, y, x = (_output(parameters, axis, int(shape[axis])) for axis in range(3))
    return z, y, x


def input_shape(parameters: UNetParameters, shape: Sequence[int]) -> Triple:
    """The smallest valid input whose output is at least `shape`, axis by axis.

    Args:
        parameters: The network.
        shape: Wanted output extent in voxels, z y x; what comes out may be a few voxels more (`output_shape`).
    """
    z, y, x = (
        _smallest_valid(parameters, axis, int(wanted) + context(parameters)[axis]) for axis, wanted in enumerate(shape)
    )
    return z, y, x


@lru_cache
def context(parameters: UNetParameters) -> Triple:
    """Input voxels minus output voxels, both sides together, z y x; the same for every valid extent."""
    smallest = [_smallest_valid(parameters, axis, 1) for axis in range(3)]
    z, y, x = (extent - _trace(parameters, axis, extent)[-1] for axis, extent in enumerate(smallest))
    return z, y, x


def parameter_count(parameters: UNetParameters) -> int:
    """Number of weights and biases."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in UNet(parameters).parameters())


def feature_values(parameters: UNetParameters, shape: Sequence[int]) -> int:
    """Values that all convolutions together put out in one forward pass; training keeps them for the way back.

    Args:
        parameters: The network.
        shape: Input extent in voxels, z y x; a valid one.
    """
    extents = [_trace(parameters, axis, int(shape[axis])) for axis in range(3)]
    levels = len(parameters.downsampling)
    maps = [parameters.maps(level) for level in range(levels + 1) for _ in range(2)]
    maps += [parameters.maps(level) for level in reversed(range(levels)) for _ in range(3)]
    return sum(m * math.prod(extent) for m, extent in zip(maps, zip(*extents, strict=True), strict=True))


def flop(parameters: UNetParameters, shape: Sequence[int]) -> int:
    """Floating-point operations (two for a multiply-add) of the convolutions of one forward pass.

    Args:
        parameters: The network.
        shape: Input extent in voxels, z y x; a valid one.
    """
    output_shape(parameters, shape)
    extents = [_trace(parameters, axis, int(shape[axis])) for axis in range(3)]
    voxels = iter([math.prod(extent) for extent in zip(*extents, strict=True)])
    levels = len(parameters.downsampling)

    def convolutions(level: int, below: int) -> int:
        here = parameters.maps(level)
        kernel = math.prod(parameters.kernel(level))
        return 2 * kernel * here * (below * next(voxels) + here * next(voxels))

    total = 0
    for level in range(levels + 1):
        total += convolutions(level, parameters.in_channels if level == 0 else parameters.maps(level - 1))
    for level in reversed(range(levels)):
        # whatever the way up, each of its voxels is one weighted sum over the maps below
        upsampled = next(voxels)
        if parameters.upsampling != "transposed":
            upsampled //= math.prod(parameters.downsampling[level])
        total += 2 * parameters.maps(level + 1) * parameters.maps(level) * upsampled
        total += convolutions(level, 2 * parameters.maps(level))
    return total + 2 * parameters.maps(0) * parameters.out_channels * extents[0][-1] * extents[1][-1] * extents[2][-1]


def _output(parameters: UNetParameters, axis: int, extent: int) -> int:
    try:
        return _trace(parameters, axis, extent)[-1]
    except _InvalidExtentError:
        above = _smallest_valid(parameters, axis, extent)
        below = next((e for e in range(extent - 1, 0, -1) if _is_valid(parameters, axis, e)), None)
        nearest = f"{above}" if below is None else f"{below} or {above}"
        raise ValueError(
            f"the network does not take {extent} voxels along {'zyx'[axis]}; nearest extents it takes: {nearest}"
        ) from None


def _smallest_valid(parameters: UNetParameters, axis: int, extent: int) -> int:
    while not _is_valid(parameters, axis, extent):
        extent += 1
    return extent


def _is_valid(parameters: UNetParameters, axis: int, extent: int) -> bool:
    try:
        _trace(parameters, axis, extent)
    except _InvalidExtentError:
        return False
    return True


class _InvalidExtentError(Exception):
    pass


@lru_cache(maxsize=65536)
def _trace(parameters: UNetParameters, axis: int, extent: int) -> tuple[int, ...]:
    """Extents along one axis after every convolution, and after every upsampling on the way up."""
    factors = [level[axis] for level in parameters.downsampling]
    size, trace, skips = extent, [], []

    def convolve(level: int) -> None:
        nonlocal size
        for _ in range(2):
            size -= parameters.kernel(level)[axis] - 1
            if size < 1:
                raise _InvalidExtentError
            trace.append(size)

    for level in range(len(factors) + 1):
        convolve(level)
        if level < len(factors):
            if size % factors[level]:
                raise _InvalidExtentError
            skips.append(size)
            size //= factors[level]
    for level in reversed(range(len(factors))):
        size *= factors[level]
        if parameters.upsampling == "trilinear" and factors[level] > 1:
            size -= 2 * factors[level]
        if size < 1 or (skips[level] - size) % 2:
            raise _InvalidExtentError
        trace.append(size)
        convolve(level)
    return tuple(trace)


class UNet(nn.Module):
    """The network itself; see the module's picture.

    Args:
        parameters: Its geometry.

    Attributes:
        recompute: In training, keep the input of each pair of convolutions only and compute them again on the way
            back: the same gradients. A tenth to a fifth less memory in 1.4 times the time (12 maps, growth 3, 140³
            voxels): the pairs of full resolution, which need most, have to be there one at a time anyway.
    """

    def __init__(self, parameters: UNetParameters) -> None:
        super().__init__()
        self.geometry = parameters
        self.recompute = False
        levels = len(parameters.downsampling)
        self.down = nn.ModuleList(
            _double_convolution(
                parameters.in_channels if level == 0 else parameters.maps(level - 1),
                parameters.maps(level),
                parameters.kernel(level),
            )
            for level in range(levels + 1)
        )
        self.pool = nn.ModuleList(nn.MaxPool3d(factor, stride=factor) for factor in parameters.downsampling)
        self.grow = nn.ModuleList(
            _upsampling(
                parameters.maps(level + 1),
                parameters.maps(level),
                parameters.downsampling[level],
                parameters.upsampling,
            )
            for level in range(levels)
        )
        self.up = nn.ModuleList(
            _double_convolution(2 * parameters.maps(level), parameters.maps(level), parameters.kernel(level))
            for level in range(levels)
        )
        self.head = nn.Conv3d(parameters.maps(0), parameters.out_channels, 1)
        nn.init.zeros_(_bias(self.head))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Outputs in [0, 1].

        Args:
            values: `(b, in_channels, z, y, x)`, a valid extent.

        Returns:
            `(b, out_channels, z', y', x')`, the heads one after the other.
        """
        skips: list[torch.Tensor] = []
        for level, pool in enumerate(self.pool):
            values = self._convolve(self.down[level], values)
            skips.append(values)
            values = pool(values)
        values = self._convolve(self.down[-1], values)
        for level in reversed(range(len(self.pool))):
            values = self.grow[level](values)
            values = torch.cat([crop(skips.pop(), values.shape[-3:]), values], dim=1)
            values = self._convolve(self.up[level], values)
        return torch.sigmoid(self.head(values))

    def _convolve(self, pair: nn.Module, values: torch.Tensor) -> torch.Tensor:
        if self.recompute and torch.is_grad_enabled():
            return torch.utils.checkpoint.checkpoint(pair, values, use_reentrant=False)
        return pair(values)

    @torch.no_grad()
    def begin_with(self, other: UNet) -> None:
        """Take over the weights of a network of the same size that sees the first of the input channels.

        The head stays as it is. The further channels are not looked at to begin with: random weights for them would
        drown what the other network has learned, and may leave no convolution alive.

        Args:
            other: The other network, of the same size.
        """
        assert self.geometry.same_size(other.geometry)
        for (name, weight), theirs in zip(self.named_parameters(), other.parameters(), strict=True):
            if name.startswith("head."):
                continue
            if weight.shape == theirs.shape:
                weight.copy_(theirs)
            else:
                weight.zero_()
                weight[:, : theirs.shape[1]].copy_(theirs)


def crop(values: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The middle of the last three axes.

    Args:
        values: `(…, z, y, x)`.
        shape: Extent to keep, z y x; differs by an even number along each axis.
    """
    begins = [(have - want) // 2 for have, want in zip(values.shape[-3:], shape, strict=True)]
    z, y, x = (slice(b, b + want) for b, want in zip(begins, shape, strict=True))
    return values[..., z, y, x]


class _Convolution(nn.Conv3d):
    """A valid convolution that stays on the fast path when there is a single input channel.

    PyTorch sends small CPU convolutions to a slow kernel and judges by the extents without x: one channel always looks
    small. A second channel of zeros, with weights of zeros, changes nothing but the path (2 to 3 times faster).
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if input.shape[1] > 1 or input.device.type != "cpu":
            return super().forward(input)
        widened = torch.cat([input, torch.zeros_like(input)], dim=1).to(memory_format=torch.channels_last_3d)
        weight = torch.cat([self.weight, torch.zeros_like(self.weight)], dim=1)
        return nn.functional.conv3d(widened, weight.to(memory_format=torch.channels_last_3d), self.bias)


def _double_convolution(below: int, maps: int, kernel: Triple) -> nn.Sequential:
    first, second = _Convolution(below, maps, kernel), nn.Conv3d(maps, maps, kernel)
    for layer in (first, second):
        if _has_values(layer.weight):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(_bias(layer))
    return nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True))


def _upsampling(below: int, maps: int, factor: Triple, kind: Upsampling) -> nn.Module:
    layer: nn.Conv3d | nn.ConvTranspose3d
    if kind == "transposed":
        layer = nn.ConvTranspose3d(below, maps, factor, stride=factor)
    else:
        layer = nn.Conv3d(below, maps, 1)
    # no ReLU follows: the variance is kept by one over the number of maps that are added up
    if _has_values(layer.weight):
        nn.init.normal_(layer.weight, std=below**-0.5)
    nn.init.zeros_(_bias(layer))
    if kind == "transposed":
        return layer
    scale = tuple(float(f) for f in factor)
    if kind == "nearest":
        return nn.Sequential(layer, nn.Upsample(scale_factor=scale, mode="nearest"))
    # Interpolation at the border has seen nothing beyond it: cut it off, or tiles would show.
    return nn.Sequential(layer, nn.Upsample(scale_factor=scale, mode="trilinear"), CutBorder(factor))


def _has_values(weight: torch.Tensor) -> bool:
    """Whether it has any to draw; to draw none, PyTorch would load its compiler, which takes seconds."""
    return not weight.is_meta


def _bias(layer: nn.Conv3d | nn.ConvTranspose3d) -> torch.Tensor:
    assert layer.bias is not None
    return layer.bias


class CutBorder(nn.Module):
    """Cut off what one voxel before the upsampling became, on every side of the axes that were upsampled.

    Args:
        factor: Of the upsampling, z y x.

    Attributes:
        width: Voxels cut off on each side, z y x.
    """

    def __init__(self, factor: Triple) -> None:
        super().__init__()
        self.width = [f if f > 1 else 0 for f in factor]

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return crop(values, [size - 2 * cut for size, cut in zip(values.shape[-3:], self.width, strict=True)])
