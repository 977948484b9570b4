"""How a volume is cut for prediction: blocks that are done and kept one by one, and tiles that a network sees at once.

    block   what a worker predicts, writes, and would have to do again if it were stopped
    tile    what a network sees at once: its output fills the block (for descriptors: the block and the context around
            it). The input reaches beyond it by the network's context, so that larger tiles waste less on
            the rims that neighbours share: a tile of 100 with a context of 64 sees 4.4 times the voxels that it gives,
            one of 300 sees 1.8 times as many.

The block depends on the volume and the networks only, so that a run may go on on another machine. The tile depends on
the memory of the machine, whether free or not; apart from floating point it does not change the result (see `tiles`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from neuroloom.networks import unet
from neuroloom.networks.unet import UNetParameters
from neuroloom.prediction.tiles import round_up
from neuroloom.volume.array import Triple

LARGEST = 384
"""Voxels of a block along an axis: beyond, rims cost little, and the descriptors of a block take a gigabyte."""

OPERATIONS = 1e14
"""Of a block at most, since one that is stopped is done again: half an hour at 50 GFLOP/s, a second at 100 TFLOP/s."""

MEMORY = 8e9
"""Bytes for one tile on a processor, and where the machine is not known."""

WORKSPACE = 2.0
"""Bytes that a process takes for every byte of what layers put out: copies in other layouts, freed memory kept."""


def default_block(shape: Triple, networks: Sequence[UNetParameters], mirrors: int = 1) -> Triple:
    """A block for a volume: all parts of an axis about equal, multiples of the networks' factors.

    Args:
        shape: The volume's extent in voxels.
        networks: The networks that run one after the other.
        mirrors: How many predictions are averaged.

    Example:
        >>> network = UNetParameters(in_channels=1, heads=(("affinities", 3),))
        >>> default_block((250, 250, 500), [network])
        (252, 252, 252)
    """
    z, y, x = (math.lcm(*along) for along in zip(*(network.factor for network in networks), strict=True))
    for target in range(LARGEST, 0, -8):
        block = balanced_block(shape, (z, y, x), target)
        if mirrors * sum(block_operations(networks, block)) <= OPERATIONS:
            break
    return block


def balanced_block(shape: Triple, factor: Triple, target: int) -> Triple:
    """A block that cuts every axis into equal parts of about `target` voxels, a multiple of the networks' factor.

    Args:
        shape: The volume's extent in voxels.
        factor: The networks' factor in voxels.
        target: Largest extent of a block in voxels.

    Example:
        >>> balanced_block((250, 250, 500), (4, 4, 4), 160)
        (128, 128, 128)
    """
    parts = [math.ceil(size / target) for size in shape]
    return round_up([math.ceil(size / count) for size, count in zip(shape, parts, strict=True)], factor)


def block_operations(networks: Sequence[UNetParameters], block: Triple, memory: float = MEMORY) -> list[int]:
    """Floating-point operations (two for a multiply-add) of predicting a block, by network.

    Args:
        networks: In the order they run.
        block: Its extent in voxels.
        memory: Bytes for one tile.
    """
    counts: list[int] = []
    shape = block
    for network in reversed(networks):
        shape = round_up(shape, network.factor)
        tile = choose_tile(network, shape, memory)
        tiles = itertools.product(*(_extents(s, t) for s, t in zip(shape, tile, strict=True)))
        counts.insert(0, sum(unet.flop(network, unet.input_shape(network, extent)) for extent in tiles))
        shape = unet.input_shape(network, shape)
    return counts


def _extents(size: int, tile: int) -> list[int]:
    return [min(tile, size - begin) for begin in range(0, size, tile)]


def choose_tile(network: UNetParameters, shape: Triple, memory: float) -> Triple:
    """The largest tile that the memory holds: the region cut into equal parts along each axis.

    Args:
        network: What sees it.
        shape: The region's extent in voxels, multiples of the network's factor.
        memory: Bytes for one tile.

    Returns:
        Multiples of the network's factor; the smallest, though it does not fit, where no tile does.
    """
    smallest = round_up((1, 1, 1), network.factor)
    for parts in range(1, max(shape) + 1):
        target = math.ceil(max(shape) / parts)
        tile = balanced_block(shape, network.factor, target)
        if tile == smallest or tile_bytes(network, tile) <= memory:
            return tile
    return smallest


def tile_bytes(network: UNetParameters, tile: Triple) -> float:
    """Bytes that the prediction of a tile takes, layers in float32.

    Args:
        network: What sees it.
        tile: Its extent in voxels.
    """
    return WORKSPACE * 4 * unet.values_at_once(network, unet.input_shape(network, tile))
