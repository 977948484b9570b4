"""Where errors are: on the face between the two largest parts."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neuroloom.evaluation.positions import SegmentationError, contact_voxel, find_errors, middle_voxel

small = arrays(np.uint64, (3, 4, 5), elements=st.integers(0, 2))


@given(small, small)
@settings(max_examples=60, deadline=None)
def test_contact_is_the_contact_voxel_nearest_their_middle(inside: np.ndarray, parts: np.ndarray) -> None:
    contacts = []
    for voxel in np.ndindex(*inside.shape):
        if inside[voxel] != 1 or parts[voxel] != 1:
            continue
        for axis in range(3):
            for step in (-1, 1):
                other = list(voxel)
                other[axis] += step
                if (
                    0 <= other[axis] < inside.shape[axis]
                    and inside[tuple(other)] == 1
                    and parts[tuple(other)] == 2
                    and voxel not in contacts
                ):
                    contacts.append(voxel)
    found = contact_voxel(inside, 1, parts, 1, 2)
    if not contacts:
        assert found is None
        return
    assert found in contacts
    middle = np.mean(contacts, axis=0)
    distances = [np.sum((np.array(c) - middle) ** 2) for c in contacts]
    assert np.isclose(np.sum((np.array(found) - middle) ** 2), min(distances))


def test_split_and_merge_are_found_where_they_are() -> None:
    truth = np.ones((5, 10, 30), np.uint64)
    truth[:, :, 20:] = 2
    segmentation = np.full(truth.shape, 2**50, np.uint64)
    segmentation[:, :, :8] = 9
    split, merge = find_errors(segmentation, truth, 3)
    assert (split.kind, split.label, split.parts) == ("split", 1, (2**50, 9))
    assert split.position[2] == 8
    assert split.part_voxels == (600, 400)
    assert (merge.kind, merge.label, merge.parts) == ("merge", 2**50, (1, 2))
    assert merge.position[2] == 19
    assert SegmentationError.model_validate_json(merge.model_dump_json()) == merge


def test_parts_that_do_not_touch_get_a_voxel_of_the_second() -> None:
    truth = np.ones((1, 1, 9), np.uint64)
    segmentation = np.array([[[1, 1, 1, 1, 5, 3, 3, 3, 6]]], np.uint64)
    (split,) = find_errors(segmentation, truth, 1)
    assert split.position == (0, 0, 6)
    assert middle_voxel(segmentation == 1) == (0, 0, 1)


def test_unsegmented_voxels_can_be_a_part() -> None:
    truth = np.ones((1, 2, 8), np.uint64)
    segmentation = truth.copy()
    segmentation[..., 5:] = 0
    (split,) = find_errors(segmentation, truth, 1)
    assert split.parts == (1, 0)
    assert split.position[2] == 4
    assert find_errors(segmentation, truth, 1, "ignored") == []
    (single,) = find_errors(np.zeros_like(truth), truth, 1, "single voxels")
    assert truth[single.position] == 1
