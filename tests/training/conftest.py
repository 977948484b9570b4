"""A small volume with truth, of which every test of the training room can make its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from neuroloom.project import Network
from neuroloom.training.augmentation import NO_AUGMENTATION
from neuroloom.training.job import TrainingJob, TrainingVolume
from neuroloom.volume import create_volume

VOXEL_SIZE = (8.0, 8.0, 8.0)
MakeVolume = Callable[..., TrainingVolume]
MakeJob = Callable[..., TrainingJob]


def cells(shape: tuple[int, ...], seed: int = 0, number: int = 12) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """Raw with dark membranes, and the labels of the cells between them."""
    random = np.random.default_rng(seed)
    centres = random.uniform(0, 1, (number, 3)) * shape
    place = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    distance = np.sort(np.linalg.norm(place[..., None, :] - centres, axis=-1), axis=-1)
    labels = np.linalg.norm(place[..., None, :] - centres, axis=-1).argmin(axis=-1) + 1
    membrane = distance[..., 1] - distance[..., 0] < 2
    raw = np.where(membrane, 60, 180) + random.normal(0, 8, shape)
    return np.clip(raw, 0, 255).astype(np.uint8), labels.astype(np.uint64)


@pytest.fixture
def make_volume(tmp_path: Path) -> MakeVolume:
    """Writes a volume: by default 40 x 36 x 44 voxels of cells; arrays and placement may be given."""

    def make(
        name: str = "cells",
        raw: NDArray[Any] | None = None,
        labels: NDArray[Any] | None = None,
        mask: NDArray[Any] | None = None,
        voxel_size: tuple[float, ...] = VOXEL_SIZE,
        label_offset: tuple[float, ...] = (0.0, 0.0, 0.0),
        weight: float | None = None,
    ) -> TrainingVolume:
        path = tmp_path / f"{name}.zarr"
        default_raw, default_labels = cells((40, 36, 44), seed=len(name))
        arrays = {"raw": default_raw if raw is None else raw, "labels": default_labels if labels is None else labels}
        if mask is not None:
            arrays["mask"] = mask
        for dataset, values in arrays.items():
            offset = label_offset if dataset == "labels" else (0.0, 0.0, 0.0)
            create_volume(path, dataset, values.shape, values.dtype, voxel_size, offset).write((0, 0, 0), values)
        return TrainingVolume(
            name=name,
            path=str(path),
            raw="raw",
            labels="labels",
            mask="mask" if mask is not None else None,
            weight=weight,
            fingerprint=name,
        )

    return make


@pytest.fixture
def make_job(make_volume: MakeVolume) -> MakeJob:
    """Describes a training of seconds; anything may be changed."""

    def make(**changes: Any) -> TrainingJob:
        values: dict[str, Any] = {
            "setup": "lsd",
            "network": Network(feature_maps=4, growth=2, downsampling=((2, 2, 2),)),
            "voxel_size": VOXEL_SIZE,
            "sigma_nm": 24.0,
            "crop": (12, 12, 12),
            "iterations": 6,
            "learning_rate": 1e-3,
            "augmentation": NO_AUGMENTATION,
            "validation_crops": 2,
            "validate_every": 2,
            "snapshot_every": 100,
            "checkpoint_every": 2,
            "device": "cpu",
            "precision": "fp32",
            **changes,
        }
        if "volumes" not in values:
            values["volumes"] = (make_volume(),)
        return TrainingJob(**values)

    return make
