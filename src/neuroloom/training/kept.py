"""Descriptors of the training volumes, computed once and kept on disk: crops look them up, however they are turned.

The descriptor network is frozen while affinities are learned from its output, and its part of a step is larger than
that of the network that learns: its input is larger by both networks' context. Here it sees every voxel once:

    raw ---------------- network ------------> descriptors --- uint8 --\
     |                                              |                    >  one file per volume, (z, y, x, 11)
    mirrored raw ------- network - mirrored -> descriptors - presence -/

    crop:  look up (nearest voxel) -> turn, see `augmentation.sampling.turn_descriptors`

Presence is the share of a neurite that the network sees at a voxel. Offsets and Pearson coefficients of 0 are stored as
1/2, but a network that doubts whether there is a neurite says less, and for a membrane 0. How much less can be told
from the mirror image, in which offsets are the opposite: the two add up to the presence.

What crops look up differs from what the network would have said of them in three ways: their raw was not changed in
intensity, their bending (but not their turn) is left out of directions, and descriptors are those of the nearest voxel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray

from neuroloom.errors import Interrupted
from neuroloom.files import make_folder, write_atomic
from neuroloom.networks.architecture import UNetParameters, input_shape, output_shape
from neuroloom.networks.setups import LSD_CHANNELS
from neuroloom.training.group import Group
from neuroloom.training.places import CELL
from neuroloom.training.windows import Window
from neuroloom.volume.array import Triple

CHANNELS = LSD_CHANNELS + 1
"""Descriptors and presence."""

PREDICTIONS = 2
"""Of every block: as it is, and of its mirror image."""

Network = Callable[[torch.Tensor], torch.Tensor]
"""Raw `(1, 1, Z, Y, X)` in [-1, 1] to descriptors `(1, 10, z, y, x)` in [0, 1]."""


@dataclass(frozen=True)
class KeptDescriptors:
    """Descriptors of a region of a volume.

    Attributes:
        values: `(z, y, x, 11)` uint8, 0 … 255 for 0 … 1.
        begin: First voxel of the region in the volume, z y x.
    """

    values: NDArray[np.uint8]
    begin: Triple

    def window(self, begin: Sequence[int], shape: Sequence[int]) -> Window:
        """Part of them, which may leave the volume.

        Args:
            begin: First voxel in the volume, z y x; may be negative.
            shape: Extent in voxels.
        """
        z, y, x = (b - own for b, own in zip(begin, self.begin, strict=True))
        return Window(self.values, (z, y, x), (shape[0], shape[1], shape[2]))


def region_of(cells: NDArray[np.int64], shape: Triple, reach: Triple) -> tuple[Triple, Triple]:
    """Begin and extent in voxels of what crops can see of a volume.

    Args:
        cells: Voxels that count in each cell of `CELL` voxels.
        shape: The volume's extent in voxels.
        reach: How far crops see beyond voxels that count.
    """
    begin, end = [], []
    for axis, places in enumerate(np.nonzero(cells)):
        begin.append(max(0, int(places.min()) * CELL - reach[axis]))
        end.append(min(shape[axis], (int(places.max()) + 1) * CELL + reach[axis]))
    z, y, x = (e - b for b, e in zip(begin, end, strict=True))
    return (begin[0], begin[1], begin[2]), (z, y, x)


def blocks_of(shape: Triple, network: UNetParameters, largest: Triple) -> tuple[Triple, list[Triple]]:
    """Output of the network that is computed at once, and the begins of the blocks that cover a region with it.

    Args:
        shape: The region's extent in voxels.
        network: The descriptor network.
        largest: No block is larger, but for what the network cannot do otherwise.
    """
    wanted = [math.ceil(n / math.ceil(n / most)) for n, most in zip(shape, largest, strict=True)]
    block = output_shape(network, input_shape(network, wanted))
    steps = (range(0, n, b) for n, b in zip(shape, block, strict=True))
    return block, [(z, y, x) for z, y, x in itertools.product(*steps)]


def keep_descriptors(
    read: Callable[[Triple, Triple], Window],
    region: tuple[Triple, Triple],
    path: Path,
    network: Network | None,
    geometry: UNetParameters,
    largest: Triple,
    device: torch.device,
    report: Callable[[float], None],
    stop: Callable[[], bool] = lambda: False,
    group: Group | None = None,
) -> KeptDescriptors:
    """Compute the descriptors of a region, or what is missing of them.

    Args:
        read: Raw, uint8 or float32 in [0, 1], from begin and extent in voxels of the volume.
        region: Begin and extent in voxels.
        path: The file, a .npy. Which blocks are done is kept beside it, so that what was stopped goes on.
        network: The frozen descriptor network; None leaves everything at 0.
        geometry: Its geometry.
        largest: The largest block computed at once, in voxels.
        device: Where.
        report: Called with the share that is done.
        stop: Asked before every block.
        group: Processes that share the work, each calling this.

    Raises:
        UserError: The disk is full, or the file cannot be written.
        Interrupted: One of the processes was to stop; what was computed is kept.
    """
    group = group or Group()
    begin, shape = region
    block, places = blocks_of(shape, geometry, largest)
    marks = path.with_suffix(".done.npy")
    if group.first and not (_is(path, (*shape, CHANNELS)) and _is(marks, (len(places),))):
        make_folder(path.parent)
        marks.unlink(missing_ok=True)
        _allocate(path, (*shape, CHANNELS))
        _allocate(marks, (len(places),))
    group.tell([0.0], device)  # the files are there
    values, done = np.load(path, mmap_mode="r+"), np.load(marks, mmap_mode="r+")
    for number in range(group.rank, len(places), group.size):
        if network is None or stop():
            break
        if done[number]:
            continue
        place = places[number]
        found = _describe(read, [b + p for b, p in zip(begin, place, strict=True)], block, network, geometry, device)
        z, y, x = (slice(p, min(p + n, s)) for p, n, s in zip(place, block, shape, strict=True))
        values[z, y, x] = found[: z.stop - z.start, : y.stop - y.start, : x.stop - x.start]
        values.flush()
        done[number] = 1
        report(float(np.mean(done)))
    done.flush()
    if group.add([float(stop())], device)[0] > 0:
        raise Interrupted(
            f"Stopped while descriptors were computed; {np.mean(done):.0%} of them are kept. Run the same command "
            "again to go on from there."
        )
    return KeptDescriptors(np.asarray(np.load(path, mmap_mode="r")), begin)


def _describe(
    read: Callable[[Triple, Triple], Window],
    begin: Sequence[int],
    block: Triple,
    network: Network,
    geometry: UNetParameters,
    device: torch.device,
) -> NDArray[np.uint8]:
    """Descriptors and presence of a block, `(z, y, x, 11)`."""
    outer = input_shape(geometry, block)
    z, y, x = (b - (o - n) // 2 for b, o, n in zip(begin, outer, block, strict=True))
    values = read((z, y, x), outer).read_mirrored()
    scale = 2 / 255 if values.dtype == np.uint8 else 2.0
    raw = torch.from_numpy(values).to(device).float().mul_(scale).sub_(1)[None, None]
    axes = (2, 3, 4)
    with torch.no_grad():
        descriptors = network(raw)[0]
        mirrored = network(raw.flip(axes)).flip(axes)[0]
    presence = (descriptors[:3] + mirrored[:3]).mean(dim=0, keepdim=True)
    both = torch.cat([descriptors, presence]).clamp_(0, 1).mul_(255).round_().to(torch.uint8)
    return np.ascontiguousarray(both.movedim(0, -1).cpu().numpy())


def _is(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether a file holds a whole array of this extent; one that is damaged or missing is made again."""
    try:
        return bool(np.load(path, mmap_mode="r").shape == shape)
    except (OSError, ValueError, EOFError):
        return False


def _allocate(path: Path, shape: tuple[int, ...]) -> None:
    """Write an array of zeros: where the disk has no room, this is told now and not by the system later."""

    def write(file: IO[bytes]) -> None:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        size, zeros = math.prod(shape), bytes(2**20)
        for start in range(0, size, len(zeros)):
            file.write(zeros[: size - start])

    write_atomic(path, write)
