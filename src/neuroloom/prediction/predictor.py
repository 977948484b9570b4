"""The fused predictor: raw in, affinities out, descriptors only in memory.

    raw        |<----------- context of both networks + block ----------->|
    LSDs             |<------ context of one network + block ------>|           uint8, in memory
    affinities                  |<------ block ------>|                         uint8

The descriptor network runs over the block and the affinity network's context in tiles; its output is kept as uint8 (as
it would be if it were stored) and goes with the raw of the same place into the affinity network.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.networks.checkpoint import Checkpoint, load_checkpoint
from neuroloom.networks.memory import keep_freed_memory
from neuroloom.networks.precision import autocast, choose_device, choose_precision
from neuroloom.networks.setups import SETUPS
from neuroloom.networks.unet import context
from neuroloom.prediction.tiles import from_uint8, region_input, round_up, run_tiled
from neuroloom.volume import Volume
from neuroloom.volume.array import Triple


class Predictor:
    """Affinities of any region of raw, from one checkpoint.

    Args:
        checkpoint: The file; an AcrLSD checkpoint holds its descriptor network too.
        device: "auto", "cpu", "cuda", …
        precision: "auto", "fp32" or "bf16".
        tile: Output voxels computed at once, multiples of `factor`; None computes a region in one piece.

    Attributes:
        factor: Regions must begin at multiples of it, in voxels from the volume's begin, z y x.
        margin: Voxels of raw read before a region's begin, z y x.
        channels: Affinities per voxel.
        geometries: Of the networks that run.

    Raises:
        UserError: The checkpoint is missing, damaged, or gives no affinities.
    """

    def __init__(
        self, checkpoint: Path, device: str = "auto", precision: str = "auto", tile: Triple | None = None
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
        self.tile = tile
        self._parts = [self.loaded, *([self.loaded.lsd] if self.loaded.lsd else [])]
        for part in self._parts:
            part.network.to(self.device)
        factors = [part.metadata.network.factor for part in self._parts]
        contexts = [context(part.metadata.network) for part in self._parts]
        z, y, x = (math.lcm(*along) for along in zip(*factors, strict=True))
        self.factor: Triple = (z, y, x)
        z, y, x = (sum(along) // 2 for along in zip(*contexts, strict=True))
        self.margin: Triple = (z, y, x)
        self.neighborhood = [list(offset) for offset in self.loaded.metadata.neighborhood]
        self.channels = len(self.neighborhood)
        self.geometries = [part.metadata.network for part in self._parts]
        before = itertools.takewhile(lambda head: head[0] != "affinities", self.loaded.metadata.network.heads)
        self._first = sum(channels for _, channels in before)

    def check_volume(self, raw: Volume) -> None:
        """Refuse raw that the networks were not trained for.

        Raises:
            UserError: Another voxel size or number type.
        """
        trained = self.loaded.metadata.voxel_size
        if any(abs(a - b) > 1e-3 * b for a, b in zip(raw.voxel_size, trained, strict=True)):
            raise UserError(
                f"{raw.location} has voxels of {raw.voxel_size} nm, but {self.path} was trained on {trained} nm. "
                "Predict volumes of that voxel size, or train on this one."
            )
        if raw.dtype not in (np.uint8, np.float32) or raw.channels is not None:
            raise UserError(
                f"{raw.location} is {raw.dtype}{' with channels' if raw.channels else ''}; expected uint8, or float32 "
                "in [0, 1], without channels. Bring it in with `neuroloom import`."
            )

    def input_shape(self, shape: Triple) -> Triple:
        """Extent of raw needed for a region, in voxels.

        Args:
            shape: The region's extent in voxels.
        """
        return self._extents(shape)[0]

    def __call__(self, raw: NDArray[Any], shape: Triple) -> NDArray[np.uint8]:
        """Predict a region.

        Args:
            raw: `(z, y, x)` of `input_shape(shape)`, beginning `margin` voxels before the region.
            shape: The region's extent in voxels.

        Returns:
            `(channels, z, y, x)`, 0 … 255 for affinities 0 … 1.

        Raises:
            UserError: Raw holds NaN.
        """
        values = normalise(raw, self.loaded.metadata.raw_range).to(self.device)
        if not bool(torch.isfinite(values).all()):
            raise UserError("Raw holds NaN or infinite values. Mend the volume (`neuroloom check` names the places).")
        _, region = self._extents(shape)
        descriptors: torch.Tensor | None = None
        if self.loaded.lsd is not None:
            descriptors = self._run(self.loaded.lsd, values, None, region)
            half = [c // 2 for c in context(self.loaded.lsd.metadata.network)]
            z, y, x = (slice(h, h + e) for h, e in zip(half, region, strict=True))
            values = values[:, :, z, y, x]
        outer = round_up(shape, self.factor)
        output = self._run(self.loaded, values, descriptors, outer)
        affinities = output[self._first : self._first + self.channels]
        return np.ascontiguousarray(affinities[:, : shape[0], : shape[1], : shape[2]].cpu().numpy())

    def _extents(self, shape: Triple) -> tuple[Triple, Triple]:
        """Extents of raw and of the descriptors that a region needs."""
        outer = round_up(shape, self.factor)
        region = region_input(self.loaded.metadata.network, outer, self._tile_for(self.loaded, outer))
        if self.loaded.lsd is None:
            return region, region
        region = round_up(region, self.loaded.lsd.metadata.network.factor)
        return region_input(self.loaded.lsd.metadata.network, region, self._tile_for(self.loaded.lsd, region)), region

    def _tile_for(self, part: Checkpoint, shape: Triple) -> Triple:
        return shape if self.tile is None else round_up(self.tile, part.metadata.network.factor)

    @torch.inference_mode()
    def _run(
        self, part: Checkpoint, raw: torch.Tensor, descriptors: torch.Tensor | None, shape: Triple
    ) -> torch.Tensor:
        inputs = SETUPS[part.metadata.setup].inputs

        def load(begin: Triple, extent: Triple) -> torch.Tensor:
            z, y, x = (slice(b, b + e) for b, e in zip(begin, extent, strict=True))
            channels = []
            for name in inputs:
                if name == "raw":
                    channels.append(raw[:, :, z, y, x])
                else:
                    assert descriptors is not None
                    channels.append(from_uint8(descriptors[:, z, y, x])[None])
            return torch.cat(channels, dim=1).contiguous(memory_format=torch.channels_last_3d)

        def network(values: torch.Tensor) -> torch.Tensor:
            with autocast(self.device, self.precision):
                result = part.network(values)
            assert isinstance(result, torch.Tensor)
            return result

        geometry = part.metadata.network
        return run_tiled(network, geometry, load, shape, self._tile_for(part, shape), geometry.out_channels)


def normalise(raw: NDArray[Any], target: tuple[float, float]) -> torch.Tensor:
    """Raw as networks take it.

    Args:
        raw: `(z, y, x)` uint8, or float32 in [0, 1].
        target: What 0 and 1 (uint8: 0 and 255) become.

    Returns:
        `(1, 1, z, y, x)` float32.
    """
    low, high = target
    scale = 255.0 if raw.dtype == np.uint8 else 1.0
    values = torch.from_numpy(np.ascontiguousarray(raw, dtype=np.float32))[None, None]
    return values.mul_((high - low) / scale).add_(low)
