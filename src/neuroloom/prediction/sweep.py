"""A valid U-Net in one sweep along z: slabs of planes go in and come out, and what nothing needs any more is dropped.

    slabs -> conv conv ------- kept until the way up gets there ------- join -> conv conv -> head -> slabs
                  \\                                                     /
                   pool -> conv conv --- kept --- join -> conv conv -> grow
                               \\                  /
                                pool -> conv conv -> grow

A convolution of three planes needs the last two planes of the slab before; these, the planes a pooling could not use
yet, and the skips of some sixty planes are all that is remembered. So a region of any depth takes the memory of a
hundred planes, where a tile would take that of a cube, and nothing along z is computed twice. Apart from rounding, what
comes out is what the network gives for the whole region at once.

Memory, not arithmetic, holds up a processor with matrix instructions, so as little as can be is moved. What is put
together anyway, for the first convolution of a pair, has room in front for the planes that this one remembers. What a
convolution gives stays where it is: the next computes a few planes at the border of two slabs apart from the rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import nn

from neuroloom.networks.unet import UNet, crop
from neuroloom.prediction.passes import copy, pool
from neuroloom.volume.array import Triple

SLAB = 3 * 2**20
"""Voxels of a slab of the input: with fewer, layers wait more than they work, with more, memory is wasted."""

MOST_PLANES = 64
"""Of a slab; narrow slabs have fewer voxels."""

Load = Callable[[int, int, torch.Tensor], object]
"""Called with begin and end along z and a place `(1, c, end - begin, y, x)` to fill."""

_Given = TypeVar("_Given")

Pieces = list[torch.Tensor]
"""One slab, in pieces that follow each other along z. Who takes them empties the list."""

Put = Callable[[torch.Tensor, torch.Tensor], object]
"""Called with a place and what goes there."""


def planes_at_once(shape: Triple) -> int:
    """Planes of a slab.

    Args:
        shape: Extent of the input in voxels, z y x.
    """
    return max(1, min(MOST_PLANES, round(SLAB / (shape[1] * shape[2]))))


def sweep(
    network: UNet, load: Load, shape: Triple, like: torch.Tensor, step: int | None = None
) -> Iterator[torch.Tensor]:
    """The output of a network, slab by slab.

    Args:
        network: In evaluation mode; gradients must be off.
        load: Fills in the planes of the input, in order.
        shape: Extent of the input in voxels, z y x; a valid one.
        like: Input is of its number format and on its device.
        step: Planes of the input taken at once; default: `planes_at_once`.

    Yields:
        `(1, out_channels, n, y, x)` before the sigmoid, for one n after the other.
    """
    geometry = network.geometry
    depth = geometry.kernel(0)[0] - 1
    planes = step or planes_at_once(shape)
    # numbers of 16 bits are multiplied in pairs; from an odd number of channels they have to be put together first
    channels = geometry.in_channels + (geometry.in_channels % 2 if like.itemsize == 2 else 0)

    def read(begin: int) -> torch.Tensor:
        end = min(begin + planes, shape[0])
        slab = _empty(like, channels, depth + end - begin, shape[1], shape[2])
        if channels > geometry.in_channels:
            slab.zero_()
        load(begin, end, slab[:, : geometry.in_channels, depth:])
        return slab

    pieces = _level(network, 0, map(read, range(0, shape[0], planes)))
    return map(network.head, chain.from_iterable(map(_one_by_one, pieces)))


def _level(network: UNet, level: int, slabs: Iterator[torch.Tensor]) -> Iterator[Pieces]:
    """A level and all below it; slabs have room for what its first convolution remembers."""
    geometry = network.geometry
    pieces = _pair(network.down[level], slabs)
    if level == len(network.pool):
        return pieces
    kept = Kept(skipped=_lost_below(network, level) // 2)
    factor, rims = geometry.downsampling[level], [geometry.kernel(deep)[0] - 1 for deep in (level, level + 1)]
    slabs = _pass(_Pool(factor, room=rims[1]), map(kept.watch, pieces))
    reach = 2 if geometry.upsampling == "trilinear" and factor[0] > 1 else 0
    slabs = _pass(_Join(network.grow[level], reach, kept, room=rims[0]), _level(network, level + 1, slabs))
    return _pair(network.up[level], slabs)


def _pair(pair: nn.Module, slabs: Iterator[torch.Tensor]) -> Iterator[Pieces]:
    """Two convolutions, each with its ReLU."""
    first, second = (layer for layer in pair.children() if isinstance(layer, nn.Conv3d))
    slabs = map(partial(_convolve, first), _pass(_Filled(first.kernel_size[0] - 1), slabs))
    pieces = _pass(_Apart(second.kernel_size[0] - 1), slabs)
    return map(list, map(partial(map, partial(_convolve, second)), map(_one_by_one, pieces)))


def _lost_below(network: UNet, level: int) -> int:
    """Planes of a level by which what comes up from below is less than its skip."""
    geometry = network.geometry
    factor = geometry.downsampling[level][0]
    lost = 2 * (geometry.kernel(level + 1)[0] - 1)
    if level + 1 < len(geometry.downsampling):
        lost = 2 * lost + _lost_below(network, level + 1)
    return factor * lost + (2 * factor if geometry.upsampling == "trilinear" and factor > 1 else 0)


def _pass(layer: Callable[[Any], _Given | None], taken: Iterator[Any]) -> Iterator[_Given]:
    """What a layer makes of one after the other; nothing as long as it has too few planes. `map` holds on to none."""
    return (given for given in map(layer, taken) if given is not None)


def _one_by_one(pieces: Pieces) -> Iterator[torch.Tensor]:
    """Pieces that nobody holds on to any more when the next is asked for."""
    while pieces:
        yield pieces.pop(0)


def _empty(like: torch.Tensor, channels: int, *shape: int) -> torch.Tensor:
    """A place for planes in which those of one z lie together, all channels of a voxel side by side."""
    size = (1, channels, *shape)
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last_3d)


class _Before:
    """The last planes that a layer has seen, which it needs in front of the next ones.

    Args:
        most: How many it needs.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.there = 0
        self._planes: torch.Tensor | None = None

    def fill(self, room: torch.Tensor) -> None:
        """Write what is remembered into a place of as many planes."""
        if self._planes is not None and self.there:
            room.copy_(self._planes[:, :, : self.there])

    def joined(self, planes: torch.Tensor) -> torch.Tensor:
        """What is remembered with these planes after it, copied; they may be given on, what is remembered not."""
        if self._planes is None or not self.there:
            return planes
        room, end = self._planes, self.there + planes.shape[2]
        if room.shape[2] < end:
            room = _empty(planes, planes.shape[1], end, *planes.shape[3:])
            self.fill(room[:, :, : self.there])
        room[:, :, self.there : end] = planes
        return room[:, :, :end]

    def remember(self, planes: torch.Tensor) -> None:
        """Copy the last of these planes, forget what was. There is room behind them for as many others."""
        self.there = min(self.most, planes.shape[2])
        self._planes = None
        if self.there:
            self._planes = _empty(planes, planes.shape[1], 2 * self.most, *planes.shape[3:])
            self._planes[:, :, : self.there] = planes[:, :, planes.shape[2] - self.there :]


