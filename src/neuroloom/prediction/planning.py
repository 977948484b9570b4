"""How a volume is cut for prediction: blocks that are done and kept one by one, and tiles that networks sweep through.

    block   what a worker predicts, writes, and would have to do again if it were stopped
    tile    what networks see in one sweep along z: as deep as the block; along y and x, of all that the memory holds,
            what wastes least. Networks see their context around it, which neighbouring tiles and blocks see again:
            with 64 voxels of context on every side, one 200 voxels wide computes 2.7 times what is written of it, one
            of 500 1.6 times.

The block depends on the volume and the networks only, so that a run may go on on another machine. The tile depends on
the memory of the machine, whether free or not; apart from floating point it does not change the result (see `tiles`).
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from neuroloom.models.foreign import ForeignModel
from neuroloom.networks import architecture
from neuroloom.networks.architecture import UNetParameters
from neuroloom.networks.memory import memory_there
from neuroloom.networks.precision import devices
from neuroloom.prediction.tiles import common_factor, extents, round_up, tiles_of
from neuroloom.volume.array import Triple

if TYPE_CHECKING:
    import torch

LARGEST = 544
"""Voxels of a block along y and x; along z twice as many, since a sweep needs no more memory for them."""

GRAIN = 32
"""Voxels, or a little more, of which blocks with neighbours are multiples: they are stored in chunks of that size."""

OPERATIONS = 1.25e15
"""Of a block at most, since one that is stopped is done again: 40 min at 500 GFLOP/s (two cores with bf16), 12 s
at 100 TFLOP/s. Without mirrors, only networks larger than those of the reference come to it."""

MEMORY = 8e9
"""Bytes for one tile on a processor at most, and where the machine is not known."""

AT_ONCE = 2
"""Processes that predict on one GPU."""

LOADED = 0.4e9
"""Bytes of a worker that has loaded this program and PyTorch."""

SCATTERED = 1.45
"""Bytes that a process holds for every byte of a tile: what is freed lies in pieces. Measured: 1.3 to 1.65."""

MORE_SCATTERED = 1.85
"""The same where tiles, or predictions to be averaged, follow each other in a block. Measured: 1.5 to 2.4."""

FOREIGN_BLOCK = 256
"""Voxels of a block along an axis, about, of somebody else's network: how many operations it takes is not known."""


def default_block(shape: Triple, networks: Sequence[UNetParameters], mirrors: int = 1) -> Triple:
    """A block for a volume: all parts of an axis about equal, multiples of the networks' factors.

    Args:
        shape: The volume's extent in voxels.
        networks: The networks that run one after the other.
        mirrors: How many predictions are averaged.

    Example:
        >>> network = UNetParameters(in_channels=1, heads=(("affinities", 3),))
        >>> default_block((250, 250, 500), [network])
        (252, 252, 500)
    """
    factor = common_factor(networks)
    grain = round_up((GRAIN, GRAIN, GRAIN), factor)
    for target in range(LARGEST, 0, -8):
        largest = (2 * target, target, target)
        steps = [f if size <= most else g for size, most, f, g in zip(shape, largest, factor, grain, strict=True)]
        block = balanced_block(shape, steps, largest)
        if mirrors * sum(_tiled_operations(networks, round_up(block, factor), block)) <= OPERATIONS:
            break
    return block


def foreign_block(shape: Triple, model: ForeignModel) -> Triple:
    """A block for a volume: all parts of an axis about equal, multiples of the network's factor.

    Args:
        shape: The volume's extent in voxels.
        model: What predicts.
    """
    return balanced_block(shape, model.factor, (FOREIGN_BLOCK, FOREIGN_BLOCK, FOREIGN_BLOCK))


def balanced_block(shape: Triple, factor: Sequence[int], target: Triple) -> Triple:
    """A block that cuts every axis into equal parts of about `target` voxels, a multiple of the networks' factor.

    Args:
        shape: The volume's extent in voxels.
        factor: The networks' factor in voxels.
        target: Largest extent of a block in voxels; exceeded where it is below the factor or an axis ends within it.

    Example:
        >>> balanced_block((250, 250, 500), (4, 4, 4), (300, 160, 160))
        (252, 128, 128)
    """
    z, y, x = (_balanced(*along) for along in zip(shape, factor, target, strict=True))
    return z, y, x


