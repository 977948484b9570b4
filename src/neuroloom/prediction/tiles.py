"""What tiles have to be so that their borders cannot be seen, and how values are kept.

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
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from neuroloom.networks.architecture import UNetParameters, input_shape
from neuroloom.volume.array import Triple

if TYPE_CHECKING:
    import torch


def round_up(shape: Sequence[int], factor: Sequence[int]) -> Triple:
    """The smallest multiples of `factor` that are not below `shape`, z y x."""
    z, y, x = (-(-s // f) * f for s, f in zip(shape, factor, strict=True))
    return z, y, x


def tiles_of(shape: Triple, tile: Triple) -> Iterator[tuple[Triple, Triple]]:
    """Begin and extent in voxels of the tiles of a region; those at its end are cut.

    Args:
        shape: The region's extent in voxels.
        tile: Extent of one tile in voxels.
    """
    for z, y, x in itertools.product(*(range(0, s, t) for s, t in zip(shape, tile, strict=True))):
        a, b, c = (min(t, s - o) for t, s, o in zip(tile, shape, (z, y, x), strict=True))
        yield (z, y, x), (a, b, c)


def common_factor(networks: Sequence[UNetParameters]) -> Triple:
    """Voxels by which all networks may be moved without changing what they give, z y x."""
    z, y, x = (math.lcm(*along) for along in zip(*(network.factor for network in networks), strict=True))
    return z, y, x


def extents(networks: Sequence[UNetParameters], tile: Triple) -> list[Triple]:
    """Extents of what each network sees, in the order they run: of raw, and of descriptors where there are any.

    Args:
        networks: In the order they run.
        tile: Extent of what the last one is asked for, in voxels.
    """
    found: list[Triple] = []
    for network in reversed(networks):
        tile = input_shape(network, tile)
        found.insert(0, tile)
    return found


def to_uint8(values: torch.Tensor) -> torch.Tensor:
    """[0, 1] to 0 … 255, rounded to the nearest."""
    return values.float().mul(255).round_().clamp_(0, 255).byte()
