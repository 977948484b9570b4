"""Pictures of crops: one row each, for cubes and serial sections, the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neuroloom.project import Augmentation
from neuroloom.training.crop_pictures import CAPTION, DOES_NOT_COUNT, GAP, HEADER, PANEL, RIM, write_crop_pictures

from .conftest import MakeJob, MakeVolume


def opened(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_a_row_for_each_crop(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(augmentation=Augmentation())
    drawn = write_crop_pictures(job, 3, tmp_path / "pictures" / "crops.png")
    picture = opened(drawn.path)
    assert picture.shape == (HEADER + 3 * (PANEL + CAPTION + GAP) + RIM, 2 * RIM + 7 * PANEL + 6 * GAP, 3)
    assert drawn.absent == {}
    again = write_crop_pictures(job, 3, tmp_path / "again.png").path
    assert again.read_bytes() == drawn.path.read_bytes()
    other = write_crop_pictures(job.model_copy(update={"seed": 1}), 3, tmp_path / "other.png").path
    assert not np.array_equal(opened(other), picture)


def test_the_setup_does_not_matter_and_absent_ids_are_told(
    make_job: MakeJob, make_volume: MakeVolume, tmp_path: Path
) -> None:
    volume = make_volume().model_copy(update={"zero_ids": (3, 999)})
    pictures = [
        write_crop_pictures(make_job(setup=setup, volumes=(volume,)), 1, tmp_path / f"{setup}.png")
        for setup in ("lsd", "affs")
    ]
    assert pictures[0].absent == pictures[1].absent == {"cells": [999]}
    assert np.array_equal(opened(pictures[0].path), opened(pictures[1].path))


def test_what_does_not_count_is_red(make_job: MakeJob, make_volume: MakeVolume, tmp_path: Path) -> None:
    labels = np.zeros((40, 36, 44), np.uint64)
    labels[:, 10:14, :] = 1
    volume = make_volume(raw=np.zeros(labels.shape, np.uint8), labels=labels)
    for unlabelled in ("background", "ignore"):
        job = make_job(volumes=(volume.model_copy(update={"unlabelled": unlabelled}),))
        picture = opened(write_crop_pictures(job, 1, tmp_path / f"{unlabelled}.png").path)
        last = picture[HEADER : HEADER + PANEL, -RIM - PANEL : -RIM]
        red = (last[..., 0] > 0.3 * DOES_NOT_COUNT[0]) & (last[..., 0] > last[..., 1] + 20)
        assert red.any() == (unlabelled == "ignore")


@pytest.mark.real_data
def test_serial_sections_of_real_tissue(real_data: Path, make_job: MakeJob, tmp_path: Path) -> None:
    from .test_real_data import volume

    job = make_job(volumes=(volume(real_data, "cremi-b-thin"),), voxel_size=(40.0, 4.0, 4.0), crop=(2, 40, 40))
    picture = opened(write_crop_pictures(job, 2, tmp_path / "crops.png").path)
    assert picture.shape[1] == 2 * RIM + 7 * PANEL + 6 * GAP
