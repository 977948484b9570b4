"""Running a valid network over a region in tiles whose borders cannot be seen.

A valid U-Net gives the same values for a voxel wherever the tile begins, as long as tiles begin at multiples of its
factor: max-pooling cuts the input into cells, and the cells must fall on the same voxels. Hence

    region  |-- tile --|-- tile --|- rest -|        tile = k * factor, first tile at the region's begin
    input |== context + tile + context ==|          a network that gives more than it is asked for is cut

and the result does not depend on k, apart from floating point. Nor does the input: every tile reaches beyond itself by
as much as the region does, `input_shape(region) - region`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch

from neuroloom.networks.unet import UNetParameters, input_shape
from neuroloom.volume.array import Triple


def round_up(shape: Sequence[int], factor: Sequence[int]) -> Triple:
    """The smallest multiples of `factor` that are not below `shape`, z y x."""
    z, y, x = (-(-s // f) * f for s, f in zip(shape, factor, strict=True))
    return z, y, x


def run_tiled(
    network: Callable[[torch.Tensor], torch.Tensor],
    parameters: UNetParameters,
    load: Callable[[Triple, Triple], torch.Tensor],
    shape: Triple,
    tile: Triple,
    channels: int,
    report: Callable[[float], None] = lambda share: None,
) -> torch.Tensor:
    """Run a network over a region in tiles and keep its output as uint8.

    Args:
        network: Takes `(1, c, z, y, x)`, gives `(1, channels, z', y', x')` in [0, 1].
        parameters: The network's geometry.
        load: Called with begin and extent of a tile's input, in voxels from the begin of the region's input (within
            `input_shape` of the region); gives `(1, c, z, y, x)` on the network's device.
        shape: The region's extent in voxels, multiples of the network's factor.
        tile: Extent of one tile in voxels, multiples of the network's factor.
        channels: Output channels.
        report: Called after every tile with the share of the region that is done.

    Returns:
        `(channels, z, y, x)` uint8, 0 … 255 for 0 … 1, on the device of the network's output.
    """
    result: torch.Tensor | None = None
    done = 0
    begins = [range(0, s, t) for s, t in zip(shape, tile, strict=True)]
    for begin in itertools.product(begins[0], begins[1], begins[2]):
        z, y, x = (min(t, s - b) for b, s, t in zip(begin, shape, tile, strict=True))
        output = network(load(begin, input_shape(parameters, (z, y, x))))[0, :, :z, :y, :x]
        if result is None:
            result = torch.empty((channels, *shape), dtype=torch.uint8, device=output.device)
        place = tuple(slice(b, b + e) for b, e in zip(begin, (z, y, x), strict=True))
        result[(slice(None), *place)] = to_uint8(output)
        done += z * y * x
        report(done / math.prod(shape))
    assert result is not None
    return result


def to_uint8(values: torch.Tensor) -> torch.Tensor:
    """[0, 1] to 0 … 255, rounded to the nearest."""
    return values.float().mul(255).round_().clamp_(0, 255).to(torch.uint8)


def from_uint8(values: torch.Tensor) -> torch.Tensor:
    """0 … 255 to [0, 1], float32."""
    return values.float().div_(255)
