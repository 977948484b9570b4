"""Scores of every agglomeration threshold from one reading of the volumes, and the choice of the best.

    fragments x truth  --counted once-->  table  --lookup table of a threshold-->  table of segments  -->  scores

No volume is relabelled: each threshold's lookup table collapses the rows of the one table of fragments. The best
threshold is that of the lowest plain VOI sum (split + merge, not eroded); of equal ones the lowest, which merges least.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from neuroloom.errors import UserError
from neuroloom.evaluation.contingency import OverlapTable, overlap_table, relabel_table
from neuroloom.evaluation.scores import Scores, Unsegmented, scored_voxels, scores
from neuroloom.evaluation.truth import connected_truth, erode_truth


class ThresholdScores(BaseModel):
    """Scores of one threshold.

    Attributes:
        threshold: Edges with a merge score up to this were merged.
        segments: Number of segments that overlap the annotated region.
        plain: Scores over all annotated voxels.
        eroded_1: Scores with the truth eroded by one voxel; None when that leaves no voxel.
        eroded_2: Scores with the truth eroded by two voxels; None when that leaves no voxel.
    """

    model_config = ConfigDict(frozen=True)

    threshold: float
    segments: int
    plain: Scores
    eroded_1: Scores | None
    eroded_2: Scores | None


class Evaluation(BaseModel):
    """Scores of a segmentation at a list of thresholds, with the convention they were computed under.

    Attributes:
        convention: The convention in words; belongs beside every number taken from here.
        unsegmented: What voxels with segment 0 count as.
        connected: Whether the truth was cut into connected pieces within the crop.
        only_xy: Whether erosion was within sections only.
        truth_labels: Number of truth labels scored.
        best_threshold: The threshold of the lowest plain VOI sum.
        thresholds: Scores of each threshold, in rising order.
        used_threshold: The one that volumes are segmented with, where it is known: set in the project, or the best over
            all validation volumes.
    """

    model_config = ConfigDict(frozen=True)

    convention: str
    unsegmented: Unsegmented
    connected: bool
    only_xy: bool
    truth_labels: int
    best_threshold: float
    thresholds: tuple[ThresholdScores, ...]
    used_threshold: float | None = None

    @property
    def best(self) -> ThresholdScores:
        """Scores of the best threshold."""
        return next(entry for entry in self.thresholds if entry.threshold == self.best_threshold)

    @property
    def used(self) -> ThresholdScores:
        """Scores of the threshold that volumes are segmented with; of the best one where that is not known."""
        return next((entry for entry in self.thresholds if entry.threshold == self.used_threshold), self.best)

    @property
    def why_used(self) -> str:
        """In a few words: it is the best one, or which one is."""
        if self.used.threshold == self.best_threshold:
            return "the best"
        return f"the best for it would be {self.best_threshold:g}, with {self.best.plain.voi_sum:.3f}"

    @property
    def reason(self) -> str:
        """Why this threshold was chosen, in words; warns when it is the first or the last of the list."""
        scores = self.best.plain
        number = len(self.thresholds)
        if number == 1:
            return f"Threshold {self.best_threshold:g} is the only one that was scored."
        lowest, highest = self.thresholds[0].threshold, self.thresholds[-1].threshold
        text = (
            f"Threshold {self.best_threshold:g} has the lowest plain VOI sum, {scores.voi_sum:.3f} bits (split "
            f"{scores.voi_split:.3f}, merge {scores.voi_merge:.3f}), of {number} thresholds from {lowest:g} to "
            f"{highest:g}."
        )
        if self.best_threshold in (lowest, highest):
            side = "lower" if self.best_threshold == lowest else "higher"
            text += f" It lies at the end of the list: {side} ones, not tried, may be better."
        return text


@dataclass(frozen=True)
class FragmentTables:
    """Overlaps of fragments with the truth as it is, eroded by one voxel, and by two."""

    plain: OverlapTable
    eroded_1: OverlapTable
    eroded_2: OverlapTable


def fragment_tables(
    fragments: NDArray[Any], truth: NDArray[Any], *, connected: bool = True, only_xy: bool = False
) -> FragmentTables:
    """Count the overlaps that `evaluate_tables` needs.

    Args:
        fragments: `(z, y, x) uint64`, 0 = unsegmented.
        truth: `(z, y, x) uint64`, 0 = not annotated.
        connected: Cut the truth into pieces that are connected within this crop.
        only_xy: Erode within sections only.

    Raises:
        ValueError: The shapes differ or an array holds no integers.
    """
    if fragments.shape != truth.shape:
        raise ValueError(f"fragments have shape {fragments.shape} and truth {truth.shape}; they must be equal")
    labels = connected_truth(truth) if connected else truth.astype(np.uint64)
    plain = overlap_table(fragments, labels)
    labels = erode_truth(labels, 1, only_xy=only_xy)
    eroded_1 = overlap_table(fragments, labels)
    # One more step on what is left of the first is the same as two steps.
    labels = erode_truth(labels, 1, only_xy=only_xy)
    return FragmentTables(plain, eroded_1, overlap_table(fragments, labels))


def evaluate_tables(
    tables: FragmentTables,
    lookups: Mapping[float, NDArray[np.uint64]],
    *,
    connected: bool = True,
    only_xy: bool = False,
    unsegmented: Unsegmented = "one segment",
) -> Evaluation:
    """Score every threshold from tables of overlaps.

    Args:
        tables: From `fragment_tables`.
        lookups: For each threshold its lookup table `(2, n) uint64`: fragments, segments.
        connected: As the tables were made; goes into the convention.
        only_xy: As the tables were made; goes into the convention.
        unsegmented: What voxels with segment 0 count as.

    Raises:
        UserError: No threshold, no annotated voxel, or fragments that a lookup table does not know.
    """
    if not lookups:
        raise UserError("There is no threshold to evaluate. List at least one in `agglomeration.thresholds`.")
    if scored_voxels(tables.plain, unsegmented) == 0:
        raise UserError(
            "The truth of the validation volume is 0 everywhere that is segmented, so there is nothing to score. "
            "Check its label dataset with `neuroloom check`."
        )
    entries = []
    for threshold in sorted(lookups):
        plain, eroded_1, eroded_2 = (
            relabel_table(table, lookups[threshold]) for table in (tables.plain, tables.eroded_1, tables.eroded_2)
        )
        annotated = plain.segments[(plain.truths != 0) & (plain.segments != 0)]
        entries.append(
            ThresholdScores(
                threshold=float(threshold),
                segments=int(np.unique(annotated).size),
                plain=scores(plain, unsegmented),
                eroded_1=_scores_or_none(eroded_1, unsegmented),
                eroded_2=_scores_or_none(eroded_2, unsegmented),
            )
        )
    truths = tables.plain.truths
    return Evaluation(
        convention=describe_convention(connected=connected, only_xy=only_xy, unsegmented=unsegmented),
        unsegmented=unsegmented,
        connected=connected,
        only_xy=only_xy,
        truth_labels=int(np.unique(truths[truths != 0]).size),
        best_threshold=best_threshold(entries),
        thresholds=tuple(entries),
    )


def evaluate_thresholds(
    fragments: NDArray[Any],
    truth: NDArray[Any],
    lookups: Mapping[float, NDArray[np.uint64]],
    *,
    connected: bool = True,
    only_xy: bool = False,
    unsegmented: Unsegmented = "one segment",
) -> Evaluation:
    """Score every threshold of an agglomeration against the truth.

    Args:
        fragments: `(z, y, x) uint64`, 0 = unsegmented.
        truth: `(z, y, x) uint64`, 0 = not annotated.
        lookups: For each threshold its lookup table `(2, n) uint64`: fragments, segments.
        connected: Cut the truth into pieces that are connected within this crop.
        only_xy: Erode within sections only, for anisotropic data.
        unsegmented: What voxels with segment 0 count as.

    Raises:
        UserError: No threshold, no annotated voxel, or fragments that a lookup table does not know.
        ValueError: The shapes differ or an array holds no integers.
    """
    tables = fragment_tables(fragments, truth, connected=connected, only_xy=only_xy)
    return evaluate_tables(tables, lookups, connected=connected, only_xy=only_xy, unsegmented=unsegmented)


def evaluate_segmentation(
    segmentation: NDArray[Any],
    truth: NDArray[Any],
    *,
    threshold: float = 0.0,
    connected: bool = True,
    only_xy: bool = False,
    unsegmented: Unsegmented = "one segment",
) -> Evaluation:
    """Score one finished segmentation; an `Evaluation` with a single threshold.

    Args:
        segmentation: `(z, y, x)` integer labels, 0 = unsegmented.
        truth: `(z, y, x)` integer labels, 0 = not annotated.
        threshold: The threshold that made the segmentation, to be recorded.
        connected: Cut the truth into pieces that are connected within this crop.
        only_xy: Erode within sections only, for anisotropic data.
        unsegmented: What voxels with segment 0 count as.

    Raises:
        UserError: No annotated voxel.
        ValueError: The shapes differ or an array holds no integers.
    """
    tables = fragment_tables(segmentation, truth, connected=connected, only_xy=only_xy)
    # All three tables cover the whole volume, so each knows every label.
    labels = np.unique(tables.plain.segments)
    lookup = np.stack([labels, labels])
    return evaluate_tables(tables, {threshold: lookup}, connected=connected, only_xy=only_xy, unsegmented=unsegmented)


def best_threshold(entries: list[ThresholdScores]) -> float:
    """The threshold of the lowest plain VOI sum; of equal ones the lowest threshold."""
    return min(entries, key=lambda entry: (entry.plain.voi_sum, entry.threshold)).threshold


def describe_convention(*, connected: bool, only_xy: bool, unsegmented: Unsegmented) -> str:
    """The convention of the scores in words."""
    gaps = {
        "one segment": "unsegmented voxels count as one segment",
        "ignored": "unsegmented voxels are ignored",
        "single voxels": "each unsegmented voxel counts as a segment of its own",
    }[unsegmented]
    pieces = (
        "truth labels are cut into 26-connected components within the scored crop"
        if connected
        else "truth labels are taken as they are, pieces unconnected within the crop included"
    )
    where = "within sections (y, x) only" if only_xy else "along z, y and x"
    return (
        "VOI in bits, split = H(segmentation | truth), merge = H(truth | segmentation); Rand over voxel pairs drawn "
        f"with replacement; voxels with truth 0 are ignored; {gaps}; {pieces}; eroded n: voxels within n steps {where} "
        "of another truth label are ignored too; the best threshold is that of the lowest plain (not eroded) VOI sum."
    )


def _scores_or_none(table: OverlapTable, unsegmented: Unsegmented) -> Scores | None:
    return scores(table, unsegmented) if scored_voxels(table, unsegmented) else None
