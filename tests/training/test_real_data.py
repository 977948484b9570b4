"""Training on real tissue, for a few steps: everything fits together and the loss falls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neuroloom.networks.checkpoint import load_checkpoint
from neuroloom.project import Augmentation, Network
from neuroloom.training.job import TrainingVolume
from neuroloom.training.loop import train

from .conftest import MakeJob


def volume(folder: Path, name: str) -> TrainingVolume:
    return TrainingVolume(
        name=name,
        path=str(folder / f"{name}.zarr"),
        raw="volumes/raw",
        labels="volumes/labels/neuron_ids",
        mask="volumes/labels/mask",
        fingerprint=name,
    )


@pytest.mark.real_data
def test_isotropic_tissue(real_data: Path, make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(
        setup="affs",
        network=Network(feature_maps=8, growth=2, downsampling=((2, 2, 2),)),
        voxel_size=(10.0, 10.0, 10.0),
        crop=(24, 24, 24),
        iterations=40,
        learning_rate=4e-3,
        augmentation=Augmentation(),
        volumes=(volume(real_data, "gala-a"),),
        validation=(volume(real_data, "gala-b"),),
        validate_every=20,
    )
    best = train(job, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "curve.jsonl").read_text().splitlines()]
    scores = [line["validation"] for line in lines if "validation" in line]
    assert scores[-1] < 0.24  # one half everywhere scores a quarter
    assert load_checkpoint(best).metadata.voxel_size == (10.0, 10.0, 10.0)


@pytest.mark.real_data
def test_serial_sections(real_data: Path, make_job: MakeJob, tmp_path: Path) -> None:
    thin = volume(real_data, "cremi-b-thin")
    job = make_job(
        setup="lsd",
        network=Network(feature_maps=4, growth=2, downsampling=((1, 2, 2),)),
        voxel_size=(40.0, 4.0, 4.0),
        crop=(2, 40, 40),
        iterations=2,
        augmentation=Augmentation(defocused_sections=0.2, missing_sections=0.2),
        volumes=(thin,),
        validation=(thin,),
    )
    assert load_checkpoint(train(job, tmp_path / "run")).metadata.setup == "lsd"
