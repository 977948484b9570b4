"""The architecture of the valid 3-D U-Net (`unet`): the extents it takes, its weights and operations. Needs no PyTorch.

All convolutions are "valid": every output voxel has seen the same context. Moving the input by the factor (the product
of all pooling steps) moves the output by the same; by less, it changes. Extents at which a level does not divide by its
pooling factor are refused, never cut, so that this always holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
    levels = len(parameters.downsampling)
    convolutions = [(parameters.maps(0), parameters.out_channels, 1)]
    for level in range(levels + 1):
        here, kernel = parameters.maps(level), math.prod(parameters.kernel(level))
        above = parameters.in_channels if level == 0 else parameters.maps(level - 1)
        convolutions += [(above, here, kernel), (here, here, kernel)]
        if level < levels:
            window = math.prod(parameters.downsampling[level]) if parameters.upsampling == "transposed" else 1
            convolutions += [(parameters.maps(level + 1), here, window), (2 * here, here, kernel), (here, here, kernel)]
    return sum((below * size + 1) * maps for below, maps, size in convolutions)


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
