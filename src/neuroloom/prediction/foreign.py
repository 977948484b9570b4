"""Affinities by somebody else's network, in tiles of the extents that it takes.

Where its affinities are kept at the first voxel of an edge instead of the second, that of v and v + 1 is ours of v + 1:
a tile's output begins a voxel earlier, and each such channel is cut a voxel earlier along its own axis.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neuroloom.blockwise.allocation import keep_freed_memory
from neuroloom.errors import UserError
from neuroloom.models.foreign import read_foreign
from neuroloom.models.foreign.network import ForeignNetwork
from neuroloom.networks.precision import choose_device
from neuroloom.prediction.fitting import is_out_of_memory, run_until_it_fits
from neuroloom.prediction.interface import Report, check_raw, check_values
from neuroloom.prediction.planning import memory_for_tiles
from neuroloom.prediction.tiles import to_uint8
from neuroloom.project import NEAREST
from neuroloom.volume import Volume
from neuroloom.volume.array import Triple


class ForeignPredictor:
    """Affinities of any region of raw, from somebody else's network; like a `Predictor`.

    Args:
        declaration: The file that declares it, or a package of bioimage.io.
        device: "auto", "cpu", "cuda", …
        precision: As `ForeignNetwork` takes it.
        memory_gb: For one tile; None for what the machine has to give.

    Attributes:
        voxel_size: nm, z y x, of the raw that it was trained on.
        factor: Regions must begin at multiples of it, in voxels from the volume's begin, z y x.
        margin: Voxels of raw read before a region's begin, z y x.
        neighborhood: Offsets of the affinities, z y x, the nearest as everywhere here.
        channels: Affinities per voxel.

    Raises:
        UserError: The declaration or the network is missing, damaged or wrong.
    """

    def __init__(
        self, declaration: Path, device: str = "auto", precision: str = "auto", memory_gb: float | None = None
    ) -> None:
        self.model = read_foreign(declaration)
        self.said = self.model.declaration
        self.network = ForeignNetwork(self.model, choose_device(device), precision)
        self.device = self.network.device
        self.voxel_size = self.said.voxel_size
        self.factor = self.model.factor
        self._tiles = self.said.tiles
        z, y, x = (along.margin for along in self._tiles)
        self.margin: Triple = (z, y, x)
        offsets = (*NEAREST, *self.said.neighborhood[3:]) if self.said.is_turned else self.said.neighborhood
        self.neighborhood = [list(offset) for offset in offsets]
        self.channels = len(self.neighborhood)
        # not what is free: a run that goes on later gives the same bytes
        self._voxels = memory_for_tiles(self.device, memory_gb) / self.network.bytes_per_voxel

    def check_volume(self, raw: Volume, resample: bool = False) -> None:
        """See `PredictsAffinities`."""
        check_raw(raw, self.voxel_size, self.model.path, resample)
        extents = [self.said.input]
        if self.said.grows and any(self.said.step):
            z, y, x = (extent + step for extent, step in zip(self.said.input, self.said.step, strict=True))
            extents.append((z, y, x))
        for extent in extents:
            try:
                self._run(normalise(np.random.default_rng(0).integers(0, 256, extent, np.uint8), self.said.raw_range))
            except RuntimeError as error:
                raise self._too_little_memory() from error
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # another process predicts the blocks

    def input_shape(self, shape: Triple) -> Triple:
        """See `PredictsAffinities`."""
        z, y, x = (along.region(n) + along.context for along, n in zip(self._tiles, shape, strict=True))
        return z, y, x

    def __call__(self, raw: NDArray[Any], shape: Triple, report: Report = lambda share: None) -> NDArray[np.uint8]:
        """See `PredictsAffinities`; UserError too where the network gives something else than is declared."""
        keep_freed_memory()  # not before: a process that only checks gives back what the first run took
        check_values(raw)
        values = normalise(raw, self.said.raw_range)
        z, y, x = (along.region(n) for along, n in zip(self._tiles, shape, strict=True))

        def tile() -> Triple:
            return self._choose_tile((z, y, x))

        found = run_until_it_fits(
            lambda: self._run_tiled(values, (z, y, x), tile(), report), lambda: self._take_smaller_tiles(tile())
        )
        return np.ascontiguousarray(found[:, : shape[0], : shape[1], : shape[2]])

    def _run(self, values: torch.Tensor) -> torch.Tensor:
        try:
            return self.network(values)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise UserError(
                f"{self.model.path}: the network cannot be run on {list(values.shape)} voxels ({lines[-1].strip()}). "
                "Correct `input`, `step` or `input_axes` in the declaration."
            ) from error

    def _run_tiled(self, values: torch.Tensor, region: Triple, tile: Triple, report: Report) -> NDArray[np.uint8]:
        result = np.empty((self.channels, *region), np.uint8)
        along_axes = (along.begins(n, t) for along, n, t in zip(self._tiles, region, tile, strict=True))
        begins = list(itertools.product(*along_axes))
        needed = [t + along.context for along, t in zip(self._tiles, tile, strict=True)]
        for number, begin in enumerate(begins, start=1):
            seen = tuple(slice(b, b + n) for b, n in zip(begin, needed, strict=True))
            output = to_uint8(self._run(values[seen])).cpu().numpy()
            place = tuple(slice(b, b + t) for b, t in zip(begin, tile, strict=True))
            for channel, kept in enumerate(output):
                result[channel][place] = kept[self._cut(channel, tile)]
            report(number / len(begins))
        return result

    def _cut(self, channel: int, tile: Triple) -> tuple[slice, ...]:
        """Where a tile's affinities lie in the output."""
        begins = [halo + self.said.is_turned for halo in self.said.halo]
        if self.said.is_turned and channel < len(NEAREST):
            begins[channel] -= 1
        return tuple(slice(b, b + t) for b, t in zip(begins, tile, strict=True))

    def _choose_tile(self, region: Triple) -> Triple:
        """The largest tile that the memory holds, by a rule of thumb; the smallest where none does."""
        for parts in range(1, max(region) + 1):
            target = math.ceil(max(region) / parts)
            z, y, x = (along.tile(n, target) for along, n in zip(self._tiles, region, strict=True))
            needed = [t + along.context for along, t in zip(self._tiles, (z, y, x), strict=True)]
            if math.prod(needed) <= self._voxels:
                break
        return z, y, x

    def _take_smaller_tiles(self, tile: Triple) -> None:
        """Remember that a tile was too large."""
        if tile == tuple(along.smallest for along in self._tiles):
            raise self._too_little_memory()
        self._voxels = math.prod(t + along.context for along, t in zip(self._tiles, tile, strict=True)) / 2

    def _too_little_memory(self) -> UserError:
        return UserError(
            f"The memory of {self.device} does not suffice to run {self.model.path} once. End other programs that use "
            "it, or declare a smaller `input` and `output`."
        )


def normalise(raw: NDArray[Any], target: tuple[float, float]) -> torch.Tensor:
    """Raw as networks take it.

    Args:
        raw: `(z, y, x)` uint8, or float32 in [0, 1].
        target: What 0 and 1 (uint8: 0 and 255) become.

    Returns:
        `(z, y, x)` float32.
    """
    low, high = target
    scale = 255.0 if raw.dtype == np.uint8 else 1.0
    values = torch.from_numpy(np.ascontiguousarray(raw, dtype=np.float32))
    return values.mul_((high - low) / scale).add_(low)
