"""Memory of a training: what does not fit is refused with what would."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch

from neuroloom.errors import UserError
from neuroloom.networks import memory
from neuroloom.networks.architecture import feature_values, input_shape, output_shape, parameter_count
from neuroloom.training.size import check_memory, memory_needed

from .conftest import MakeJob

CPU = torch.device("cpu")


def give(monkeypatch: pytest.MonkeyPatch, total: int) -> None:
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(total=total))


def test_weights_and_what_layers_put_out_count(make_job: MakeJob) -> None:
    job = make_job(crop=(36, 36, 36))
    weights = 20 * parameter_count(job.geometry)
    values = feature_values(job.geometry, input_shape(job.geometry, job.crop))
    assert memory_needed(job, None, "fp32") == weights + 4 * values
    assert memory_needed(job, None, "bf16") == weights + 2 * values
    four = job.model_copy(update={"batch_size": 4})
    assert memory_needed(four, None, "fp32") == weights + 16 * values
    assert memory_needed(four.model_copy(update={"at_once": 1}), None, "fp32") == weights + 4 * values


def test_a_crop_that_would_fit_is_named(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(crop=(68, 68, 68))
    there = memory_needed(make_job(crop=(36, 36, 36), volumes=job.volumes), None, "fp32")
    give(monkeypatch, there)
    with pytest.raises(UserError, match=r"this machine has .*`training\.crop` of \[(\d+), (\d+), (\d+)\]") as told:
        check_memory(job, None, CPU, "fp32")
    named = re.search(r"`training\.crop` of \[(\d+), (\d+), (\d+)\]", str(told.value))
    assert named is not None
    crop = (int(named[1]), int(named[2]), int(named[3]))
    assert output_shape(job.geometry, input_shape(job.geometry, crop)) == crop
    assert 28 <= crop[0] <= 36  # the largest that fits, or close to it
    check_memory(job.model_copy(update={"crop": crop}), None, CPU, "fp32")


def test_crops_one_after_the_other_are_advised_where_that_helps(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(batch_size=8)
    give(monkeypatch, memory_needed(job, None, "fp32") // 4)
    with pytest.raises(UserError, match=r"8 crops of .* at once.*Set `training\.at_once` to 1"):
        check_memory(job, None, CPU, "fp32")
    check_memory(job.model_copy(update={"at_once": 1}), None, CPU, "fp32")


def test_weights_alone_may_be_too_many(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job()
    give(monkeypatch, 10 * parameter_count(job.geometry))
    with pytest.raises(UserError, match=r"Make `network\.feature_maps` or `network\.growth` smaller\.$"):
        check_memory(job, None, CPU, "fp32")
