"""A training's fingerprint: what changes the network changes it, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest

from neuroloom.project import Augmentation, Network

from .conftest import MakeJob, MakeVolume


@pytest.mark.parametrize(
    "change",
    [
        {"setup": "affs"},
        {"network": Network(feature_maps=5, growth=2, downsampling=((2, 2, 2),))},
        {"sigma_nm": 25.0},
        {"downsample": 1},
        {"crop": (14, 12, 12)},
        {"batch_size": 2},
        {"iterations": 7},
        {"raw_first": 2},
        {"keep_descriptors": True},
        {"learning_rate": 2e-3},
        {"weight_average": 0.9},
        {"seed": 1},
        {"augmentation": Augmentation()},
        {"validation_crops": 3},
        {"validate_every": 3},
        {"patience": 5},
        {"lsd_sha256": "1" * 64},
        {"start_sha256": "1" * 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_the_network_changes_the_fingerprint(make_job: MakeJob, change: dict[str, Any]) -> None:
    job = make_job()
    assert job.model_copy(update=change).fingerprint() != job.fingerprint()


def test_other_data_change_the_fingerprint(make_job: MakeJob) -> None:
    job = make_job()
    other = job.volumes[0].model_copy(update={"fingerprint": "other"})
    heavier = job.volumes[0].model_copy(update={"weight": 2.0})
    prints = {job.model_copy(update={"volumes": (v,)}).fingerprint() for v in (*job.volumes, other, heavier)}
    prints.add(job.model_copy(update={"validation": (other,)}).fingerprint())
    assert len(prints) == 4


def test_where_it_runs_and_lies_does_not(make_job: MakeJob, make_volume: MakeVolume) -> None:
    job = make_job()
    moved = job.volumes[0].model_copy(update={"name": "elsewhere", "path": "/elsewhere.zarr"})
    changed = {"device": "cuda", "precision": "bf16", "snapshot_every": 7, "checkpoint_every": 9, "volumes": (moved,)}
    assert job.model_copy(update=changed).fingerprint() == job.fingerprint()


@pytest.mark.parametrize(("voxel_size", "expected"), [((8, 8, 8), False), ((40, 4, 4), True), ((15, 8, 8), False)])
def test_serial_sections_are_recognised(make_job: MakeJob, voxel_size: Any, expected: bool) -> None:
    assert make_job(voxel_size=voxel_size).serial_sections is expected
