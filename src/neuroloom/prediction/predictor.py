"""Affinities of any region of raw, from one checkpoint: tiles as large as the memory, one sweep through each."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.networks.checkpoint import load_checkpoint
from neuroloom.networks.memory import keep_freed_memory
from neuroloom.networks.precision import choose_device, choose_precision, number_format
from neuroloom.networks.setups import SETUPS
from neuroloom.networks.unet import context
from neuroloom.prediction.fused import Part, extents, run_fused
from neuroloom.prediction.interface import Report
from neuroloom.prediction.planning import choose_tile, common_factor, memory_for_tiles, tile_bytes
from neuroloom.prediction.tiles import round_up, tiles_of
from neuroloom.volume import Volume
from neuroloom.volume.array import Nanometres, Triple


class Predictor:
    """Affinities of any region of raw, from one checkpoint.

    Args:
        checkpoint: The file; an AcrLSD checkpoint holds its descriptor network too.
        device: "auto", "cpu", "cuda", …
        precision: "auto", "fp32", "bf16" or "fp16".
        memory_gb: For one tile; None for what the machine has to give.

    Attributes:
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
            Part(part.metadata.setup, part.network.to(self._like), part.metadata.raw_range) for part in parts
        ]
        self._memory = memory_for_tiles(self.device, memory_gb)
        self.factor: Triple = common_factor(self.geometries)
        contexts = [context(network) for network in self.geometries]
        z, y, x = (sum(along) // 2 for along in zip(*contexts, strict=True))
        self.margin: Triple = (z, y, x)
        self.neighborhood = [list(offset) for offset in self.loaded.metadata.neighborhood]
        self.channels = len(self.neighborhood)
        before = itertools.takewhile(lambda head: head[0] != "affinities", self.loaded.metadata.network.heads)
        self._first = sum(channels for _, channels in before)

    def check_volume(self, raw: Volume) -> None:
        """Refuse raw that the networks were not trained for.

        Raises:
            UserError: Another voxel size or number type.
        """
        check_raw(raw, self.loaded.metadata.voxel_size, self.path)

    def input_shape(self, shape: Triple) -> Triple:
        """Extent of raw needed for a region, in voxels.

        Args:
            shape: The region's extent in voxels.
        """
        return extents(self.geometries, round_up(shape, self.factor))[0]

    def __call__(self, raw: NDArray[Any], shape: Triple, report: Report = lambda share: None) -> NDArray[np.uint8]:
        """Predict a region.

        Args:
            raw: `(z, y, x)` of `input_shape(shape)`, beginning `margin` voxels before the region.
            shape: The region's extent in voxels.
            report: Called now and then with the share of the work that is done.

        Returns:
            `(channels, z, y, x)`, 0 … 255 for affinities 0 … 1.

        Raises:
            UserError: Raw holds NaN.
        """
        if not np.isfinite(raw).all():
            raise UserError("Raw holds NaN or infinite values. Mend the volume (`neuroloom check` names the places).")
        values = torch.from_numpy(np.ascontiguousarray(raw)).to(self.device)
        outer = round_up(shape, self.factor)
        while True:
            tile = choose_tile(self.geometries, outer, self._memory, self._like.dtype)
            try:
                return self._run(values, shape, outer, tile, report)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            # outside of `except`, which would hold on to what the failed tile takes
            self._take_smaller_tiles(tile)

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
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch, its library for convolutions on a CPU, or onnxruntime did not get the memory it asked for."""
    words = ("DefaultCPUAllocator", "could not create a primitive", "could not create a memory", "Failed to allocate")
    return isinstance(error, torch.OutOfMemoryError) or any(said in str(error) for said in words)


def check_raw(raw: Volume, trained: Nanometres, path: Path) -> None:
    """Refuse raw that networks were not trained for.

    Args:
        raw: The image.
        trained: Voxel size in nm, z y x, that they were trained on.
        path: Where they lie.

    Raises:
        UserError: Another voxel size or number type.
    """
    if any(abs(a - b) > 1e-3 * b for a, b in zip(raw.voxel_size, trained, strict=True)):
        raise UserError(
            f"{raw.location} has voxels of {raw.voxel_size} nm, but {path} was trained on {trained} nm. "
            "Predict volumes of that voxel size, or train on this one."
        )
    if raw.dtype not in (np.uint8, np.float32) or raw.channels is not None:
        raise UserError(
            f"{raw.location} is {raw.dtype}{' with channels' if raw.channels else ''}; expected uint8, or float32 "
            "in [0, 1], without channels. Bring it in with `neuroloom import`."
        )
