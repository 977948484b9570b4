"""What one training is: its parameters, its volumes, and the fingerprint of both."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from neuroloom.files import hash_json
from neuroloom.networks.architecture import UNetParameters
from neuroloom.networks.setups import NEIGHBORHOOD, SETUPS, network_parameters
from neuroloom.project import Augmentation, Network, Unlabelled
from neuroloom.volume.array import Nanometres, Triple
from neuroloom.volume.units import are_serial_sections

VERSION = 5
"""Raised when the same job gives other weights than before."""


NOT_FINGERPRINTED = {"device", "precision", "at_once", "recompute", "snapshot_every", "checkpoint_every"}
"""What changes how a network is trained, but not what it becomes."""


class TrainingVolume(BaseModel):
    """A volume with truth.

    Attributes:
        name: For messages.
        path: The zarr container.
        raw: Dataset, uint8 or float32 in [0, 1].
        labels: Dataset, integers, 0 = background.
        mask: Dataset that is not 0 where the truth counts; None for everywhere.
        unlabelled: "background" where label 0 is known to be no neuron, "ignore" where it is just not painted.
        zero_ids: Labels that are background, and known to be.
        ignore_ids: Labels of which nothing is to be learned.
        weight: How often crops come from it; None for its number of labelled voxels.
        fingerprint: Of the three arrays' content.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    path: str
    raw: str
    labels: str
    mask: str | None = None
    unlabelled: Unlabelled = "background"
    zero_ids: tuple[int, ...] = ()
    ignore_ids: tuple[int, ...] = ()
    weight: float | None = None
    fingerprint: str


class TrainingJob(BaseModel):
    """Everything that determines a trained network.

    Attributes:
        setup: A key of `SETUPS`.
        network: Size of the network.
        voxel_size: nm, z y x.
        sigma_nm: Size of the descriptors' window.
        downsample: Descriptors are computed on every n-th voxel and repeated.
        neighborhood: Offsets of the affinities, z y x.
        crop: Output of the network for one training crop, in voxels.
        batch_size: Crops per step.
        at_once: Crops computed at once; the gradients of a step's parts are added up. None for all; not part of the
            fingerprint.
        recompute: Keep less for the way back and compute it again; not part of the fingerprint.
        iterations: Steps.
        raw_first: The first so many iterations of a network that sees raw and descriptors go without descriptors (they
            are 0), so that the descriptor network need not run.
        keep_descriptors: The descriptor network sees the training volumes once, and crops look its output up (see
            `kept`), instead of running it on every crop.
        learning_rate: Of Adam after the warm-up.
        schedule: How it falls: "cosine" to a fiftieth, or "plateau": by half when scores stop getting better.
        weight_average: Checkpoints hold a running average of the weights that keeps this share of itself per step;
            0 for the weights themselves.
        seed: Of everything random.
        augmentation: What happens to crops.
        volumes: To train on.
        validation: Never trained on; choose the best checkpoint.
        validation_crops: Fixed crops scored each time.
        validate_every: Iterations between losses on the held-out crops.
        score_every: Iterations between scores of the whole chain on the validation volumes; 0 for never: then the best
            checkpoint is that of the lowest held-out loss.
        snapshot_every, checkpoint_every: In iterations.
        patience: Stop after this many scores (losses, where there are none) without a better one; None never does.
        lsd_sha256: Content of the descriptor network's checkpoint, for setups that need one.
        start_sha256: Content of the checkpoint whose weights training starts from; None for random ones.
        device, precision: Where and how it is computed; not part of the fingerprint.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    setup: str
    network: Network
    voxel_size: Nanometres
    sigma_nm: float
    downsample: int = 2
    neighborhood: tuple[Triple, ...] = NEIGHBORHOOD
    crop: Triple
    batch_size: int = 1
    at_once: int | None = Field(None, ge=1)
    recompute: bool = False
    iterations: int
    raw_first: int = Field(0, ge=0)
    keep_descriptors: bool = False
    learning_rate: float
    schedule: Literal["cosine", "plateau"] = "cosine"
    weight_average: float = Field(0.995, ge=0, lt=1)
    seed: int = 0
    augmentation: Augmentation = Augmentation()
    volumes: tuple[TrainingVolume, ...]
    validation: tuple[TrainingVolume, ...] = ()
    validation_crops: int = 8
    validate_every: int = 200
    score_every: int = 0
    snapshot_every: int = 500
    checkpoint_every: int = 200
    patience: int | None = None
    lsd_sha256: str | None = None
    start_sha256: str | None = None
    device: str = "auto"
    precision: str = "auto"

    def fingerprint(self) -> str:
        """SHA-256 of all that changes the trained network, as hexadecimal text."""
        kept = self.model_dump(mode="json", exclude=NOT_FINGERPRINTED)
        for group in (kept["volumes"], kept["validation"]):
            for volume in group:
                for key in ("name", "path", "raw", "labels", "mask"):
                    del volume[key]
        for key in ("raw_first", "keep_descriptors"):  # as it was before there were such things
            if not kept[key]:
                del kept[key]
        return hash_json({"version": VERSION, **kept})

    @property
    def geometry(self) -> UNetParameters:
        """The network."""
        return network_parameters(self.setup, self.network, self.neighborhood)

    def begins_with(self, lsd: UNetParameters) -> bool:
        """Whether training starts from the weights of its descriptor network: if both see raw and have one size."""
        return SETUPS[self.setup].inputs[0] == "raw" and self.geometry.same_size(lsd)

    @property
    def crops_at_once(self) -> int:
        """Crops computed at once."""
        return self.at_once or self.batch_size

    @property
    def parts(self) -> int:
        """Into how many parts the crops of a step are cut."""
        return self.batch_size // self.crops_at_once

    @model_validator(mode="after")
    def _parts_are_whole(self) -> TrainingJob:
        if self.batch_size % self.crops_at_once:
            raise ValueError(f"{self.batch_size} crops cannot be computed {self.at_once} at a time")
        return self

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the heads in order."""
        return SETUPS[self.setup].outputs

    @property
    def serial_sections(self) -> bool:
        """Whether voxels are two or more times longer in z: sections are then treated one by one."""
        return are_serial_sections(self.voxel_size)


CURVE = "curve.jsonl"
"""In a training's folder: one line per step and score."""


def checkpoint_paths(folder: Path) -> tuple[Path, Path]:
    """Best and last checkpoint in a training's folder."""
    return folder / "best.ckpt", folder / "last.ckpt"
