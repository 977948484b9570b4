"""Raw to affinities through one network or two, in one sweep along z; descriptors exist a few planes at a time.

    raw        |<----------- context of both networks + tile ----------->|
    LSDs             |<------ context of one network + tile ------>|          uint8, planes that are waiting
    affinities                  |<------ tile ------>|                         uint8, slab by slab

Descriptors are rounded to uint8 between the networks, as they would be if they were stored, and go with the raw of the
same place into the affinity network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch

from neuroloom.networks.architecture import context
from neuroloom.networks.unet import UNet
from neuroloom.prediction.passes import look_up, looks_up
from neuroloom.prediction.sweep import Kept, sweep
from neuroloom.prediction.tiles import extents, to_uint8
from neuroloom.volume.array import Triple


@dataclass(frozen=True)
class Part:
    """A network in its place.

    Attributes:
        inputs: What it sees, "raw" and "lsd", in the order of the input's channels.
        network: In evaluation mode.
        raw_range: What raw 0 and 1 (uint8: 0 and 255) become before it.
    """

    inputs: tuple[str, ...]
    network: UNet
    raw_range: tuple[float, float] = (-1.0, 1.0)


def _nothing(share: float) -> None:
    pass


def run_fused(
    parts: Sequence[Part],
    raw: torch.Tensor,
    tile: Triple,
    like: torch.Tensor,
    report: Callable[[float], None] = _nothing,
) -> Iterator[torch.Tensor]:
    """What the last network gives for a tile, slab by slab.

    Args:
        parts: The descriptor network, where there is one, and the network that gives affinities.
        raw: `(z, y, x)` uint8, or float32 in [0, 1]; its extent is the first of `extents`.
        tile: Extent of the tile in voxels, multiples of the networks' factors.
        like: Networks compute in its number format and on its device.
        report: Called with the share of raw that is taken: long before the first planes come out.

    Yields:
        `(channels, n, y, x)` uint8, until the tile is full.
    """
    slabs: Iterator[torch.Tensor] | None = None
    seen = extents([part.network.geometry for part in parts], tile)
    wanted = [*seen[1:], tile]
    for part, shape, asked in zip(parts, seen, wanted, strict=True):
        slabs = map(partial(quantised, asked), _one(part, raw, slabs, shape, like, report))
        report = _nothing  # the first network's part is told
        half = [lost // 2 for lost in context(part.network.geometry)]
        z, y, x = (slice(h, h + n) for h, n in zip(half, asked, strict=True))
        raw = raw[z, y, x]  # what lies where this network's output lies
    assert slabs is not None
    left = tile[0]
    for slab in slabs:
        yield slab[0, :, :left]
        left -= slab.shape[2]
        if left <= 0:
            return


def quantised(shape: Triple, slab: torch.Tensor) -> torch.Tensor:
    """The sigmoid in uint8; without what nobody asked for, since a network may give a few voxels more.

    Args:
        shape: Extent that was asked for in voxels, z y x; of any depth.
        slab: `(1, c, n, y, x)` from a sweep.
    """
    slab = slab[..., : shape[1], : shape[2]]
    if not looks_up(slab):
        return to_uint8(torch.sigmoid(slab.float()))
    found = torch.empty(slab.shape, dtype=torch.uint8, device=slab.device, memory_format=torch.channels_last_3d)
    look_up(slab, _sigmoids(slab.dtype), found)
    return found


@cache
def _sigmoids(dtype: torch.dtype) -> torch.Tensor:
    """The sigmoid in uint8 of every number of sixteen bits."""
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    return to_uint8(torch.sigmoid(every.float()).nan_to_num_(0.0))


def _put_raw(scale: float, low: float, place: torch.Tensor, raw: torch.Tensor) -> None:
    """Write raw * scale + low into a place, computed in float32: bf16 would round twice, and most in the middle."""
    if looks_up(raw):
        look_up(raw, (torch.arange(256.0) * scale + low).to(place.dtype), place)
    else:
        place.copy_(raw.float() * scale + low)


def _put_descriptors(place: torch.Tensor, descriptors: torch.Tensor) -> None:
    """Write descriptors, kept in uint8, into a place."""
    if looks_up(descriptors):
        look_up(descriptors, torch.arange(256.0).to(place.dtype).div_(255), place)
    else:
        place.copy_(descriptors).div_(255)


def _one(
    part: Part,
    raw: torch.Tensor,
    descriptors: Iterator[torch.Tensor] | None,
    shape: Triple,
    like: torch.Tensor,
    report: Callable[[float], None],
) -> Iterator[torch.Tensor]:
    low, high = part.raw_range
    scale = (high - low) / (255 if raw.dtype == torch.uint8 else 1)
    waiting = Kept()

    def load(begin: int, end: int, place: torch.Tensor) -> None:
        report(begin / shape[0])
        first = 0
        for name in part.inputs:
            if name == "raw":
                _put_raw(scale, low, place[:, first : first + 1], raw[None, None, begin:end])
                first += 1
            else:
                assert descriptors is not None
                while waiting.planes < end - begin:
                    waiting.add(next(descriptors))
                waiting.take(place[:, first:], _put_descriptors)
                first = place.shape[1]

    return sweep(part.network, load, shape, like)
