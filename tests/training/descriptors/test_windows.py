"""Both windows, both implementations, two and three axes: against the definition and against each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuroloom.training.descriptors import Window, context, lsd, lsd_torch
from neuroloom.training.descriptors.windows import half_widths

from .definition import by_matrices, definition, neurites

WINDOWS: list[Window] = ["gaussian", "sphere"]
either_window = pytest.mark.parametrize("window", WINDOWS)


def signed(labels: NDArray[np.uint64]) -> torch.Tensor:
    return torch.from_numpy(labels.view(np.int64))


@pytest.mark.parametrize("downsample", [1, 2, 3])
@pytest.mark.parametrize(
    ("shape", "sigma", "voxel_size"),
    [
        ((7, 10, 12), (80.0, 80.0, 80.0), (40.0, 20.0, 20.0)),
        ((13, 18, 34), (30.0, 20.0, 12.0), (8.0, 8.0, 4.0)),
        ((7, 6, 8), (160.0, 200.0, 120.0), (8.0, 8.0, 8.0)),  # larger than the volume
        ((6, 40, 9), (5.0, 16.0, 3.0), (8.0, 8.0, 8.0)),  # smaller than a voxel
        ((23, 31), (40.0, 40.0), (8.0, 10.0)),
        ((1, 17), (40.0, 20.0), (8.0, 4.0)),
    ],
)
def test_a_sphere_equals_its_definition(
    shape: tuple[int, ...], sigma: tuple[float, ...], voxel_size: tuple[float, ...], downsample: int
) -> None:
    labels = neurites(1, shape, 7)
    expected = definition(labels, sigma, voxel_size, downsample, "sphere")
    found = lsd(labels, sigma, voxel_size, downsample, window="sphere")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
    np.testing.assert_allclose(
        by_matrices(signed(labels), sigma, voxel_size, downsample, window="sphere"), expected, atol=1e-6, rtol=0
    )


def test_a_gaussian_larger_than_the_volume() -> None:
    labels = neurites(2, (5, 4, 6), 4)
    expected = definition(labels, (60.0,) * 3, (8.0,) * 3)
    np.testing.assert_allclose(lsd(labels, 60.0, (8.0,) * 3), expected, atol=1e-4, rtol=0)
    np.testing.assert_allclose(by_matrices(signed(labels), 60.0, (8.0,) * 3), expected, atol=1e-4, rtol=0)
    assert np.isfinite(lsd(labels, 1e5, (8.0,) * 3)).all()


def test_columns_do_not_show_in_a_sphere() -> None:
    labels = neurites(2, (4, 40, 75), 5)
    labels[:2, 5:30, 5:70] = 9
    expected = definition(labels, (24.0,) * 3, (8.0,) * 3, window="sphere")
    np.testing.assert_allclose(lsd(labels, 24.0, (8.0,) * 3, window="sphere"), expected, atol=1e-6, rtol=0)


def test_pieces_far_apart_in_z_leave_nothing_behind_in_the_ring_of_planes() -> None:
    labels = np.zeros((60, 5, 6), dtype=np.uint64)
    labels[[0, 1, 9, 30, 31, 58]] = 4
    labels[20, 2, 2] = 4
    expected = definition(labels, (24.0,) * 3, (8.0,) * 3, window="sphere")
    np.testing.assert_allclose(lsd(labels, 24.0, (8.0,) * 3, window="sphere"), expected, atol=1e-6, rtol=0)


def test_full_space_in_a_sphere() -> None:
    found = lsd(np.ones((24, 24, 24), dtype=np.uint8), 80.0, (8.0,) * 3, window="sphere")[:, 12, 12, 12]
    np.testing.assert_allclose(found[[0, 1, 2, 6, 7, 8]], 0.5, atol=1e-6)
    np.testing.assert_allclose(found[3:6], 0.2, atol=0.01)  # a ball's mean square is r^2 / 5 along each axis
    np.testing.assert_allclose(found[9], 1.0, atol=1e-6)


def test_voxels_on_the_surface_of_the_sphere_belong_to_it() -> None:
    half = half_widths((5.0, 5.0, 5.0))
    assert half.shape == (11, 11)
    assert half[5, 5] == 5
    assert half[5 + 3, 5 + 4] == 0
    assert half[5 + 3, 5] == 4
    assert half[5 + 4, 5 + 4] == -1
    assert np.array_equal(half_widths((0.3, 0.1, 0.7)), [[0]])
    assert context(80.0, (8.0, 8.0, 16.0), window="sphere") == (10, 10, 5)
    assert context(79.0, (8.0, 4.0), 2, "sphere") == (8, 18)


@either_window
@settings(max_examples=25, deadline=None)
@given(data=st.data(), downsample=st.integers(1, 3), dimensions=st.integers(2, 3))
def test_a_roi_is_a_part_of_the_whole(data: Any, window: Window, downsample: int, dimensions: int) -> None:
    shape = (7, 14, 11)[-dimensions:]
    roi = []
    for size in shape:
        start = data.draw(st.integers(0, size))
        roi.append(slice(start, data.draw(st.integers(start, size))))
    labels, voxel_size = neurites(4, shape, 5), (8.0,) * dimensions
    whole = lsd(labels, 20.0, voxel_size, downsample, window=window)[(slice(None), *roi)]
    part = lsd(labels, 20.0, voxel_size, downsample, tuple(roi), window=window)
    np.testing.assert_allclose(part, whole, atol=2e-6)
    by_torch = by_matrices(signed(labels), 20.0, voxel_size, downsample, tuple(roi), window=window)
    np.testing.assert_allclose(by_torch, whole, atol=2e-5)


@either_window
@settings(max_examples=25, deadline=None)
@given(chosen=st.sets(st.integers(0, 9), min_size=1), dimensions=st.integers(2, 3), downsample=st.integers(1, 2))
def test_chosen_components_are_those_channels_of_all(
    window: Window, chosen: set[int], dimensions: int, downsample: int
) -> None:
    components = sorted({channel % (10 if dimensions == 3 else 6) for channel in chosen})
    labels, voxel_size = neurites(5, (5, 9, 8)[-dimensions:], 4), (8.0,) * dimensions
    everything = lsd(labels, 20.0, voxel_size, downsample, window=window)
    found = lsd(labels, 20.0, voxel_size, downsample, components=components, window=window)
    assert np.array_equal(found, everything[components])
    by_torch = lsd_torch(signed(labels)[None], 20.0, voxel_size, downsample, components=components, window=window)
    assert np.array_equal(by_torch[0], found)
    by_torch = by_matrices(signed(labels), 20.0, voxel_size, downsample, components=components, window=window)
    np.testing.assert_allclose(by_torch, found, atol=2e-5)


@either_window
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), flipped=st.sets(st.integers(0, 2)))
def test_a_mirror_turns_offsets_and_correlations_round(window: Window, seed: int, flipped: set[int]) -> None:
    axes = tuple(flipped)
    labels = neurites(seed, (6, 9, 8), 4)
    mirrored = np.flip(
        lsd(np.flip(labels, axes), 24.0, (8.0, 6.0, 7.0), window=window), tuple(axis + 1 for axis in axes)
    )
    straight = lsd(labels, 24.0, (8.0, 6.0, 7.0), window=window)
    inside = labels != 0
    for channel, involved in enumerate([{0}, {1}, {2}, set(), set(), set(), {0, 1}, {0, 2}, {1, 2}, set()]):
        turned = len(involved & flipped) % 2 == 1
        expected = 1 - straight[channel] if turned else straight[channel]
        np.testing.assert_allclose(mirrored[channel][inside], expected[inside], atol=1e-5)


@either_window
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), dimensions=st.integers(2, 3))
def test_only_which_voxels_share_an_id_matters(window: Window, seed: int, dimensions: int) -> None:
    labels, voxel_size = neurites(seed, (5, 9, 8)[-dimensions:], 5), (8.0,) * dimensions
    ids, index = np.unique(labels, return_inverse=True)
    fresh = np.random.default_rng(seed).permutation(200)[: len(ids)] + 1
    renamed = np.where(ids == 0, 0, fresh)[index].reshape(labels.shape).astype(np.uint8)
    assert np.array_equal(lsd(renamed, 20.0, voxel_size, window=window), lsd(labels, 20.0, voxel_size, window=window))


@either_window
@pytest.mark.parametrize("dimensions", [2, 3])
def test_batches(window: Window, dimensions: int) -> None:
    labels = np.stack([neurites(seed, (4, 9, 8)[-dimensions:], 3) for seed in (1, 2)])
    labels = np.concatenate([labels, np.zeros_like(labels[:1])])
    voxel_size, roi = (8.0,) * dimensions, (slice(1, 3), slice(2, 9), slice(0, 7))[-dimensions:]
    found = lsd_torch(signed(labels), 20.0, voxel_size, 2, roi, window=window)
    assert found.dtype == torch.float32
    assert not found[2].any()
    for sample, own in zip(labels, found, strict=True):
        assert np.array_equal(own, lsd(sample, 20.0, voxel_size, 2, roi, window=window))
    assert lsd_torch(signed(labels[:0]), 20.0, voxel_size, 2, roi, window=window).shape == (0, *found.shape[1:])
    if torch.cuda.is_available():
        on_device = lsd_torch(signed(labels).cuda(), 20.0, voxel_size, 2, roi, window=window)
        assert on_device.device.type == "cuda"
        np.testing.assert_allclose(on_device.cpu(), found, atol=2e-5)


@either_window
def test_context_is_all_that_counts(window: Window) -> None:
    labels = neurites(8, (50, 12, 14), 6)
    for downsample in (1, 2):
        needed = context(20.0, (8.0, 8.0, 8.0), downsample, window)[0]
        crop = labels[16 - needed : 32 + needed]
        inner = lsd(crop, 20.0, (8.0,) * 3, downsample, window=window)[:, needed : needed + 16]
        whole = lsd(labels, 20.0, (8.0,) * 3, downsample, window=window)
        np.testing.assert_allclose(inner, whole[:, 16:32], atol=1e-6)


@either_window
def test_arrays_without_voxels(window: Window) -> None:
    nothing = np.zeros((0, 4, 4), dtype=np.uint64)
    assert lsd(nothing, 16.0, (8.0,) * 3, window=window).shape == (10, 0, 4, 4)
    assert by_matrices(signed(nothing), 16.0, (8.0,) * 3, window=window).shape == (10, 0, 4, 4)
    assert lsd(nothing[:, 0], 16.0, (8.0,) * 2, window=window).shape == (6, 0, 4)
