"""Scores of a segmentation against the truth, all from the overlap table.

With c voxels in the overlap of segment s and truth label t, |s| and |t| voxels in all, n voxels scored:

    VOI split   H(segmentation | truth) = Σ c/n · log2(|t| / c)     bits; 0 when no truth label is cut up
    VOI merge   H(truth | segmentation) = Σ c/n · log2(|s| / c)     bits; 0 when no segment joins two truth labels
    Rand split  Σ c² / Σ |t|²                                       share of the truth's voxel pairs kept together
    Rand merge  Σ c² / Σ |s|²                                       share of the segments' voxel pairs rightly together
    adapted Rand error   1 - 2 · split · merge / (split + merge)    0 is best

Voxels with truth 0 are ignored everywhere. Segment sizes count scored voxels only. Pairs of voxels are drawn with
replacement, as in the SNEMI3D and CREMI challenges (scikit-image draws without: a difference of order 1/size).

Unsegmented voxels (label 0) are by default one segment, for all scores. "ignored" leaves them out (which flatters a
segmentation with gaps); "single voxels" makes each a segment of its own (as CREMI's Rand error does).

Sources: Meilă 2007, doi:10.1016/j.jmva.2006.11.013; Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, computed_field

from neuroloom.evaluation.contingency import OverlapTable

Unsegmented = Literal["one segment", "ignored", "single voxels"]


class Scores(BaseModel):
    """Scores of one segmentation against one truth.

    Attributes:
        voi_split: H(segmentation | truth), bits.
        voi_merge: H(truth | segmentation), bits.
        rand_split: Share of the voxel pairs together in the truth that the segmentation keeps together.
        rand_merge: Share of the voxel pairs together in the segmentation that belong together.
        adapted_rand_error: 1 - harmonic mean of the two.
        voxels: Number of voxels scored.
    """

    model_config = ConfigDict(frozen=True)

    voi_split: float
    voi_merge: float
    rand_split: float
    rand_merge: float
    adapted_rand_error: float
    voxels: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def voi_sum(self) -> float:
        """VOI split + VOI merge, bits."""
        return self.voi_split + self.voi_merge


@dataclass(frozen=True)
class Contribution:
    """What one label adds to the VOI.

    Attributes:
        label: The truth label that is split, or the segment that merges.
        bits: Its part of VOI split or VOI merge; these parts add up to the whole.
        voxels: Its scored voxels.
        parts: Labels of the other volume inside it, largest first.
        part_voxels: Scored voxels of each part.
    """

    label: int
    bits: float
    voxels: int
    parts: tuple[int, ...]
    part_voxels: tuple[int, ...]


@dataclass(frozen=True)
class _Overlaps:
    """Scored overlaps, each with the size of what it lies in; `weight` voxels all see the same three sizes."""

    segments: NDArray[np.uint64]
    truths: NDArray[np.uint64]
    weight: NDArray[np.float64]
    overlap: NDArray[np.float64]
    segment_size: NDArray[np.float64]
    truth_size: NDArray[np.float64]


def variation_of_information(table: OverlapTable, unsegmented: Unsegmented = "one segment") -> tuple[float, float]:
    """Variation of information in bits.

    Args:
        table: Overlaps of segments with truth labels.
        unsegmented: What voxels with segment 0 count as.

    Returns:
        split = H(segmentation | truth) and merge = H(truth | segmentation).

    Raises:
        ValueError: No voxel is left to score.
    """
    scored = _scored(table, unsegmented)
    return float(_split_bits(scored).sum()), float(_merge_bits(scored).sum())


def rand_scores(table: OverlapTable, unsegmented: Unsegmented = "one segment") -> tuple[float, float, float]:
    """Rand split, Rand merge and adapted Rand error, as defined at the top of this module.

    Args:
        table: Overlaps of segments with truth labels.
        unsegmented: What voxels with segment 0 count as.

    Returns:
        Rand split, Rand merge (1 is best) and adapted Rand error (0 is best).

    Raises:
        ValueError: No voxel is left to score.
    """
    scored = _scored(table, unsegmented)
    together = float((scored.weight * scored.overlap).sum())
    split = together / float((scored.weight * scored.truth_size).sum())
    merge = together / float((scored.weight * scored.segment_size).sum())
    return split, merge, max(0.0, 1 - 2 * split * merge / (split + merge))


def scores(table: OverlapTable, unsegmented: Unsegmented = "one segment") -> Scores:
    """All scores of one overlap table.

    Args:
        table: Overlaps of segments with truth labels.
        unsegmented: What voxels with segment 0 count as.

    Raises:
        ValueError: No voxel is left to score.
    """
    split, merge = variation_of_information(table, unsegmented)
    rand_split, rand_merge, error = rand_scores(table, unsegmented)
    return Scores(
        voi_split=split,
        voi_merge=merge,
        rand_split=rand_split,
        rand_merge=rand_merge,
        adapted_rand_error=error,
        voxels=scored_voxels(table, unsegmented),
    )


def scored_voxels(table: OverlapTable, unsegmented: Unsegmented = "one segment") -> int:
    """Number of voxels that the scores of a table speak of."""
    return int(table.counts[_is_scored(table, unsegmented)].sum())


def largest_splits(table: OverlapTable, number: int, unsegmented: Unsegmented = "one segment") -> list[Contribution]:
    """The truth labels that add most to VOI split, worst first; labels that add nothing are left out.

    Args:
        table: Overlaps of segments with truth labels.
        number: How many to return at most.
        unsegmented: What voxels with segment 0 count as.

    Raises:
        ValueError: No voxel is left to score.
    """
    scored = _scored(table, unsegmented)
    return _largest(scored.truths, scored.segments, scored.weight, _split_bits(scored), number)


def largest_merges(table: OverlapTable, number: int, unsegmented: Unsegmented = "one segment") -> list[Contribution]:
    """The segments that add most to VOI merge, worst first; segments that add nothing are left out.

    Args:
        table: Overlaps of segments with truth labels.
        number: How many to return at most.
        unsegmented: What voxels with segment 0 count as.

    Raises:
        ValueError: No voxel is left to score.
    """
    scored = _scored(table, unsegmented)
    return _largest(scored.segments, scored.truths, scored.weight, _merge_bits(scored), number)


def _is_scored(table: OverlapTable, unsegmented: Unsegmented) -> NDArray[np.bool_]:
    keep = table.truths != 0
    return keep & (table.segments != 0) if unsegmented == "ignored" else keep


def _scored(table: OverlapTable, unsegmented: Unsegmented) -> _Overlaps:
    keep = _is_scored(table, unsegmented)
    segments, truths, counts = table.segments[keep], table.truths[keep], table.counts[keep].astype(np.float64)
    if counts.size == 0:
        raise ValueError("no voxel is left to score: the truth is 0 everywhere (or unsegmented voxels are ignored)")
    overlap, segment_size, truth_size = counts.copy(), _group_sums(segments, counts), _group_sums(truths, counts)
    if unsegmented == "single voxels":
        single = segments == 0
        overlap[single] = segment_size[single] = 1
    return _Overlaps(segments, truths, counts, overlap, segment_size, truth_size)


def _group_sums(labels: NDArray[np.uint64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each entry, the sum of the values of all entries with its label."""
    _, group = np.unique(labels, return_inverse=True)
    sums: NDArray[np.float64] = np.bincount(group, weights=values).astype(np.float64)
    return sums[group]


