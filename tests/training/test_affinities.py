"""Affinities and the erosion before them, against loops over voxels."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion, generate_binary_structure

from neuroloom.training.affinities import affinities, edges_that_count, erode_by_kernel, erode_by_tensors, grow_boundary
from neuroloom.training.truth import COUNTS, OUT, UNPAINTED


def random_labels(seed: int, shape: tuple[int, ...], number: int = 4) -> torch.Tensor:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, number, (shape[0], *[-(-n // 2) for n in shape[1:]]))
    for axis in range(1, len(shape)):
        coarse = coarse.repeat(2, axis)
    ids = np.concatenate([[0], 2**62 + np.arange(number)])  # neighbours that a float64 cannot tell apart
    return torch.from_numpy(ids[coarse[tuple(slice(n) for n in shape)]])


shapes = st.tuples(*[st.integers(1, 6)] * 3)
offsets = st.tuples(*[st.integers(-4, 4)] * 3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), shapes, st.lists(offsets, max_size=3))
def test_affinities_are_what_they_say(
    seed: int, shape: tuple[int, int, int], neighborhood: list[tuple[int, int, int]]
) -> None:
    labels = random_labels(seed, (1, *shape))
    values, known = affinities(labels, neighborhood)
    assert values.shape == known.shape == (1, len(neighborhood), *shape)
    assert values.dtype == torch.float32
    for channel, offset in enumerate(neighborhood):
        for voxel in itertools.product(*map(range, shape)):
            other = tuple(v + o for v, o in zip(voxel, offset, strict=True))
            inside = all(0 <= o < n for o, n in zip(other, shape, strict=True))
            assert known[(0, channel, *voxel)] == inside
            same = inside and labels[(0, *voxel)] == labels[(0, *other)] != 0
            assert values[(0, channel, *voxel)] == float(same)


def test_samples_of_a_batch_do_not_mix() -> None:
    labels = torch.cat([random_labels(seed, (1, 5, 6, 7)) for seed in (1, 2)])
    neighborhood = [(-1, 0, 0), (0, 3, -2)]
    values, _ = affinities(labels, neighborhood)
    for sample in range(2):
        assert torch.equal(values[sample], affinities(labels[sample : sample + 1], neighborhood)[0][0])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), shapes, st.integers(0, 3), st.booleans())
def test_grow_boundary_erodes_each_label_alone(
    seed: int, shape: tuple[int, int, int], steps: int, only_xy: bool
) -> None:
    labels = random_labels(seed, (2, *shape))
    before = labels.clone()
    structure = generate_binary_structure(3, 1)
    if only_xy:
        structure[[0, 2]] = False
    expected = np.zeros(labels.shape, dtype=np.int64)
    for sample in range(2):
        for label in np.unique(labels[sample].numpy()):
            if label != 0 and steps:
                own = binary_erosion(labels[sample].numpy() == label, structure, iterations=steps, border_value=1)
                expected[sample][own] = label
    grown = grow_boundary(labels, steps, only_xy)
    assert torch.equal(grown, torch.from_numpy(expected) if steps else before)
    assert torch.equal(labels, before)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), shapes, st.booleans(), st.booleans())
def test_kernel_and_tensors_erode_alike(seed: int, shape: tuple[int, int, int], only_xy: bool, masked: bool) -> None:
    labels = random_labels(seed, (2, *shape))
    mask = torch.from_numpy(np.random.default_rng(seed).random((2, *shape)) < 0.8) if masked else None
    assert torch.equal(erode_by_kernel(labels, only_xy, mask), erode_by_tensors(labels, only_xy, mask))


def test_grow_boundary_leaves_the_border_of_the_array() -> None:
    labels = torch.full((1, 3, 4, 5), 7)
    assert torch.equal(grow_boundary(labels, 2), labels)
    labels[0, :, :, 0] = 8
    assert grow_boundary(labels)[0, 0, 0].tolist() == [0, 0, 7, 7, 7]


def test_nothing_is_eroded_towards_what_is_masked_out() -> None:
    labels = torch.tensor([1, 1, 1, 0, 0, 2, 2, 3, 3]).reshape(1, 1, 1, 9)
    mask = torch.tensor([1, 1, 1, 0, 0, 1, 1, 1, 1]).reshape(1, 1, 1, 9) > 0
    assert grow_boundary(labels, mask=mask).flatten().tolist() == [1, 1, 1, 0, 0, 2, 0, 0, 3]


def test_edges_between_what_is_known() -> None:
    roles = torch.tensor([[[[OUT, COUNTS, COUNTS, UNPAINTED, UNPAINTED, COUNTS, OUT, UNPAINTED]]]], dtype=torch.uint8)
    counts = edges_that_count(roles, [(0, 0, -1)])[0, 0, 0, 0].tolist()
    assert counts == [False, False, True, True, False, True, False, False]
