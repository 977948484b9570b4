"""Affinities of any region of raw, from one checkpoint: tiles as large as the memory, one sweep through each."""

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
from neuroloom.networks.architecture import context
from neuroloom.networks.checkpoint import load_checkpoint
from neuroloom.networks.precision import choose_device, choose_precision, number_format
from neuroloom.networks.setups import SETUPS
from neuroloom.prediction.fitting import run_until_it_fits
from neuroloom.prediction.fused import Part, run_fused
from neuroloom.prediction.interface import Report, check_raw, check_values
from neuroloom.prediction.planning import choose_tile, memory_for_tiles
from neuroloom.prediction.tile_memory import tile_bytes
from neuroloom.prediction.tiles import common_factor, extents, round_up, tiles_of
from neuroloom.volume import Volume
from neuroloom.volume.array import Triple


class Predictor:
    """Affinities of any region of raw, from one checkpoint.

    Args:
        checkpoint: The file; an AcrLSD checkpoint holds its descriptor network too.
        device: "auto", "cpu", "cuda", …
        precision: "auto", "fp32", "bf16" or "fp16".
        memory_gb: For one tile; None for what the machine has to give.

    Attributes:
        voxel_size: nm, z y x, of the raw that the networks were trained on.
        factor: Regions must begin at multiples of it, in voxels from the volume's begin, z y x.
        margin: Voxels of raw read before a region's begin, z y x.
        channels: Affinities per voxel.
        geometries: Of the networks, in the order they run.

    Raises:
        UserError: The checkpoint is missing, damaged, or gives no affinities.
    """

    def __init__(
        self, checkpoint: Path, device: str = "auto", precision: str = "auto", memory_gb: float | None = None
    ) -> None:
        keep_freed_memory()
        self.path = checkpoint
        self.loaded = load_checkpoint(checkpoint)
        setup = self.loaded.metadata.setup
        if setup not in SETUPS:
            raise UserError(
                f"{checkpoint} is of setup {setup!r}, which is not among {', '.join(SETUPS)}. Declare it in "
                "networks/setups.py as it was when the network was trained."
            )
        if not SETUPS[setup].gives_affinities:
            raise UserError(f"{checkpoint} is of setup {setup!r}, which gives no affinities.")
        self.device = choose_device(device)
        self.precision = choose_precision(self.device, precision)
        parts = [*([self.loaded.lsd] if self.loaded.lsd else []), self.loaded]
        self.geometries = [part.metadata.network for part in parts]
        self._like = torch.empty(0, dtype=number_format(self.precision), device=self.device)
        self._parts = [
            Part(SETUPS[part.metadata.setup].inputs, part.network.to(self._like), part.metadata.raw_range)
            for part in parts
        ]
        self._memory = memory_for_tiles(self.device, memory_gb)
        self.voxel_size = self.loaded.metadata.voxel_size
        self.factor: Triple = common_factor(self.geometries)
        contexts = [context(network) for network in self.geometries]
        z, y, x = (sum(along) // 2 for along in zip(*contexts, strict=True))
        self.margin: Triple = (z, y, x)
        self.neighborhood = [list(offset) for offset in self.loaded.metadata.neighborhood]
        self.channels = len(self.neighborhood)
        before = itertools.takewhile(lambda head: head[0] != "affinities", self.loaded.metadata.network.heads)
        self._first = sum(channels for _, channels in before)

    def check_volume(self, raw: Volume, resample: bool = False) -> None:
        """See `PredictsAffinities`."""
        check_raw(raw, self.voxel_size, self.path, resample)

    def input_shape(self, shape: Triple) -> Triple:
        """See `PredictsAffinities`."""
        return extents(self.geometries, round_up(shape, self.factor))[0]

    def __call__(self, raw: NDArray[Any], shape: Triple, report: Report = lambda share: None) -> NDArray[np.uint8]:
        """See `PredictsAffinities`."""
        check_values(raw)
        values = torch.from_numpy(np.ascontiguousarray(raw)).to(self.device)
        outer = round_up(shape, self.factor)

        def tile() -> Triple:
            return choose_tile(self.geometries, outer, self._memory, self._like.dtype)

        return run_until_it_fits(
            lambda: self._run(values, shape, outer, tile(), report), lambda: self._take_smaller_tiles(tile())
        )

    @torch.inference_mode()
    def _run(self, raw: torch.Tensor, shape: Triple, outer: Triple, tile: Triple, report: Report) -> NDArray[np.uint8]:
        result = torch.empty((self.channels, *shape), dtype=torch.uint8, device=self.device)
        done = 0.0
        for (z, y, x), extent in tiles_of(outer, tile):
            part = math.prod(extent) / math.prod(outer)
            seen = extents(self.geometries, extent)[0]
            window = raw[z : z + seen[0], y : y + seen[1], x : x + seen[2]]

            def told(share: float, done: float = done, part: float = part) -> None:
                report(done + share * part)

            for slab in run_fused(self._parts, window, extent, self._like, told):
                place = result[:, z : z + slab.shape[1], y : y + extent[1], x : x + extent[2]]
                affinities = slab[self._first : self._first + self.channels]
                place[:] = affinities[:, : place.shape[1], : place.shape[2], : place.shape[3]]
                z += slab.shape[1]
            done += part
            report(done)
        return result.cpu().numpy()

    def _take_smaller_tiles(self, tile: Triple) -> None:
        """Remember that a tile was too large."""
        if tile[1:] == self.factor[1:]:
            raise UserError(
                f"The memory of {self.device} does not suffice to predict {tile} voxels at once with {self.path}. End "
                "other programs that use it, make `prediction.block` less deep, or take a smaller network."
            )
        self._memory = tile_bytes(tuple(self.geometries), tile, self._like.dtype) / 2
