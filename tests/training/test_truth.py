"""Sparse and partial truth: targets and weights against slow, obvious definitions, voxel by voxel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from neuroloom.errors import UserError
from neuroloom.project import Augmentation
from neuroloom.training.batches import Batch, BatchMaker, input_shapes
from neuroloom.training.crops import Crops, LabelledArrays
from neuroloom.training.descriptors import lsd
from neuroloom.training.job import TrainingJob, TrainingVolume
from neuroloom.training.truth import COUNTS, OUT, UNPAINTED, is_one_of, sort_labels

from .conftest import MakeJob, MakeVolume

NEIGHBOURHOOD = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 3, 0))


def described(labels: NDArray[Any], mask: NDArray[Any], unlabelled: str, zero: set[int], ignore: set[int]) -> Any:
    """Label and what is known of each voxel, as the project file says it."""
    known, names = {}, {}
    for voxel in np.ndindex(labels.shape):
        label = int(labels[voxel])
        names[voxel] = 0 if label in zero | ignore else label
        if mask[voxel] == 0 or label in ignore:
            known[voxel] = "nothing"
        elif label == 0 and unlabelled == "ignore":
            known[voxel] = "not painted"
        else:
            known[voxel] = "label"
    return names, known


def eroded(names: Any, known: Any) -> Any:
    """A painted neurite loses the voxels that touch anything else of which something is known."""
    result = {}
    for (z, y, x), name in names.items():
        result[z, y, x] = name
        for other in ((z - 1, y, x), (z + 1, y, x), (z, y - 1, x), (z, y + 1, x), (z, y, x - 1), (z, y, x + 1)):
            if other in names and "nothing" not in (known[z, y, x], known[other]) and names[other] != name:
                result[z, y, x] = 0
    return result


def made(job: TrainingJob) -> tuple[Batch, tuple[int, int, int]]:
    maker = BatchMaker(
        job, Crops(job.volumes, 0, job.crop), input_shapes(job, None)[0], torch.device("cpu"), job.augmentation, 1
    )
    centre = maker.crops.draw(0, (12, 12, 12), (12, 12, 12)).centre
    return maker.make(0), (centre[0] - 6, centre[1] - 6, centre[2] - 6)


@pytest.mark.parametrize("unlabelled", ["background", "ignore"])
@pytest.mark.parametrize("ids", [(set(), set()), ({2}, set()), (set(), {3}), ({2, 5}, {3, 4})])
@pytest.mark.parametrize("seed", range(3))
def test_targets_and_weights_are_those_of_the_definition(
    make_job: MakeJob, make_volume: MakeVolume, unlabelled: str, ids: tuple[set[int], set[int]], seed: int
) -> None:
    zero, ignore = ids
    random = np.random.default_rng(seed)
    shape = (15, 14, 16)
    # a few blobs in an empty block
    labels = ndimage.zoom(random.integers(0, 7, (5, 5, 5)) * (random.random((5, 5, 5)) < 0.6), 3.2, order=0)
    labels = labels[: shape[0], : shape[1], : shape[2]].astype(np.uint64)
    mask = (ndimage.zoom(random.random((5, 5, 5)), 3.2, order=0)[: shape[0], : shape[1], : shape[2]] < 0.9).astype(
        np.uint8
    )
    volume = make_volume(raw=np.zeros(shape, np.uint8), labels=labels, mask=mask).model_copy(
        update={"unlabelled": unlabelled, "zero_ids": tuple(zero), "ignore_ids": tuple(ignore)}
    )
    job = make_job(setup="mtlsd", volumes=(volume,), neighborhood=NEIGHBOURHOOD, downsample=1)
    batch, begin = made(job)
    names, known = described(labels, mask, unlabelled, zero, ignore)
    smaller = eroded(names, known)
    edges, counts = np.zeros((4, 12, 12, 12)), np.zeros((4, 12, 12, 12), bool)
    learned = np.zeros((12, 12, 12), bool)
    for place in np.ndindex(12, 12, 12):
        voxel = tuple(int(b + p) for b, p in zip(begin, place, strict=True))
        learned[place] = known[voxel] == "label"
        for channel, offset in enumerate(NEIGHBOURHOOD):
            other = tuple(v + o for v, o in zip(voxel, offset, strict=True))
            if other not in names:
                continue
            edges[(channel, *place)] = smaller[voxel] == smaller[other] != 0
            states = {known[voxel], known[other]}
            counts[(channel, *place)] = "nothing" not in states and states != {"not painted"}
    np.testing.assert_array_equal(batch.targets["affinities"][0], edges)
    frequency = np.clip(edges[counts].mean() if counts.any() else 0, 0.05, 0.95)
    expected = np.where(edges > 0, 0.5 / frequency, 0.5 / (1 - frequency)) * counts
    np.testing.assert_allclose(batch.weights["affinities"][0], expected, rtol=1e-5)
    np.testing.assert_array_equal(batch.weights["lsd"][0, 0], learned)
    np.testing.assert_array_equal(batch.counts[0, 0], learned)
    whole = np.zeros(shape, np.int64)
    for voxel, name in smaller.items():
        whole[voxel] = name
    place = tuple(slice(b, b + 12) for b in begin)
    np.testing.assert_array_equal(batch.labels[0], whole[place])
    shapes = lsd(whole, job.sigma_nm, job.voxel_size)[(slice(None), *place)]
    np.testing.assert_allclose(batch.targets["lsd"][0] * learned, shapes * learned, atol=2e-3)
    # what is not painted is never part of a neurite
    if unlabelled == "ignore":
        assert not (batch.targets["affinities"] * batch.weights["affinities"])[0][:, ~learned].any()


def test_a_painted_neurite_gets_a_border_that_counts(make_job: MakeJob, make_volume: MakeVolume) -> None:
    labels = np.zeros((16, 16, 16), np.uint64)
    labels[4:12, 4:12, 4:12] = 7
    labels[4:12, 4:12, 12:] = 9
    volume = make_volume(raw=np.zeros(labels.shape, np.uint8), labels=labels).model_copy(
        update={"unlabelled": "ignore", "ignore_ids": (9,)}
    )
    batch, begin = made(make_job(setup="affs", volumes=(volume,)))
    place = tuple(slice(b, b + 12) for b in begin)
    # eroded where it meets what is not painted, not where it meets what is ignored
    expected = np.zeros_like(labels)
    expected[5:11, 5:11, 5:12] = 7
    np.testing.assert_array_equal(batch.labels[0], expected[place].astype(np.int64))
    assert int((batch.weights["affinities"] > 0).sum()) > int(batch.targets["affinities"].sum()) > 0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=30),
    st.sets(st.integers(1, 300), max_size=3),
    st.sets(st.integers(1, 300), max_size=3),
    st.sampled_from(["background", "ignore"]),
    st.sampled_from([np.uint8, np.int16, np.uint32, np.uint64]),
    st.booleans(),
)
def test_labels_are_sorted(
    values: list[int], zero: set[int], ignore: set[int], unlabelled: str, dtype: Any, masked: bool
) -> None:
    labels = np.array(values, dtype)
    mask = (np.arange(len(values)) % 3 > 0) if masked else None
    before = labels.copy()
    found, roles = sort_labels(labels, mask, unlabelled, tuple(zero), tuple(ignore))
    assert np.array_equal(labels, before)
    assert found.dtype == dtype
    for i, value in enumerate(values):
        assert found[i] == (0 if value in zero | ignore else value)
        out = value in ignore or (mask is not None and not mask[i])
        unpainted = value == 0 and unlabelled == "ignore"
        assert roles[i] == (OUT if out else UNPAINTED if unpainted else COUNTS)


def test_ids_that_the_type_cannot_hold_occur_nowhere() -> None:
    assert is_one_of(np.array([1, 44, 255], np.uint8), [300, 44]).tolist() == [False, True, False]


class TestSparseVolumes:
    """A large block in which one per cent is painted."""

    @pytest.fixture
    def sparse(self, make_volume: MakeVolume) -> TrainingVolume:
        labels = np.zeros((100, 120, 110), np.uint64)
        labels[:, 20:24, 30:34] = 1  # along z
        labels[60:66, :, 80:86] = 2  # along y
        labels[80:84, 100:104, 10:30] = 3  # a stump
        assert 0.003 < (labels > 0).mean() < 0.01
        volume = make_volume(raw=np.zeros(labels.shape, np.uint8), labels=labels)
        return volume.model_copy(update={"unlabelled": "ignore"})

    @pytest.mark.parametrize("memory", [2**30, 0])
    def test_crops_find_every_neurite(
        self, sparse: TrainingVolume, memory: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("neuroloom.training.crops.IN_MEMORY_BYTES", memory)
        crops = Crops([sparse], 0, (24, 24, 24))
        seen: dict[int, int] = {}
        places = set()
        for number in range(100):
            crop = crops.draw(number, (24, 24, 24), (24, 24, 24))
            assert (crop.roles.read() == COUNTS).any()
            places.add(crop.centre)
            for label in np.unique(crop.labels.read()):
                seen[int(label)] = seen.get(int(label), 0) + 1
        assert len(places) > 90
        assert min(seen.get(label, 0) for label in (1, 2, 3)) >= 2
        along = sorted(z for z, _, _ in places)
        assert along[0] < 30
        assert along[-1] > 70

    def test_crops_of_a_mask_as_sparse_vary_too(self, sparse: TrainingVolume, make_volume: MakeVolume) -> None:
        labels = LabelledArrays(sparse).truth((0, 0, 0), (100, 120, 110))[0].read()
        volume = make_volume("masked", np.zeros(labels.shape, np.uint8), labels, (labels > 0).astype(np.uint8))
        crops = Crops([volume], 0, (24, 24, 24))
        drawn = [crops.draw(number, (24, 24, 24), (24, 24, 24)) for number in range(100)]
        assert all((crop.roles.read() == COUNTS).any() for crop in drawn)
        assert {1, 2, 3} <= {int(label) for crop in drawn for label in np.unique(crop.labels.read())}

    def test_after_augmentation_there_is_something_to_learn(self, sparse: TrainingVolume, make_job: MakeJob) -> None:
        job = make_job(setup="mtlsd", volumes=(sparse,), augmentation=Augmentation())
        maker = BatchMaker(
            job, Crops(job.volumes, 0, job.crop), input_shapes(job, None)[0], torch.device("cpu"), job.augmentation, 1
        )
        batches = [maker.make(number) for number in range(10)]
        assert np.mean([bool(batch.counts.any()) for batch in batches]) > 0.6
        for batch in batches:
            assert not batch.weights["lsd"][~batch.counts].any()

    def test_weight_and_what_is_absent(self, sparse: TrainingVolume) -> None:
        arrays = LabelledArrays(sparse)
        assert arrays.absent == []
        without = LabelledArrays(sparse.model_copy(update={"zero_ids": (2, 77), "ignore_ids": (1, 5)}))
        assert without.weight == arrays.weight - 100 * 16 - 120 * 36
        assert without.absent == [5, 77]
        assert LabelledArrays(sparse.model_copy(update={"zero_ids": (2, 77)}), memory=0).absent == [77]

    def test_nothing_left_to_learn(self, sparse: TrainingVolume) -> None:
        for update in ({"ignore_ids": (1, 2, 3)}, {"zero_ids": (1, 2, 3)}):
            with pytest.raises(UserError, match="nothing to learn from"):
                LabelledArrays(sparse.model_copy(update=update))