class _Filled:
    """What the first convolution of a pair sees: the slab, with what is remembered in the room in front of it.

    Args:
        rim: Planes of room.
    """

    def __init__(self, rim: int) -> None:
        self.before = _Before(rim)

    def __call__(self, slab: torch.Tensor) -> torch.Tensor | None:
        room, there = self.before.most, self.before.there
        slab = slab[:, :, room - there :]
        self.before.fill(slab[:, :, :there])
        self.before.remember(slab)
        return slab if slab.shape[2] > room else None


class _Apart:
    """What the second convolution of a pair sees: a few planes around the border of two slabs, then the slab itself.

    Args:
        rim: Planes by which a convolution gives less than it sees.
    """

    def __init__(self, rim: int) -> None:
        self.before = _Before(rim)

    def __call__(self, slab: torch.Tensor) -> Pieces | None:
        rim = self.before.most
        if slab.shape[2] <= 2 * rim:
            found = [self.before.joined(slab)]
        elif self.before.there:
            found = [self.before.joined(slab[:, :, :rim]), slab]
        else:
            found = [slab]
        self.before.remember(found[-1])
        return found if found[0].shape[2] > rim else None


def _convolve(layer: nn.Conv3d, values: torch.Tensor) -> torch.Tensor:
    """What a layer and a ReLU give; channels that the layer does not know are left out.

    On a processor in one pass. PyTorch itself makes two of it, and takes a slow kernel when there are few planes.
    """
    weight, unknown = layer.weight, values.shape[1] - layer.in_channels
    if unknown:
        weight = nn.functional.pad(weight, (0, 0, 0, 0, 0, 0, 0, unknown))
    if values.device.type == "cpu" and _is_fast(values.dtype):
        none, one = [0, 0, 0], [1, 1, 1]
        fused = torch.ops.mkldnn._convolution_pointwise
        found: torch.Tensor = fused(values, weight, layer.bias, none, one, one, 1, "relu", [], "")
        return found
    return nn.functional.conv3d(values, weight, layer.bias).relu_()


