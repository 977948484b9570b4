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

Every slab has room in front of its planes for what the layer that takes it remembers, so that only that is copied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import torch
from torch import nn

from neuroloom.networks.unet import UNet, crop
from neuroloom.volume.array import Triple

SLAB = 2**21
"""Voxels of a slab of the input: with fewer, layers wait more than they work, with more, memory is wasted."""

MOST_PLANES = 64
"""Of a slab; narrow slabs have fewer voxels."""

Load = Callable[[int, int, torch.Tensor], object]
"""Called with begin and end along z and a place `(1, c, end - begin, y, x)` to fill."""


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
        `(1, out_channels, n, y, x)` in [0, 1], float32, for one n after the other.
    """
    geometry = network.geometry
    depth = geometry.kernel(0)[0] - 1
    planes = step or planes_at_once(shape)

    def read(begin: int) -> torch.Tensor:
        end = min(begin + planes, shape[0])
        slab = _empty(like, geometry.in_channels, depth + end - begin, shape[1], shape[2])
        load(begin, end, slab[:, :, depth:])
        return slab

    for slab in _level(network, 0, map(read, range(0, shape[0], planes)), room=0):
        yield torch.sigmoid(network.head(slab).float())


def _level(network: UNet, level: int, slabs: Iterator[torch.Tensor], room: int) -> Iterator[torch.Tensor]:
    """A level and all below it; `room` planes are left in front of its slabs."""
    geometry = network.geometry
    rim = geometry.kernel(level)[0] - 1
    first, second = _convolutions(network.down[level])
    slabs = _pass(_Convolve(first, rim, room=rim), slabs)
    if level == len(network.pool):
        return _pass(_Convolve(second, rim, room), slabs)
    factor = geometry.downsampling[level][0]
    kept = Kept(factor - 1, skipped=_lost_below(network, level) // 2)
    slabs = kept.watch(_pass(_Convolve(second, rim, room=factor - 1), slabs))
    slabs = _pass(_Pool(network.pool[level], factor, room=geometry.kernel(level + 1)[0] - 1), slabs)
    reach = 2 if geometry.upsampling == "trilinear" and factor > 1 else 0
    below = _level(network, level + 1, slabs, room=reach)
    slabs = _pass(_Join(network.grow[level], reach, kept, room=rim), below)
    first, second = _convolutions(network.up[level])
    return _pass(_Convolve(second, rim, room), _pass(_Convolve(first, rim, room=rim), slabs))


def _convolutions(pair: nn.Module) -> tuple[nn.Conv3d, nn.Conv3d]:
    first, second = (layer for layer in pair.children() if isinstance(layer, nn.Conv3d))
    return first, second


def _lost_below(network: UNet, level: int) -> int:
    """Planes of a level by which what comes up from below is less than its skip."""
    geometry = network.geometry
    factor = geometry.downsampling[level][0]
    lost = 2 * (geometry.kernel(level + 1)[0] - 1)
    if level + 1 < len(geometry.downsampling):
        lost = 2 * lost + _lost_below(network, level + 1)
    return factor * lost + (2 * factor if geometry.upsampling == "trilinear" and factor > 1 else 0)


def _pass(
    layer: Callable[[torch.Tensor], torch.Tensor | None], slabs: Iterator[torch.Tensor]
) -> Iterator[torch.Tensor]:
    """What a layer makes of slabs; nothing as long as it has too few planes. `map` holds on to no slab."""
    return (slab for slab in map(layer, slabs) if slab is not None)


def _empty(like: torch.Tensor, channels: int, *shape: int) -> torch.Tensor:
    """A place for planes in which those of one z lie together, all channels of a voxel side by side."""
    size = (1, channels, *shape)
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last_3d)


class _Before:
    """Puts the planes that a layer still needs in front of the next slab, into the room that is there.

    Args:
        room: Planes of room in front of slabs.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.planes: torch.Tensor | None = None

    def overlapping(self, slab: torch.Tensor) -> torch.Tensor | None:
        """The slab with the last planes before it; None while there are no more than these."""
        joined = self.joined(slab)
        self.remember(joined[:, :, max(0, joined.shape[2] - self.room) :])
        return joined if joined.shape[2] > self.room else None

    def joined(self, slab: torch.Tensor) -> torch.Tensor:
        """What is remembered, and the slab after it."""
        if self.planes is None:
            return slab[:, :, self.room :]
        begin = self.room - self.planes.shape[2]
        slab[:, :, begin : self.room] = self.planes
        return slab[:, :, begin:]

    def remember(self, planes: torch.Tensor) -> None:
        """Keep a copy of planes for the next slab."""
        self.planes = planes.clone()


