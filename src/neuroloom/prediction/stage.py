"""The stage raw -> affinities, block by block, with the fused predictor."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from funlib.geometry import Coordinate

from neuroloom.blockwise.stage import Block, Source, Stage
from neuroloom.errors import UserError
from neuroloom.files import hash_file
from neuroloom.models.foreign import is_foreign, read_foreign
from neuroloom.prediction.foreign import ForeignPredictor
from neuroloom.prediction.mirrors import mirrored
from neuroloom.prediction.predictor import Predictor
from neuroloom.volume import create_volume
from neuroloom.volume.array import Triple


class Predict(Stage):
    """Predict the affinities of a volume.

    Attributes:
        raw: `(z, y, x)` uint8, or float32 in [0, 1].
        checkpoint: The network; an AcrLSD checkpoint holds its descriptor network. Or the declaration of somebody
            else's network.
        checkpoint_sha256: The content; stands for the checkpoint in the fingerprint.
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
        if not self.checkpoint.is_file() or _content(self.checkpoint) != self.checkpoint_sha256:
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
        affinities = predictor(raw, shape, self.teller(block))
        self.output.open().write(block.write_roi.begin, affinities)


@lru_cache(maxsize=1)
def _predictor(checkpoint: Path, device: str, precision: str) -> Predictor | ForeignPredictor:
    """A worker loads its networks once; the checkpoint's content was checked by `prepare`."""
    if is_foreign(checkpoint):
        return ForeignPredictor(checkpoint, device, precision)
    return Predictor(checkpoint, device, precision)


def _content(checkpoint: Path) -> str:
    return read_foreign(checkpoint).sha256 if is_foreign(checkpoint) else hash_file(checkpoint)


def chunk_of_block(block: Triple, target: int = 64) -> Triple:
    """The largest chunk of at most `target` voxels along each axis that divides a block, so that blocks own chunks."""
    z, y, x = (next(c for c in range(min(target, b), 0, -1) if b % c == 0) for b in block)
    return z, y, x