def _balanced(size: int, factor: int, target: int) -> int:
    parts = math.ceil(size / target)
    while True:
        extent = -(-math.ceil(size / parts) // factor) * factor
        if parts == 1 or extent <= max(target, factor):
            return extent
        parts += 1


def volume_operations(
    networks: Sequence[UNetParameters],
    shape: Triple,
    block: Triple,
    memory: float = MEMORY,
    dtype: torch.dtype | None = None,
    seen: Callable[[Triple], Triple] = lambda cut: cut,
) -> list[int]:
    """Floating-point operations (two for a multiply-add) of predicting a volume once, by network.

    Args:
        networks: In the order they run.
        shape: The volume's extent in voxels.
        block: That of a block; those at the volume's end are cut, but not what networks see around them.
        memory: Bytes for one tile.
        dtype: What networks compute in; float32 if None.
        seen: Extent of what networks predict for an extent of the volume, where that is not the same.
    """
    counts = [0] * len(networks)
    for cut, number in Counter(extent for _, extent in tiles_of(shape, block)).items():
        for network, count in enumerate(block_operations(networks, seen(cut), memory, dtype)):
            counts[network] += number * count
    return counts


def block_operations(
    networks: Sequence[UNetParameters], block: Triple, memory: float = MEMORY, dtype: torch.dtype | None = None
) -> list[int]:
    """Floating-point operations of predicting a block, by network; see `volume_operations`."""
    shape = round_up(block, common_factor(networks))
    return _tiled_operations(networks, shape, choose_tile(networks, shape, memory, dtype))


def _tiled_operations(networks: Sequence[UNetParameters], shape: Triple, tile: Triple) -> list[int]:
    counts = [0] * len(networks)
    for cut, times in Counter(extent for _, extent in tiles_of(shape, tile)).items():
        for number, (network, seen) in enumerate(zip(networks, extents(networks, cut), strict=True)):
            counts[number] += times * architecture.flop(network, seen)
    return counts


def choose_tile(
    networks: Sequence[UNetParameters], shape: Triple, memory: float, dtype: torch.dtype | None = None
) -> Triple:
    """The tile that wastes least of those that the memory holds: the region cut into equal parts along y and x.

    Args:
        networks: In the order they run.
        shape: The region's extent in voxels, multiples of the networks' factors.
        memory: Bytes for one tile.
        dtype: What networks compute in; float32 if None.

    Returns:
        Multiples of the networks' factor; the smallest, though it does not fit, where no tile does.
    """
    from neuroloom.prediction.tile_memory import tile_bytes  # sweeps with PyTorch

    factor = common_factor(networks)
    ways = [(0, shape)]  # of cutting, by operations: with more parts along an axis there are never fewer
    known = {shape}
    while True:
        _, tile = heapq.heappop(ways)
        if tile[1:] == factor[1:] or tile_bytes(tuple(networks), tile, dtype) <= memory:
            return tile
        z, y, x = tile
        for largest in ((z, y - 1, x), (z, y, x - 1)):
            smaller = balanced_block(shape, factor, largest)
            if smaller not in known:
                known.add(smaller)
                heapq.heappush(ways, (sum(_tiled_operations(networks, shape, smaller)), smaller))


def prediction_workers(wanted: str) -> list[str]:
    """The device of each process that predicts: two on a GPU, so that one reads and writes while the other computes.

    Args:
        wanted: Devices, as `devices` takes them.
    """
    names = devices(wanted)
    return [name for _ in range(AT_ONCE) for name in names if name.startswith("cuda")] or names


def memory_for_tiles(device: torch.device, memory_gb: float | None = None) -> float:
    """Bytes that one tile may take.

    Not what is free now, which would make the bytes of a run that goes on depend on what else was running.

    Args:
        device: Where networks run.
        memory_gb: As the project says; None for most of a GPU, shared by its processes, and a third of a machine.
    """
    if memory_gb is not None:
        return memory_gb * 1e9
    there = memory_there(device)
    return 0.8 * there / AT_ONCE if device.type == "cuda" else min(MEMORY, there / 3)


def block_bytes(
    networks: Sequence[UNetParameters], block: Triple, tile: Triple, mirrors: int, like: torch.Tensor
) -> float:
    """Bytes that a process takes while it predicts a block; on a GPU, of what lies there.

    Args:
        networks: In the order they run.
        block: Its extent in voxels.
        tile: From `choose_tile`.
        mirrors: How many predictions are averaged.
        like: Networks compute in its number format and on its device.
    """
    from neuroloom.prediction.tile_memory import tile_bytes  # sweeps with PyTorch

    outer = round_up(block, common_factor(networks))
    weights = like.itemsize * sum(architecture.parameter_count(network) for network in networks)
    raw = math.prod(extents(networks, outer)[0])
    result = dict(networks[-1].heads)["affinities"] * math.prod(block)
    taken = tile_bytes(tuple(networks), tile, like.dtype)
    if like.is_cuda:
        return weights + raw + result + taken
    sums = 0 if mirrors == 1 else 3 * result + raw  # two bytes each, one prediction, and its mirrored raw
    scattered = SCATTERED if tile == outer and mirrors == 1 else MORE_SCATTERED
    return LOADED + weights + raw + result + sums + scattered * taken
