"""Batches: what each setup is asked for, and the same whether made now or ahead."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from neuroloom.networks.architecture import output_shape
from neuroloom.project import Augmentation
from neuroloom.training.affinities import affinities, grow_boundary
from neuroloom.training.batches import Batch, BatchMaker, input_shapes
from neuroloom.training.crops import Crops
from neuroloom.training.descriptors import lsd_torch
from neuroloom.training.job import TrainingJob
from neuroloom.training.weights import balance

from .conftest import MakeJob, MakeVolume, cells

CPU = torch.device("cpu")


def maker(job: TrainingJob) -> BatchMaker:
    raw_shape, _ = input_shapes(job, None)
    return BatchMaker(job, Crops(job.volumes, job.seed, job.crop), raw_shape, CPU, job.augmentation, job.batch_size)


def same(a: Batch, b: Batch) -> bool:
    return (
        torch.equal(a.raw, b.raw)
        and torch.equal(a.labels, b.labels)
        and all(torch.equal(a.targets[name], b.targets[name]) for name in a.targets)
        and all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)
    )


class TestTargets:
    def test_are_those_of_the_whole_volume(self, make_job: MakeJob, make_volume: MakeVolume) -> None:
        raw, labels = cells((40, 36, 44))
        mask = np.random.default_rng(0).random(raw.shape) < 0.9
        volume = make_volume(raw=raw, labels=labels, mask=mask.astype(np.uint8))
        job = make_job(setup="mtlsd", volumes=(volume,), batch_size=2, downsample=1)
        made = maker(job)
        batch = made.make(3)
        whole = torch.from_numpy(labels.astype(np.int64))[None]
        eroded = grow_boundary(whole, mask=torch.from_numpy(mask)[None])
        lsd = lsd_torch(eroded, job.sigma_nm, job.voxel_size)[0]
        edges = affinities(eroded, job.neighborhood)[0][0]
        both_ends = affinities(torch.from_numpy(mask)[None].long(), job.neighborhood)[0][0]
        expected_edges, expected_counts = [], []
        for sample in range(2):
            crop = made.crops.draw(6 + sample, (28, 28, 28), (14, 14, 14))
            begin = [c - 6 for c in crop.centre]
            place = (..., *(slice(b, b + 12) for b in begin))
            values = (torch.from_numpy(raw)[place] / 255 * 2 - 1).numpy()
            np.testing.assert_allclose(batch.raw[sample, 0, 8:-8, 8:-8, 8:-8], values, atol=1e-5)
            assert torch.equal(batch.labels[sample], eroded[0][place])
            torch.testing.assert_close(batch.targets["lsd"][sample], lsd[place], atol=2e-3, rtol=1e-3)
            assert torch.equal(batch.targets["affinities"][sample], edges[place])
            expected_edges.append(edges[place])
            expected_counts.append(both_ends[place])
            assert torch.equal(batch.weights["lsd"][sample, 0], torch.from_numpy(mask)[place].float())
        balanced = balance(torch.stack(expected_edges), torch.stack(expected_counts))
        torch.testing.assert_close(batch.weights["affinities"], balanced)

    def test_no_boundary_is_learned_where_the_volume_ends(self, make_job: MakeJob, make_volume: MakeVolume) -> None:
        labels = np.ones((14, 14, 14), np.uint64)
        volume = make_volume(raw=np.zeros(labels.shape, np.uint8), labels=labels)
        made = maker(make_job(setup="affs", volumes=(volume,), augmentation=Augmentation(elastic_spacing=5.0)))
        for number in range(4):
            batch = made.make(number)
            target, weights = batch.targets["affinities"], batch.weights["affinities"]
            assert 0 < float((weights > 0).float().mean()) < 1
            assert bool((target[weights > 0] == 1).all())

    @pytest.mark.parametrize(
        ("setup", "heads"), [("lsd", {"lsd": 10}), ("affs", {"affinities": 4}), ("mtlsd", {"lsd": 10, "affinities": 4})]
    )
    def test_heads_of_each_setup(self, make_job: MakeJob, setup: str, heads: dict[str, int]) -> None:
        neighborhood = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, -5, 0))
        batch = maker(make_job(setup=setup, neighborhood=neighborhood)).make(0)
        assert {name: target.shape for name, target in batch.targets.items()} == {
            name: (1, channels, 12, 12, 12) for name, channels in heads.items()
        }
        for target in batch.targets.values():
            assert 0 <= float(target.min()) < float(target.max()) <= 1

    def test_long_range_edges_are_known_up_to_the_border(self, make_job: MakeJob) -> None:
        batch = maker(make_job(setup="affs", neighborhood=((0, 0, -7), (5, 0, 0)))).make(0)
        assert bool((batch.weights["affinities"] > 0).all())

    def test_serial_sections_are_eroded_within_the_section(self, make_job: MakeJob, make_volume: MakeVolume) -> None:
        labels = np.ones((40, 36, 44), np.uint64)
        labels[::2] = 2
        volume = make_volume(labels=labels, voxel_size=(40.0, 4.0, 4.0))
        job = make_job(setup="affs", volumes=(volume,), voxel_size=(40.0, 4.0, 4.0))
        assert bool((maker(job).make(0).labels > 0).all())

    def test_raw_is_between_minus_one_and_one(self, make_job: MakeJob) -> None:
        batch = maker(make_job(augmentation=Augmentation())).make(0)
        assert -1 <= float(batch.raw.min()) < 0 < float(batch.raw.max()) <= 1


class TestOrder:
    def test_batch_is_a_function_of_its_number(self, make_job: MakeJob) -> None:
        job = make_job(setup="mtlsd", augmentation=Augmentation(), batch_size=2)
        first, second = maker(job), maker(job)
        forwards = [first.make(n) for n in range(3)]
        backwards = [second.make(n) for n in (2, 1, 0)]
        assert all(same(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))
        assert not same(forwards[0], forwards[1])

    def test_ahead_gives_the_same_in_order(self, make_job: MakeJob) -> None:
        made = maker(make_job(augmentation=Augmentation()))
        ahead = list(made.ahead(range(2, 7)))
        assert [number for number, _ in ahead] == [2, 3, 4, 5, 6]
        assert all(same(batch, made.make(number)) for number, batch in ahead)

    def test_stopping_early_ends_the_thread(self, make_job: MakeJob) -> None:
        made = maker(make_job())
        batches = made.ahead(range(1000))
        next(batches)
        batches.close()  # type: ignore[attr-defined]
        assert not any(thread.name.startswith("batches") for thread in threading.enumerate())

    def test_error_of_the_thread_arrives(self, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
        made = maker(make_job())
        make = made.make

        def fail_at_two(number: int) -> Batch:
            if number == 2:
                raise ValueError("no such crop")
            return make(number)

        monkeypatch.setattr(made, "make", fail_at_two)
        batches = made.ahead(range(5))
        assert [next(batches)[0], next(batches)[0]] == [0, 1]
        with pytest.raises(ValueError, match="no such crop"):
            next(batches)


class TestInputShapes:
    def test_raw_and_inner_input(self, make_job: MakeJob) -> None:
        job = make_job(setup="acrlsd")
        lsd = make_job(setup="lsd", volumes=job.volumes).geometry
        raw, inner = input_shapes(job, lsd)
        assert output_shape(job.geometry, inner) == job.crop
        assert all(given >= wanted for given, wanted in zip(output_shape(lsd, raw), inner, strict=True))
        assert input_shapes(make_job(setup="affs", volumes=job.volumes), None) == (inner, inner)

    def test_crop_that_is_no_output_names_the_next(self, make_job: MakeJob) -> None:
        with pytest.raises(ValueError, match=r"training\.crop \(13, 12, 12\).*next that is: \(14, 12, 12\)"):
            input_shapes(make_job(crop=(13, 12, 12)), None)
