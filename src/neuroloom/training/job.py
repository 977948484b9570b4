"""What one training is: its parameters, its volumes, and the fingerprint of both."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from neuroloom.files import hash_json
from neuroloom.networks.setups import NEIGHBORHOOD, SETUPS, network_parameters
from neuroloom.networks.unet import UNetParameters
from neuroloom.project import Network
from neuroloom.training.augmentation import Augmentation
from neuroloom.volume.array import Nanometres, Triple

VERSION = 2
"""Raised when the same job gives other weights than before."""


class TrainingVolume(BaseModel):
    """A volume with truth.

    Attributes:
        name: For messages.
        path: The zarr container.
        raw: Dataset, uint8 or float32 in [0, 1].
        labels: Dataset, integers, 0 = background.
        mask: Dataset that is not 0 where the truth counts; None for everywhere.
        weight: How often crops come from it; None for its number of labelled voxels.
        fingerprint: Of the three arrays' content.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    path: str
    raw: str
    labels: str
    mask: str | None = None
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
        iterations: Steps.
        learning_rate: Of Adam after the warm-up; falls along a cosine to a fiftieth.
        weight_average: Checkpoints hold a running average of the weights that keeps this share of itself per step;
            0 for the weights themselves.
        seed: Of everything random.
        augmentation: What happens to crops.
        volumes: To train on.
        validation: Never trained on; choose the best checkpoint.
        validation_crops: Fixed crops scored each time.
        validate_every, snapshot_every, checkpoint_every: In iterations.
        patience: Stop after this many scores without a better one; None never stops early.
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
    iterations: int
    learning_rate: float
    weight_average: float = Field(0.995, ge=0, lt=1)
    seed: int = 0
    augmentation: Augmentation = Augmentation()
    volumes: tuple[TrainingVolume, ...]
    validation: tuple[TrainingVolume, ...] = ()
    validation_crops: int = 8
    validate_every: int = 200
    snapshot_every: int = 500
    checkpoint_every: int = 200
    patience: int | None = None
    lsd_sha256: str | None = None
    start_sha256: str | None = None
    device: str = "auto"
    precision: str = "auto"

    def fingerprint(self) -> str:
        """SHA-256 of all that changes the trained network, as hexadecimal text."""
        kept = self.model_dump(mode="json", exclude={"device", "precision", "snapshot_every", "checkpoint_every"})
        for group in (kept["volumes"], kept["validation"]):
            for volume in group:
                for key in ("name", "path", "raw", "labels", "mask"):
                    del volume[key]
        return hash_json({"version": VERSION, **kept})

    @property
    def geometry(self) -> UNetParameters:
        """The network."""
        return network_parameters(self.setup, self.network, self.neighborhood)

    def begins_with(self, lsd: UNetParameters) -> bool:
        """Whether training starts from the weights of its descriptor network: if both see raw and have one size."""
        return SETUPS[self.setup].inputs[0] == "raw" and self.geometry.same_size(lsd)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the heads in order."""
        return SETUPS[self.setup].outputs

    @property
    def serial_sections(self) -> bool:
        """Whether voxels are two or more times longer in z: sections are then treated one by one."""
        z, y, x = self.voxel_size
        return z >= 2 * max(y, x)


def checkpoint_paths(folder: Path) -> tuple[Path, Path]:
    """Best and last checkpoint in a training's folder."""
    return folder / "best.ckpt", folder / "last.ckpt"
