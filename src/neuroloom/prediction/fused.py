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

import torch

from neuroloom.networks.architecture import context
from neuroloom.networks.unet import UNet
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
        slabs = map(_Quantise(asked), _one(part, raw, slabs, shape, like, report))
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


class _Quantise:
    """Rounds slabs to uint8 and leaves out what nobody asked for: a network may give a few voxels more."""

    def __init__(self, shape: Triple) -> None:
        self.shape = shape

    def __call__(self, slab: torch.Tensor) -> torch.Tensor:
        return to_uint8(slab[..., : self.shape[1], : self.shape[2]])


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
                # scaled in float32: bf16 would round twice, and most where grey values are in the middle
                place[0, first] = raw[begin:end].float() * scale + low
                first += 1
            else:
                assert descriptors is not None
                while waiting.planes < end - begin:
                    waiting.add(next(descriptors))
                waiting.take(place[:, first:])
                place[:, first:].div_(255)
                first = place.shape[1]

    return sweep(part.network, load, shape, like)
