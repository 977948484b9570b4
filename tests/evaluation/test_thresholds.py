"""Scores per threshold against relabelling the volume for each."""

from __future__ import annotations

import numpy as np
import pytest

from neuroloom.errors import UserError
from neuroloom.evaluation.contingency import overlap_table
from neuroloom.evaluation.scores import scores
from neuroloom.evaluation.thresholds import (
    Evaluation,
    describe_convention,
    evaluate_segmentation,
    evaluate_thresholds,
)
from neuroloom.evaluation.truth import connected_truth, erode_truth


def make_lookups(fragments: np.ndarray) -> dict[float, np.ndarray]:
    ids = np.unique(fragments[fragments != 0])
    return {
        0.8: np.stack([ids, np.ones_like(ids)]),
        0.1: np.stack([ids, ids]),
        0.45: np.stack([ids, np.where(ids == 77, np.uint64(4 * 2**40), ids)]),
    }


def test_equals_scoring_each_relabelled_volume(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    fragments, truth = blobs
    lookups = make_lookups(fragments)
    evaluation = evaluate_thresholds(fragments, truth, lookups)
    assert [entry.threshold for entry in evaluation.thresholds] == [0.1, 0.45, 0.8]
    pieces = connected_truth(truth)
    for entry in evaluation.thresholds:
        table = dict(zip(*(row.tolist() for row in lookups[entry.threshold]), strict=True)) | {0: 0}
        segmentation = np.array([table[f] for f in fragments.ravel().tolist()], np.uint64).reshape(fragments.shape)
        assert entry.plain == scores(overlap_table(segmentation, pieces))
        assert entry.eroded_1 == scores(overlap_table(segmentation, erode_truth(pieces, 1)))
        # Nothing of these small labels with holes survives two steps.
        eroded_twice = erode_truth(pieces, 2)
        expected = scores(overlap_table(segmentation, eroded_twice)) if eroded_twice.any() else None
        assert entry.eroded_2 == expected
        assert entry.segments == len(set(segmentation[truth != 0].tolist()) - {0})
    sums = {entry.threshold: entry.plain.voi_sum for entry in evaluation.thresholds}
    assert evaluation.best_threshold == min(sums, key=lambda t: sums[t])
    assert evaluation.best.threshold == evaluation.best_threshold
    assert evaluation.truth_labels == len(np.unique(pieces)) - 1


def test_of_equal_thresholds_the_lowest_is_chosen(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    fragments, truth = blobs
    lookup = make_lookups(fragments)[0.45]
    assert evaluate_thresholds(fragments, truth, {0.9: lookup, 0.3: lookup, 0.5: lookup}).best_threshold == 0.3


def test_the_reason_names_the_choice_and_warns_at_the_ends(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    fragments, truth = blobs
    lookups = make_lookups(fragments)
    inner = evaluate_thresholds(fragments, truth, lookups)
    assert inner.best_threshold == 0.45
    assert inner.reason.startswith(f"Threshold 0.45 has the lowest plain VOI sum, {inner.best.plain.voi_sum:.3f} bits")
    assert "of 3 thresholds from 0.1 to 0.8." in inner.reason
    assert "end of the list" not in inner.reason
    assert "lower ones" in evaluate_thresholds(fragments, truth, {t: lookups[t] for t in (0.45, 0.8)}).reason
    assert "higher ones" in evaluate_thresholds(fragments, truth, {t: lookups[t] for t in (0.1, 0.45)}).reason
    assert "only one" in evaluate_thresholds(fragments, truth, {0.1: lookups[0.1]}).reason


def test_the_options_do_what_the_convention_says(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    fragments, truth = blobs
    lookups = make_lookups(fragments)
    evaluation = evaluate_thresholds(fragments, truth, lookups, connected=False, only_xy=True, unsegmented="ignored")
    first = evaluation.thresholds[0]
    assert first.plain == scores(overlap_table(fragments, truth), "ignored")
    assert first.eroded_1 == scores(overlap_table(fragments, erode_truth(truth, 1, only_xy=True)), "ignored")
    assert "unsegmented voxels are ignored" in evaluation.convention
    assert "sections" in evaluation.convention
    assert evaluation.convention != describe_convention(connected=True, only_xy=True, unsegmented="ignored")


def test_a_finished_segmentation(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    segmentation, truth = blobs
    evaluation = evaluate_segmentation(segmentation, truth, threshold=0.2)
    assert evaluation.best.plain == scores(overlap_table(segmentation, connected_truth(truth)))
    assert evaluation.best_threshold == 0.2
    perfect = evaluate_segmentation(connected_truth(truth), truth).best
    assert perfect.plain.voi_sum == 0


def test_json_round_trip_keeps_everything(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    evaluation = evaluate_thresholds(*blobs, make_lookups(blobs[0]))
    text = evaluation.model_dump_json()
    assert Evaluation.model_validate_json(text) == evaluation
    assert "bits" in evaluation.convention


def test_truth_that_vanishes_when_eroded_gives_none() -> None:
    truth = np.arange(1, 28, dtype=np.uint64).reshape(3, 3, 3)
    entry = evaluate_segmentation(truth, truth).best
    assert entry.plain.voi_sum == 0
    assert entry.eroded_1 is None
    assert entry.eroded_2 is None


def test_errors_a_user_can_make(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    fragments, truth = blobs
    with pytest.raises(UserError, match="no threshold"):
        evaluate_thresholds(fragments, truth, {})
    with pytest.raises(UserError, match="0 everywhere"):
        evaluate_thresholds(fragments, np.zeros_like(truth), make_lookups(fragments))
    with pytest.raises(UserError, match="not in the lookup table"):
        evaluate_thresholds(fragments, truth, {0.5: np.array([[77], [77]], np.uint64)})
    with pytest.raises(ValueError, match="shape"):
        evaluate_thresholds(fragments[:3], truth, make_lookups(fragments))
