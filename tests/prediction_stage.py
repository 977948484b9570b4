"""The stage that predicts a small volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from neuroloom.blockwise import Source
from neuroloom.files import hash_file
from neuroloom.models.foreign import is_foreign, read_foreign
from neuroloom.prediction import Predict
from neuroloom.volume import create_volume


def save_volume(path: Path, dataset: str, values: NDArray[Any], **more: Any) -> Source:
    """A volume (z, y, x) of voxels of 8 nm, or as said.

    Args:
        path: The container, `.zarr`.
        dataset: Its dataset.
        values: The voxels.
        more: As `create_volume`.
    """
    volume = create_volume(path, dataset, values.shape, values.dtype, **{"voxel_size": (8, 8, 8), **more})
    volume.write((0, 0, 0), values)
    return Source(path=str(path), dataset=dataset, fingerprint=dataset)


def predict_stage(folder: Path, checkpoint: Path, raw: Source, block: tuple[int, int, int], **more: Any) -> Predict:
    """The stage over all of a volume, on a CPU in fp32.

    Args:
        folder: Where it writes.
        checkpoint: Weights, or the declaration of somebody else's network.
        raw: The volume.
        block: Blocks (z, y, x), in voxels.
        more: As `Predict`.
    """
    return Predict(
        folder=folder,
        shape=raw.open().shape,
        block_shape=block,
        raw=raw,
        checkpoint=checkpoint,
        checkpoint_sha256=read_foreign(checkpoint).sha256 if is_foreign(checkpoint) else hash_file(checkpoint),
        device="cpu",
        precision="fp32",
        **more,
    )
