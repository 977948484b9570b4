"""VOI and Rand against their slow definitions and against scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.metrics import adapted_rand_error
from skimage.metrics import variation_of_information as skimage_voi

from neuroloom.evaluation.contingency import overlap_table
from neuroloom.evaluation.scores import (
    Scores,
    Unsegmented,
    largest_merges,
    largest_splits,
    rand_scores,
    scores,
    variation_of_information,
)

MODES: list[Unsegmented] = ["one segment", "ignored", "single voxels"]
small = arrays(np.uint64, (2, 3, 4), elements=st.integers(0, 3))


def scored_pairs(segmentation: np.ndarray, truth: np.ndarray, mode: Unsegmented) -> list[tuple[int, int]]:
    """One (segment, truth) for each scored voxel; the convention spelled out voxel by voxel."""
    pairs = []
    for index, (segment, label) in enumerate(zip(segmentation.ravel().tolist(), truth.ravel().tolist(), strict=True)):
        if label == 0 or (segment == 0 and mode == "ignored"):
            continue
        pairs.append((-1 - index if segment == 0 and mode == "single voxels" else segment, label))
    return pairs


def entropy(items: list[object]) -> float:
    return -sum(items.count(i) / len(items) * math.log2(items.count(i) / len(items)) for i in set(items))


@given(small, small, st.sampled_from(MODES))
@settings(max_examples=80, deadline=None)
def test_scores_are_what_their_definitions_say(segmentation: np.ndarray, truth: np.ndarray, mode: Unsegmented) -> None:
    pairs = scored_pairs(segmentation, truth, mode)
    table = overlap_table(segmentation, truth)
    if not pairs:
        with pytest.raises(ValueError, match="no voxel"):
            variation_of_information(table, mode)
        return
    segments, labels = [s for s, _ in pairs], [t for _, t in pairs]
    joint = entropy(list(pairs))
    split, merge = variation_of_information(table, mode)
    assert split == pytest.approx(joint - entropy(list(labels)), abs=1e-9)
    assert merge == pytest.approx(joint - entropy(list(segments)), abs=1e-9)
    n = range(len(pairs))
    both = sum(pairs[i] == pairs[j] for i in n for j in n)
    in_truth = sum(labels[i] == labels[j] for i in n for j in n)
    in_segments = sum(segments[i] == segments[j] for i in n for j in n)
    rand_split, rand_merge, error = rand_scores(table, mode)
    assert rand_split == pytest.approx(both / in_truth)
    assert rand_merge == pytest.approx(both / in_segments)
    assert error == pytest.approx(1 - 2 * both / (in_truth + in_segments))
    assert scores(table, mode).voxels == len(pairs)


def test_voi_equals_scikit_image(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    segmentation, truth = blobs
    annotated = truth != 0
    # scikit-image's "ignore" keeps ignored voxels in the number it divides by: leave them out beforehand instead.
    ours = variation_of_information(overlap_table(segmentation, truth))
    _, compact = np.unique(segmentation[annotated], return_inverse=True)
    assert skimage_voi(truth[annotated].astype(int), compact) == pytest.approx(ours)


def test_rand_equals_scikit_image_up_to_pairs_of_a_voxel_with_itself(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    segmentation, truth = blobs
    annotated = truth != 0
    n = int(annotated.sum())
    _, compact = np.unique(segmentation[annotated], return_inverse=True)
    error, precision, recall = adapted_rand_error(truth[annotated].astype(int), compact, ignore_labels=())
    table = overlap_table(segmentation, truth)
    split, merge, ours = rand_scores(table)
    in_truth = sum(int(c) ** 2 for c in np.unique(truth[annotated], return_counts=True)[1])
    in_segments = sum(int(c) ** 2 for c in np.unique(compact, return_counts=True)[1])
    # scikit-image leaves the n pairs of a voxel with itself out of every sum, and names the two the other way round.
    assert recall == pytest.approx((merge * in_segments - n) / (in_segments - n))
    assert precision == pytest.approx((split * in_truth - n) / (in_truth - n))
    assert ours == pytest.approx(error, abs=5e-3)
    assert split < 1
    assert merge < 1


def test_known_values() -> None:
    truth = np.array([[[1, 1, 1, 1, 2, 2, 2, 2]]], np.uint64)
    halves = np.array([[[1, 1, 3, 3, 2, 2, 2, 2]]], np.uint64)
    one = np.ones_like(truth)
    assert variation_of_information(overlap_table(halves, truth)) == (pytest.approx(0.5), 0)
    assert variation_of_information(overlap_table(one, truth)) == (0, pytest.approx(1))
    assert rand_scores(overlap_table(one, truth))[:2] == (1, 0.5)
    assert rand_scores(overlap_table(halves, truth))[:2] == (0.75, 1)


def test_conventions_for_unsegmented_voxels_differ() -> None:
    truth = np.array([[[1, 1, 2, 2]]], np.uint64)
    gaps = np.array([[[1, 0, 2, 0]]], np.uint64)
    table = overlap_table(gaps, truth)
    assert variation_of_information(table, "ignored") == (0, 0)
    assert variation_of_information(table, "one segment") == (pytest.approx(1), pytest.approx(0.5))
    assert variation_of_information(table, "single voxels") == (pytest.approx(1), 0)


def test_contributions_add_up_and_are_ordered(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    segmentation, truth = blobs
    table = overlap_table(segmentation, truth)
    split, merge = variation_of_information(table)
    for found, whole, labels, others in (
        (largest_splits(table, 1000), split, truth, segmentation),
        (largest_merges(table, 1000), merge, segmentation, truth),
    ):
        assert sum(error.bits for error in found) == pytest.approx(whole)
        assert [error.bits for error in found] == sorted((error.bits for error in found), reverse=True)
        worst = found[0]
        inside = (labels == worst.label) & (truth != 0)
        assert worst.voxels == inside.sum()
        parts, counts = np.unique(others[inside], return_counts=True)
        assert dict(zip(worst.parts, worst.part_voxels, strict=True)) == dict(
            zip(parts.tolist(), counts.tolist(), strict=True)
        )
        assert list(worst.part_voxels) == sorted(worst.part_voxels, reverse=True)
        n = (truth != 0).sum()
        assert worst.bits == pytest.approx(sum(c / n * math.log2(inside.sum() / c) for c in counts))
    assert len(largest_splits(table, 2)) == 2


def test_a_perfect_segmentation_has_no_errors(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    _, truth = blobs
    table = overlap_table(truth + np.uint64(100), truth)
    perfect = scores(table)
    assert (perfect.voi_sum, perfect.adapted_rand_error) == (0, 0)
    assert largest_splits(table, 5) == largest_merges(table, 5) == []


def test_scores_survive_json(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    result = scores(overlap_table(*blobs))
    text = result.model_dump_json()
    assert '"voi_sum"' in text
    assert Scores.model_validate_json(text) == result
