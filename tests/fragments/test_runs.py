"""Runs of labels against numpy and scipy, voxel by voxel; what hangs together against cc3d, too."""

from __future__ import annotations

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from neuroloom.fragments.runs import Runs


def pieces(labels: NDArray[np.uint32]) -> NDArray[np.int64]:
    """The definition: pieces of each label on its own, in the order of their first voxels."""
    found = np.zeros(labels.shape, dtype=np.int64)
    for label in np.unique(labels[labels > 0]):
        of_label, _ = ndimage.label(labels == label)
        found[of_label > 0] = of_label[of_label > 0] + found.max()
    numbers = np.zeros(found.max(initial=0) + 1, dtype=np.int64)
    values, first = np.unique(found, return_index=True)
    order = values[np.argsort(first)]
    numbers[order[order > 0]] = np.arange(1, np.count_nonzero(order) + 1)
    return numbers[found]


@settings(deadline=None, max_examples=60)
@given(shape=st.tuples(*[st.integers(0, 7)] * 3), count=st.integers(1, 4), seed=st.integers(0, 2**16))
def test_what_hangs_together_is_the_definition(shape: tuple[int, int, int], count: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, count + 1, shape).astype(np.uint32)
    runs = Runs.of(labels)
    np.testing.assert_array_equal(runs.painted(), labels)
    connected = runs.connected()
    np.testing.assert_array_equal(connected.painted(), pieces(labels))
    names = np.arange(labels.size + 1, dtype=np.uint64) * np.uint64(2**40)
    painted = connected.painted(names)
    assert painted.dtype == np.uint64
    np.testing.assert_array_equal(painted, names[connected.painted()])


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint32])
def test_a_part_of_an_array_is_that_part(kind: type) -> None:
    labels = np.random.default_rng(3).integers(0, 4, (6, 9, 11)).astype(kind)
    begin, shape = (1, 2, 3), (4, 6, 5)
    part = labels[1:5, 2:8, 3:8]
    np.testing.assert_array_equal(Runs.of(labels, begin, shape).painted(), part)
    np.testing.assert_array_equal(Runs.of(part).painted(), part)


def test_large_pieces_are_those_of_cc3d() -> None:
    field = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((40, 80, 90)), 2)
    labels = np.digitize(field, np.quantile(field, [0.3, 0.5, 0.7])).astype(np.uint32)
    ours = Runs.of(labels).connected().painted()
    theirs = cc3d.connected_components(labels, connectivity=6)
    assert ours.max() == theirs.max() > 50
    pairs = np.unique(np.stack([ours.reshape(-1), theirs.reshape(-1)]), axis=1)
    assert pairs.shape[1] == ours.max() + 1
