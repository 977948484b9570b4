"""Squared distances against the definition and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from neuroloom.fragments.distance import squared_distance


def nearest_outside(inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The definition: compare every voxel with every voxel outside."""
    voxels = np.argwhere(np.ones_like(inside))
    outside = np.argwhere(~inside)
    return ((voxels[:, None] - outside[None]) ** 2).sum(axis=2).min(axis=1).reshape(inside.shape)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    share=st.sampled_from([0.02, 0.1, 0.5]),
    seed=st.integers(0, 2**16),
)
def test_is_the_definition(shape: tuple[int, int, int], share: float, seed: int) -> None:
    inside = np.random.default_rng(seed).random(shape) > share
    inside.flat[seed % inside.size] = False
    np.testing.assert_array_equal(squared_distance(inside), nearest_outside(inside))


@pytest.mark.parametrize("shape", [(1, 60, 70), (30, 40, 50), (50, 1, 40)])
def test_agrees_with_scipy(shape: tuple[int, int, int]) -> None:
    inside = np.random.default_rng(1).random(shape) > 0.003
    squared = squared_distance(inside)
    np.testing.assert_array_equal(squared, np.rint(ndimage.distance_transform_edt(inside) ** 2))
    assert squared.dtype == np.uint16


def test_distances_beyond_256_voxels_are_kept() -> None:
    inside = np.ones((1, 300, 300), dtype=bool)
    inside[0, 0, 0] = False
    squared = squared_distance(inside)
    assert squared.dtype == np.uint32
    assert squared[0, 299, 299] == 2 * 299**2


@pytest.mark.parametrize("length", [180, 181, 182, 255, 256])
def test_where_16_bits_end(length: int) -> None:
    inside = np.ones((2, 3, length + 1), dtype=bool)
    inside[:, :, 0] = False
    squared = squared_distance(inside)
    np.testing.assert_array_equal(squared[1, 2], np.arange(length + 1) ** 2)
    assert squared.dtype == (np.uint16 if length < 256 else np.uint32)


def test_nothing_to_measure_from() -> None:
    assert np.array_equal(squared_distance(np.ones((2, 3, 4), dtype=bool)), np.ones((2, 3, 4)))
    assert squared_distance(np.ones((0, 3, 4), dtype=bool)).shape == (0, 3, 4)


@pytest.mark.parametrize("length", [300, 16_000])
def test_rows_without_anything_outside_are_measured_from_other_rows(length: int) -> None:
    inside = np.ones((1, 3, length), dtype=bool)
    inside[0, 2] = False
    np.testing.assert_array_equal(squared_distance(inside)[0, :, 0], [4, 1, 0])
    np.testing.assert_array_equal(squared_distance(inside)[0, 0], np.full(length, 4))
    inside[0, 2, 1:] = True
    assert squared_distance(inside)[0, 0, length - 1] == (length - 1) ** 2 + 4
