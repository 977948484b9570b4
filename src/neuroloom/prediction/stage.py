"""The stage raw -> affinities, block by block, with the fused predictor."""

from __future__ import annotations

import math
import time
from functools import lru_cache, partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from funlib.geometry import Coordinate, Roi
from numpy.typing import NDArray

from neuroloom.blockwise.intermediate import Intermediate
from neuroloom.blockwise.stage import Block, Source, worker_number
from neuroloom.errors import UserError
from neuroloom.files import hash_file, read_json, write_json
from neuroloom.models.foreign import is_foreign, read_foreign
from neuroloom.networks.precision import choose_device
from neuroloom.prediction.ensemble import EnsemblePredictor
from neuroloom.prediction.interface import PredictsAffinities, Report
from neuroloom.prediction.measuring import STEPS, Measured, Stopwatch, most_memory, named, union
from neuroloom.prediction.mirrors import check_images, mirrored
from neuroloom.prediction.planning import prediction_workers
from neuroloom.prediction.resampling import Region, Resampling
from neuroloom.project import NEAREST
from neuroloom.volume import create_volume
from neuroloom.volume.array import Nanometres, Triple
from neuroloom.volume.layout import chunk_of, shard_of
from neuroloom.volume.masks import blank_cells, read_mask


class Predict(Intermediate):
    """Predict the affinities of a volume.

    Attributes:
        raw: `(z, y, x)` uint8, or float32 in [0, 1].
        tissue: Where it is 0, or not defined, nothing is predicted; may be coarser than raw by whole factors.
        checkpoint: The network; an AcrLSD checkpoint holds its descriptor network. Or the declaration of somebody
            else's network.
        checkpoint_sha256: The content; stands for the checkpoint in the fingerprint.
        ensemble: More of them; affinities are the mean of all.
        ensemble_sha256: Their contents.
        resample: Whether raw of other voxels than the network's is resampled, and affinities back; not fingerprinted,
            since it is refused otherwise.
        missing_chunks: "zero" or "abort": what chunks of raw that have no file are; not fingerprinted.
        zarr_format: Of the output; 2 has no shards.
        mirrors: How many mirror images are averaged, 1 for the volume alone; a key of `MIRRORS`.
        device: Where the networks run, of several, separated by commas, each worker on one; not fingerprinted, though
            it may change a grey value.
        precision: "auto", "fp32", "bf16" or "fp16"; likewise.
        memory_gb: For what networks see at once; None for what the machine has to give; likewise.
    """

    title: ClassVar[str] = "prediction"
    not_fingerprinted: ClassVar[frozenset[str]] = frozenset(
        {"folder", "checkpoint", "ensemble", "resample", "missing_chunks", "device", "precision", "memory_gb"}
    )
    loads: ClassVar[tuple[str, ...]] = ("neuroloom.prediction.foreign", "neuroloom.prediction.predictor")

    raw: Source
    tissue: Source | None = None
    checkpoint: Path
    checkpoint_sha256: str
    ensemble: tuple[Path, ...] = ()
    ensemble_sha256: tuple[str, ...] = ()
    resample: bool = False
    missing_chunks: Literal["zero", "abort"] = "zero"
    zarr_format: Literal[2, 3] = 3
    mirrors: int = 1
    device: str = "auto"
    precision: str = "auto"
    memory_gb: float | None = None

    @property
    def output(self) -> Source:
        """The affinities, `(c, z, y, x)` uint8."""
        return Source(path=str(self.folder / "affinities.zarr"), dataset="affinities", fingerprint=self.fingerprint())

    @property
    def predicted(self) -> Source:
        """`(z, y, x)` uint8: 1 where affinities were predicted, 0 where there is no tissue or raw is blank."""
        return Source(path=str(self.folder / "affinities.zarr"), dataset="predicted", fingerprint=self.fingerprint())

    def prepare(self) -> None:
        """Make the output arrays.

        Raises:
            UserError: The checkpoint has changed, or does not fit the raw's voxel size.
        """
        for file, sha256 in zip(self._checkpoints, (self.checkpoint_sha256, *self.ensemble_sha256), strict=True):
            if not file.is_file() or _content(file) != sha256:
                raise UserError(
                    f"{file} is not the file it was when training ended: it is damaged or was replaced. "
                    "Train again, or put the right file back."
                )
        predictor = self._predictor()
        raw = self.raw.open()
        predictor.check_volume(raw, self.resample)
        check_images(self.mirrors, predictor.factor, predictor.voxel_size)
        resampling = self.resampling(predictor.voxel_size)
        if resampling is None and any(b % f for b, f in zip(self.block_shape, predictor.factor, strict=True)):
            raise UserError(
                f"Prediction blocks of {self.block_shape} voxels would leave seams; choose multiples of the network's "
                f"factor {predictor.factor}."
            )
        if self.tissue is not None:
            read_mask(self.tissue.open(), raw, Roi((0, 0, 0), (1, 1, 1)))
        chunk = chunk_of(self.shape, self.block_shape)
        neighborhood = predictor.neighborhood if resampling is None else [list(offset) for offset in NEAREST]
        for source, channels in ((self.predicted, ()), (self.output, (len(neighborhood),))):
            # the metadata is written last, so an array without it was interrupted while being made
            if (Path(source.path) / source.dataset / ("zarr.json" if self.zarr_format == 3 else ".zarray")).exists():
                continue
            create_volume(
                source.path,
                source.dataset,
                (*channels, *self.shape),
                np.uint8,
                raw.voxel_size,
                raw.offset,
                chunks=chunk,
                shards=shard_of(self.shape, self.block_shape, chunk) if self.zarr_format == 3 else None,
                zarr_format=self.zarr_format,
                level=1,
                overwrite=True,
                attributes={
                    "neuroloom": {
                        "stage": "Predict",
                        "fingerprint": self.fingerprint(),
                        **(
                            {"neighborhood": neighborhood, "scale": "0 ... 255 stand for affinities 0 ... 1"}
                            if channels
                            else {}
                        ),
                    }
                },
            )

    def process(self, block: Block) -> None:
        """Predict one block; where its context leaves the volume, raw is reflected."""
        begin, shape = (_triple(extent) for extent in (block.write_roi.begin, block.write_roi.shape))
        began, stopwatch, raw = time.time(), Stopwatch(), self.raw.open()
        missing = raw.missing_chunks(begin, shape)
        if missing and self.missing_chunks == "abort":
            raise UserError(
                f"{raw.location}: chunks without a file begin at {named(missing)} (voxels, z y x). Copy them again, or "
                'set `prediction.missing_chunks` to "zero".'
            )
        there = ~blank_cells(raw, begin, shape)
        if self.tissue is not None:
            there &= read_mask(self.tissue.open(), raw, block.write_roi)
        stopwatch.lap("reading")
        if there.any():
            affinities = self.affinities(begin, shape, stopwatch, self.teller(block))
            if not there.all():
                affinities[:, ~there] = 0
            self.output.open().write(begin, affinities)
            self.predicted.open().write(begin, there.astype(np.uint8))
            stopwatch.lap("writing")
        write_json(
            self.measurements / f"{block.number}.json",
            {
                "voxels": math.prod(shape),
                "predicted": int(there.sum()),
                "missing": missing,
                "seconds": stopwatch.laps,
                "between": [began, time.time()],
                "memory": most_memory(choose_device(self._device)),
            },
        )

    def delete(self, block: Block) -> None:
        """Delete a block's affinities; where they were predicted is kept."""
        self.output.open().delete(block.write_roi.begin, block.write_roi.shape)

    def affinities(
        self, begin: Triple, shape: Triple, stopwatch: Stopwatch, report: Report = lambda share: None
    ) -> NDArray[np.uint8]:
        """Predict a region.

        Args:
            begin: Its first voxel, z y x: a multiple of the networks' factor, for results that do not depend on it.
            shape: Its extent in voxels.
            stopwatch: Laps are of reading and of computing.
            report: Called now and then with the share of the work that is done.

        Returns:
            `(channels, z, y, x)`, 0 … 255 for affinities 0 … 1, rounded to the nearest.
        """
        predictor, raw = mirrored(self._predictor(), self.mirrors), self.raw.open()
        resampling = self.resampling(predictor.voxel_size)
        seen = Region(begin, shape) if resampling is None else resampling.region(begin, shape, predictor.factor)
        first = [b - m for b, m in zip(seen.begin, predictor.margin, strict=True)]
        read = raw.read_reflected if resampling is None else partial(resampling.read, raw)
        values = read(first, predictor.input_shape(seen.shape))
        stopwatch.lap("reading")
        affinities = predictor(values, seen.shape, report)
        if resampling is not None:
            affinities = resampling.back(affinities, seen, begin, shape)
        stopwatch.lap("computing")
        return affinities

    def resampling(self, trained: Nanometres) -> Resampling | None:
        """What brings raw to the voxels that networks were trained on; None where it is not wanted or they are its own.

        Args:
            trained: nm, z y x.
        """
        return Resampling.between(self.raw.open().voxel_size, trained) if self.resample else None

    @property
    def measurements(self) -> Path:
        """The folder of what was measured of each block."""
        return self.folder / "measured"

    @property
    def measured(self) -> Measured:
        """What was measured of all blocks that this machine, or another, has predicted so far."""
        blocks = [read_json(file) for file in self.measurements.glob("*.json")]
        return Measured(
            voxels=sum(block["voxels"] for block in blocks),
            predicted=sum(block["predicted"] for block in blocks),
            missing=sorted({tuple(begin) for block in blocks for begin in block["missing"]}),
            took=union([tuple(block["between"]) for block in blocks]),
            seconds={name: sum(block["seconds"].get(name, 0.0) for block in blocks) for name in STEPS},
            memory=max((block["memory"] for block in blocks), default=0),
        )

    @property
    def _device(self) -> str:
        """Of this worker; of a process that is none, the first."""
        names = prediction_workers(self.device)
        return names[worker_number() % len(names)]

    @property
    def _checkpoints(self) -> tuple[Path, ...]:
        return (self.checkpoint, *self.ensemble)

    def _predictor(self) -> PredictsAffinities:
        return _predictor(self._checkpoints, self._device, self.precision, self.memory_gb)


@lru_cache(maxsize=1)
def _predictor(
    checkpoints: tuple[Path, ...], device: str, precision: str, memory_gb: float | None
) -> PredictsAffinities:
    """A worker loads its networks once; the content of checkpoints was checked by `prepare`."""
    # what runs networks, with PyTorch, is loaded by who predicts, not by who asks what is done
    from neuroloom.prediction.foreign import ForeignPredictor
    from neuroloom.prediction.predictor import Predictor

    members = [
        (ForeignPredictor if is_foreign(checkpoint) else Predictor)(checkpoint, device, precision, memory_gb)
        for checkpoint in checkpoints
    ]
    return members[0] if len(members) == 1 else EnsemblePredictor(members)


def _content(checkpoint: Path) -> str:
    return read_foreign(checkpoint).sha256 if is_foreign(checkpoint) else hash_file(checkpoint)


def _triple(extent: Coordinate) -> Triple:
    z, y, x = (int(n) for n in extent)
    return z, y, x