@cache
def _is_fast(dtype: torch.dtype) -> bool:
    """Whether oneDNN convolves numbers of a format on this processor."""
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    return dtype in (torch.float32, torch.bfloat16) and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


class _Pool:
    """A max-pooling, into slabs with room in front.

    Args:
        factor: By which it pools, z y x.
        room: Planes of room.
    """

    def __init__(self, factor: Triple, room: int) -> None:
        self.factor, self.room = factor, room
        self.before = _Before(factor[0] - 1)

    def __call__(self, pieces: Pieces) -> torch.Tensor | None:
        z, y, x = self.factor
        planes = (self.before.there + sum(piece.shape[2] for piece in pieces)) // z
        like = pieces[0]
        slab = _empty(like, like.shape[1], self.room + planes, like.shape[3] // y, like.shape[4] // x)
        place = slab[:, :, self.room :]
        for piece in pieces:
            there = self.before.there
            if there and there + piece.shape[2] >= z:
                pool(self.before.joined(piece[:, :, : z - there]), self.factor, place[:, :, :1])
                piece, place = piece[:, :, z - there :], place[:, :, 1:]
                self.before.there = 0
            whole = piece.shape[2] // z
            pool(piece[:, :, : whole * z], self.factor, place[:, :, :whole])
            place = place[:, :, whole:]
            self.before.remember(self.before.joined(piece[:, :, whole * z :]))
        return slab if planes else None


class _Join:
    """The way up: what comes from the level below is made larger and put beside the skip of the same place.

    Args:
        layer: What makes it larger.
        reach: Planes that it needs of the slab before.
        kept: The skips.
        room: Planes of room in front of what it gives.
    """

    def __init__(self, layer: nn.Module, reach: int, kept: Kept, room: int) -> None:
        self.layer, self.kept, self.room = layer, kept, room
        self.before = _Before(reach)

    def __call__(self, pieces: Pieces) -> torch.Tensor | None:
        found = []
        for piece in _one_by_one(pieces):
            seen = self.before.joined(piece)
            self.before.remember(seen)
            if seen.shape[2] > self.before.most:
                found.append(self.layer(seen))
        if not found:
            return None
        like, planes = found[0], sum(piece.shape[2] for piece in found)
        maps = like.shape[1]
        slab = _empty(like, 2 * maps, self.room + planes, *like.shape[3:])
        place = slab[:, :, self.room :]
        self.kept.take(place[:, :maps], copy)
        for piece in _one_by_one(found):
            copy(place[:, maps:, : piece.shape[2]], piece)
            place = place[:, :, piece.shape[2] :]
        return slab


class Kept:
    """Planes that wait for the one who needs them, in order.

    Args:
        skipped: Planes at the begin that nobody needs.
    """

    def __init__(self, skipped: int = 0) -> None:
        self.skipped = skipped
        self.slabs: deque[torch.Tensor] = deque()

    def watch(self, pieces: Pieces) -> Pieces:
        """The same pieces, remembered as they pass."""
        for piece in pieces:
            self.add(piece)
        return pieces

    def add(self, planes: torch.Tensor) -> None:
        """Remember planes `(1, c, n, y, x)`."""
        left_out = min(self.skipped, planes.shape[2])
        self.skipped -= left_out
        if left_out < planes.shape[2]:
            self.slabs.append(planes[:, :, left_out:])

    @property
    def planes(self) -> int:
        """How many are waiting."""
        return sum(slab.shape[2] for slab in self.slabs)

    def take(self, place: torch.Tensor, put: Put) -> None:
        """Move the next planes, cut in the middle of y and x, into a place `(1, c, n, y, x)`.

        Args:
            place: Where they go.
            put: Writes planes into a place of their extent.
        """
        done, wanted = 0, place.shape[2]
        while done < wanted:
            slab = self.slabs.popleft()
            some = min(slab.shape[2], wanted - done)
            put(place[:, :, done : done + some], crop(slab[:, :, :some], (some, *place.shape[3:])))
            if some < slab.shape[2]:
                self.slabs.appendleft(slab[:, :, some:])
            done += some
