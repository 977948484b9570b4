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
from neuroloom.networks.memory import keep_freed_memory, memory_there
from neuroloom.networks.precision import autocast, choose_device, choose_precision
from neuroloom.networks.setups import SETUPS
from neuroloom.networks.unet import UNetParameters, context, input_shape
from neuroloom.prediction.interface import Report
from neuroloom.prediction.planning import MEMORY, block_operations, choose_tile, tile_bytes
from neuroloom.prediction.tiles import from_uint8, round_up, run_tiled
from neuroloom.volume import Volume
from neuroloom.volume.array import Nanometres, Triple


class Predictor:
    """Affinities of any region of raw, from one checkpoint.

    Args:
        checkpoint: The file; an AcrLSD checkpoint holds its descriptor network too.
        device: "auto", "cpu", "cuda", …
        precision: "auto", "fp32" or "bf16".

    Attributes:
        factor: Regions must begin at multiples of it, in voxels from the volume's begin, z y x.
        margin: Voxels of raw read before a region's begin, z y x.
        channels: Affinities per voxel.
        geometries: Of the networks, in the order they run.

    Raises:
        UserError: The checkpoint is missing, damaged, or gives no affinities.
    """

    def __init__(self, checkpoint: Path, device: str = "auto", precision: str = "auto") -> None:
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
        for part in parts:
            part.network.to(self.device)
        self.geometries = [part.metadata.network for part in parts]
        factors = [network.factor for network in self.geometries]
        contexts = [context(network) for network in self.geometries]
        # not what is free: a run that goes on later gives the same bytes
        there = memory_there(self.device)
        self._memory = 0.8 * there if self.device.type == "cuda" else min(MEMORY, there / 3)
        z, y, x = (math.lcm(*along) for along in zip(*factors, strict=True))
        self.factor: Triple = (z, y, x)
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
        return self._extents(shape)[0]

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
        values = normalise(raw, self.loaded.metadata.raw_range).to(self.device)
        if not bool(torch.isfinite(values).all()):
            raise UserError("Raw holds NaN or infinite values. Mend the volume (`neuroloom check` names the places).")
        _, region = self._extents(shape)
        descriptors: torch.Tensor | None = None
        before = 0.0
        if self.loaded.lsd is not None:
            counts = block_operations(self.geometries, shape, self._memory)
            before = counts[0] / sum(counts)
            descriptors = self._run(self.loaded.lsd, values, None, region, lambda share: report(share * before))
            half = [c // 2 for c in context(self.loaded.lsd.metadata.network)]
            z, y, x = (slice(h, h + e) for h, e in zip(half, region, strict=True))
            values = values[:, :, z, y, x]
        outer = round_up(shape, self.factor)
        output = self._run(self.loaded, values, descriptors, outer, lambda share: report(before + share * (1 - before)))
        affinities = output[self._first : self._first + self.channels]
        return np.ascontiguousarray(affinities[:, : shape[0], : shape[1], : shape[2]].cpu().numpy())

    def _extents(self, shape: Triple) -> tuple[Triple, Triple]:
        """Extents of raw and of the descriptors that a region needs."""
        outer = round_up(shape, self.factor)
        region = input_shape(self.loaded.metadata.network, outer)
        if self.loaded.lsd is None:
            return region, region
        region = round_up(region, self.loaded.lsd.metadata.network.factor)
        return input_shape(self.loaded.lsd.metadata.network, region), region

    @torch.inference_mode()
    def _run(
        self, part: Checkpoint, raw: torch.Tensor, descriptors: torch.Tensor | None, shape: Triple, report: Report
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
        while True:
            tile = choose_tile(geometry, shape, self._memory)
            try:
                return run_tiled(network, geometry, load, shape, tile, geometry.out_channels, report)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            # outside of `except`, which would hold on to what the failed tile takes
            self._take_smaller_tiles(geometry, tile)

    def _take_smaller_tiles(self, geometry: UNetParameters, tile: Triple) -> None:
        """Remember that a tile was too large, for this network and the other."""
        if tile == round_up((1, 1, 1), geometry.factor):
            raise UserError(
                f"The memory of {self.device} does not suffice to predict {tile} voxels at once with {self.path}. End "
                "other programs that use it, or take a smaller network."
            )
        self._memory = tile_bytes(geometry, tile) / 2
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