def _split_bits(scored: _Overlaps) -> NDArray[np.float64]:
    return scored.weight / scored.weight.sum() * np.log2(scored.truth_size / scored.overlap)


def _merge_bits(scored: _Overlaps) -> NDArray[np.float64]:
    return scored.weight / scored.weight.sum() * np.log2(scored.segment_size / scored.overlap)


def _largest(
    labels: NDArray[np.uint64],
    others: NDArray[np.uint64],
    voxels: NDArray[np.float64],
    bits: NDArray[np.float64],
    number: int,
) -> list[Contribution]:
    unique, group = np.unique(labels, return_inverse=True)
    total_bits = np.bincount(group, weights=bits)
    found: list[Contribution] = []
    # Ties go to the smaller label: `unique` is sorted and the sort is stable.
    for index in np.argsort(-total_bits, kind="stable")[:number]:
        if total_bits[index] <= 0:
            break
        members = np.flatnonzero(group == index)
        members = members[np.lexsort((others[members], -voxels[members]))]
        found.append(
            Contribution(
                label=int(unique[index]),
                bits=float(total_bits[index]),
                voxels=int(voxels[members].sum()),
                parts=tuple(int(label) for label in others[members]),
                part_voxels=tuple(int(v) for v in voxels[members]),
            )
        )
    return found
