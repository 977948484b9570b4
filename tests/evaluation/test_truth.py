"""Connected and eroded truth against voxel by voxel definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from neuroloom.evaluation.contingency import overlap_table
from neuroloom.evaluation.scores import variation_of_information
from neuroloom.evaluation.truth import connected_truth, erode_truth

small = arrays(np.uint64, (4, 5, 6), elements=st.sampled_from([0, 1, 1, 1, 2**60]))


@given(small)
@settings(max_examples=40, deadline=None)
def test_connected_pieces(labels: np.ndarray) -> None:
    pieces = connected_truth(labels)
    assert pieces.dtype == np.uint64
    assert np.array_equal(pieces == 0, labels == 0)
    expected = np.zeros(labels.shape, np.uint64)
    for label in np.unique(labels[labels != 0]):
        found, _ = ndimage.label(labels == label, structure=np.ones((3, 3, 3)))
        expected[found > 0] = found[found > 0].astype(np.uint64) + expected.max()
    if (labels != 0).any():
        assert variation_of_information(overlap_table(pieces, expected)) == (0, 0)


@given(small, st.integers(0, 3), st.booleans())
@settings(max_examples=40, deadline=None)
def test_erosion_removes_what_has_another_label_within_reach(labels: np.ndarray, steps: int, only_xy: bool) -> None:
    expected = labels.copy()
    for z, y, x in np.ndindex(*labels.shape):
        for other in np.ndindex(*labels.shape):
            dz, dy, dx = abs(other[0] - z), abs(other[1] - y), abs(other[2] - x)
            if dz + dy + dx <= steps and (dz == 0 or not only_xy) and labels[other] != labels[z, y, x]:
                expected[z, y, x] = 0
    before = labels.copy()
    assert np.array_equal(erode_truth(labels, steps, only_xy=only_xy), expected)
    assert np.array_equal(labels, before), "the input must stay as it was"


@pytest.mark.real_data
def test_real_truth_against_itself_and_against_a_shifted_copy(real_data: Path) -> None:
    labels = zarr.open_group(str(real_data / "fib25-val.zarr"), mode="r")["volumes/labels/neuron_ids"][:120, :160, :161]
    truth, shifted = labels[:, :, :-1], labels[:, :, 1:]
    assert variation_of_information(overlap_table(truth, truth)) == (0, 0)
    sums = [sum(variation_of_information(overlap_table(shifted, erode_truth(truth, steps)))) for steps in (0, 1, 2)]
    assert sums[0] > 0.1
    # A shift by one voxel lies within the tolerance, up to what a thin neurite loses.
    assert sums[1] < 0.1 * sums[0]
    assert sums[2] < 0.1 * sums[0]


@pytest.mark.real_data
def test_real_connected_truth_is_the_one_published_with_the_data(real_data: Path) -> None:
    group = zarr.open_group(str(real_data / "fib25-train.zarr"), mode="r")["volumes/labels"]
    # In a smaller crop more falls apart: pieces of the crop must nest in the pieces of the whole.
    region = (slice(0, 64), slice(0, 96), slice(0, 96))
    pieces, published = connected_truth(group["neuron_ids"][region]), group["neuron_ids_cc"][region]
    split, merge = variation_of_information(overlap_table(pieces, published))
    assert merge == 0
    assert split < 1
