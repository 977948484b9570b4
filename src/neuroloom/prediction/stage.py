"""The stage raw -> affinities, block by block, with the fused predictor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from funlib.geometry import Coordinate

from neuroloom.blockwise.stage import Block, Source, Stage
from neuroloom.errors import UserError
from neuroloom.files import hash_file
from neuroloom.networks.unet import UNetParameters, context
from neuroloom.prediction.mirrors import mirrored
from neuroloom.prediction.predictor import Predictor
from neuroloom.volume import create_volume
from neuroloom.volume.array import Triple


class Predict(Stage):
    """Predict the affinities of a volume.

    Attributes:
        raw: `(z, y, x)` uint8, or float32 in [0, 1].
        checkpoint: The network; an AcrLSD checkpoint holds its descriptor network.
        checkpoint_sha256: The file's content; stands for the checkpoint in the fingerprint.
        mirrors: How many mirror images are averaged, 1 for the volume alone; a key of `MIRRORS`.
        device: Where the networks run; not fingerprinted, though it may change a grey value.
        precision: "auto", "fp32" or "bf16"; likewise.
    """

    title: ClassVar[str] = "prediction"
    not_fingerprinted: ClassVar[frozenset[str]] = frozenset({"folder", "checkpoint", "device", "precision"})

    raw: Source
    checkpoint: Path
    checkpoint_sha256: str
    mirrors: int = 1
    device: str = "auto"
    precision: str = "auto"

    @property
    def output(self) -> Source:
        """The affinities, `(c, z, y, x)` uint8."""
        return Source(path=str(self.folder / "affinities.zarr"), dataset="affinities", fingerprint=self.fingerprint())

    def prepare(self) -> None:
        """Make the output array.

        Raises:
            UserError: The checkpoint has changed, or does not fit the raw's voxel size.
        """
        if not self.checkpoint.is_file() or hash_file(self.checkpoint) != self.checkpoint_sha256:
            raise UserError(
                f"{self.checkpoint} is not the file it was when training ended: it is damaged or was replaced. "
                "Train again, or put the right file back."
            )
        predictor = _predictor(self.checkpoint, self.device, self.precision)
        raw = self.raw.open()
        predictor.check_volume(raw)
        if any(b % f for b, f in zip(self.block_shape, predictor.factor, strict=True)):
            raise UserError(
                f"Prediction blocks of {self.block_shape} voxels would leave seams; choose multiples of the network's "
                f"factor {predictor.factor}."
            )
        # the metadata is written last, so an array without it was interrupted while being made
        if not (Path(self.output.path) / self.output.dataset / "zarr.json").exists():
            create_volume(
                self.output.path,
                self.output.dataset,
                (predictor.channels, *self.shape),
                np.uint8,
                raw.voxel_size,
                raw.offset,
                chunks=chunk_of_block(self.block_shape),
                overwrite=True,
                attributes={
                    "neuroloom": {
                        "stage": "Predict",
                        "fingerprint": self.fingerprint(),
                        "neighborhood": predictor.neighborhood,
                        "scale": "0 ... 255 stand for affinities 0 ... 1",
                    }
                },
            )

    def process(self, block: Block) -> None:
        """Predict one block; where its context leaves the volume, raw is reflected."""
        predictor = mirrored(_predictor(self.checkpoint, self.device, self.precision), self.mirrors)
        shape = (int(block.write_roi.shape[0]), int(block.write_roi.shape[1]), int(block.write_roi.shape[2]))
        begin = block.write_roi.begin - Coordinate(predictor.margin)
        raw = self.raw.open().read_reflected(begin, predictor.input_shape(shape))
        self.output.open().write(block.write_roi.begin, predictor(raw, shape))


@lru_cache(maxsize=1)
def _predictor(checkpoint: Path, device: str, precision: str) -> Predictor:
    """A worker loads its networks once; the checkpoint's content was checked by `prepare`."""
    return Predictor(checkpoint, device, precision)


def default_block(shape: Triple, networks: Sequence[UNetParameters]) -> Triple:
    """A block for a volume: as large as 6 GB allow, at most 160 voxels, all parts of an axis about equal.

    It depends on the volume and the networks only, not on the machine, so that a run may go on on another one.

    Args:
        shape: The volume's extent in voxels.
        networks: The networks that run one after the other.
    """
    reach = max(sum(context(network)[axis] for network in networks) for axis in range(3))
    maps = max(network.feature_maps for network in networks)
    # the widest moment holds about four arrays of the first level's maps over the whole input
    target = next(t for t in range(160, 0, -8) if 4 * 4 * maps * (t + reach) ** 3 <= 6e9 or t == 8)
    factors = [network.factor for network in networks]
    z, y, x = (math.lcm(*along) for along in zip(*factors, strict=True))
    return balanced_block(shape, (z, y, x), target)


def balanced_block(shape: Triple, factor: Triple, target: int) -> Triple:
    """A block that cuts every axis into equal parts of about `target` voxels, a multiple of the network's factor.

    Args:
        shape: The volume's extent in voxels.
        factor: The network's factor in voxels.
        target: Largest extent of a block in voxels: larger wastes less on context, smaller needs less memory.

    Example:
        >>> balanced_block((250, 250, 500), (4, 4, 4), 160)
        (128, 128, 128)
    """
    extents = []
    for size, step in zip(shape, factor, strict=True):
        parts = math.ceil(size / target)
        extents.append(math.ceil(math.ceil(size / parts) / step) * step)
    z, y, x = extents
    return z, y, x


def chunk_of_block(block: Triple, target: int = 64) -> Triple:
    """The largest chunk of at most `target` voxels along each axis that divides a block, so that blocks own chunks."""
    z, y, x = (next(c for c in range(min(target, b), 0, -1) if b % c == 0) for b in block)
    return z, y, x