class _Convolve:
    """A convolution along z of `rim` + 1 planes, and ReLU."""

    def __init__(self, layer: nn.Conv3d, rim: int, room: int) -> None:
        self.layer, self.room = layer, room
        self.before = _Before(rim)

    def __call__(self, slab: torch.Tensor) -> torch.Tensor | None:
        joined = self.before.overlapping(slab)
        if joined is None:
            return None
        found = _convolution(self.layer, joined)
        slab = _empty(found, found.shape[1], self.room + found.shape[2], *found.shape[3:])
        torch.clamp_min(found, 0, out=slab[:, :, self.room :])
        return slab


def _convolution(layer: nn.Conv3d, values: torch.Tensor) -> torch.Tensor:
    """What a layer gives, on the fast path: for slabs of few planes, PyTorch itself takes a slow kernel on a CPU."""
    if values.device.type == "cpu" and values.dtype == torch.float32 and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        none, one = [0, 0, 0], [1, 1, 1]
        return torch.mkldnn_convolution(values, layer.weight, layer.bias, none, one, one, 1)
    return nn.functional.conv3d(values, layer.weight, layer.bias)


class _Pool:
    """A pooling of `factor` planes each."""

    def __init__(self, layer: nn.Module, factor: int, room: int) -> None:
        self.layer, self.factor, self.room = layer, factor, room
        self.before = _Before(factor - 1)

    def __call__(self, slab: torch.Tensor) -> torch.Tensor | None:
        joined = self.before.joined(slab)
        whole = joined.shape[2] // self.factor * self.factor
        self.before.remember(joined[:, :, whole:])
        if whole == 0:
            return None
        found = self.layer(joined[:, :, :whole])
        slab = _empty(found, found.shape[1], self.room + found.shape[2], *found.shape[3:])
        slab[:, :, self.room :] = found
        return slab


class _Join:
    """The way up: what comes from the level below is made larger and put beside the skip of the same place."""

    def __init__(self, layer: nn.Module, reach: int, kept: Kept, room: int) -> None:
        self.layer, self.kept, self.room = layer, kept, room
        self.before = _Before(reach)

    def __call__(self, slab: torch.Tensor) -> torch.Tensor | None:
        joined = self.before.overlapping(slab)
        if joined is None:
            return None
        found = self.layer(joined)
        maps, planes = found.shape[1], found.shape[2]
        slab = _empty(found, 2 * maps, self.room + planes, *found.shape[3:])
        self.kept.take(slab[:, :maps, self.room :])
        slab[:, maps:, self.room :] = found
        return slab


class Kept:
    """Planes that wait for the one who needs them, in order.

    Args:
        room: Planes of room in front of the slabs that are watched.
        skipped: Planes at the begin that nobody needs.
    """

    def __init__(self, room: int = 0, skipped: int = 0) -> None:
        self.room, self.skipped = room, skipped
        self.slabs: deque[torch.Tensor] = deque()

    def watch(self, slabs: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The same slabs, remembered as they pass."""

        def passing(slab: torch.Tensor) -> torch.Tensor:
            self.add(slab[:, :, self.room :])
            return slab

        return map(passing, slabs)

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

    def take(self, place: torch.Tensor) -> None:
        """Move the next planes, cut in the middle of y and x, into a place `(1, c, n, y, x)`."""
        done, wanted = 0, place.shape[2]
        while done < wanted:
            slab = self.slabs.popleft()
            some = min(slab.shape[2], wanted - done)
            place[:, :, done : done + some] = crop(slab[:, :, :some], (some, *place.shape[3:]))
            if some < slab.shape[2]:
                self.slabs.appendleft(slab[:, :, some:])
            done += some
