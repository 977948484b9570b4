"""Where to look for an error: a voxel on the face between the two largest parts of a split label or merged segment.

truth 5:   A A A A | B B      split: the face between segments A and B inside truth label 5
segment 8: 1 1 1 | 2 2 2      merge: the face between truth labels 1 and 2 inside segment 8
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from neuroloom.evaluation.contingency import overlap_table
from neuroloom.evaluation.scores import Contribution, Unsegmented, largest_merges, largest_splits


class SegmentationError(BaseModel):
    """One split or merge error with what it costs and where to look.

    Attributes:
        kind: "split" (a truth label in several segments) or "merge" (a segment over several truth labels).
        label: The truth label that is split, or the segment that merges.
        bits: What it adds to VOI split or VOI merge.
        voxels: Scored voxels of the label.
        parts: Segments, or truth labels, inside it, largest first; at most ten.
        part_voxels: Scored voxels of each part.
        position: Voxel z, y, x in the scored array, where the two largest parts meet, if they do.
    """

    model_config = ConfigDict(frozen=True)

    kind: str
    label: int
    bits: float
    voxels: int
    parts: tuple[int, ...]
    part_voxels: tuple[int, ...]
    position: tuple[int, int, int]


def find_errors(
    segmentation: NDArray[Any], truth: NDArray[Any], number: int, unsegmented: Unsegmented = "one segment"
) -> list[SegmentationError]:
    """The largest split and the largest merge errors, each worst first, splits before merges.

    Args:
        segmentation: `(z, y, x)` integer labels.
        truth: `(z, y, x)` integer labels as they were scored (connected, eroded where wanted).
        number: At most so many of either kind.
        unsegmented: What voxels with segment 0 count as.

    Raises:
        ValueError: The shapes differ, or nothing is annotated.
    """
    table = overlap_table(segmentation, truth)
    splits = [_locate("split", error, truth, segmentation) for error in largest_splits(table, number, unsegmented)]
    merges = [_locate("merge", error, segmentation, truth) for error in largest_merges(table, number, unsegmented)]
    return splits + merges


def contact_voxel(
    inside: NDArray[Any], label: int, parts: NDArray[Any], first: int, second: int
) -> tuple[int, int, int] | None:
    """The voxel nearest the middle of the face between two parts of a label.

    Args:
        inside: `(z, y, x)` integer labels, of which `label` is looked at.
        label: The label.
        parts: `(z, y, x)` integer labels that cut it up.
        first: One part; the voxel returned lies in it.
        second: The other part.

    Returns:
        z, y, x, or None when the two parts share no face inside the label.
    """
    found, z, y, x = _contact(
        inside, inside.dtype.type(label), parts, parts.dtype.type(first), parts.dtype.type(second)
    )
    return (int(z), int(y), int(x)) if found else None


def middle_voxel(region: NDArray[np.bool_]) -> tuple[int, int, int]:
    """The voxel of a non-empty `(z, y, x)` region nearest its centre of mass; of equal ones the first."""
    voxels = np.argwhere(region)
    distance = ((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1)
    z, y, x = voxels[np.argmin(distance)]
    return int(z), int(y), int(x)


def _locate(kind: str, error: Contribution, inside: NDArray[Any], parts: NDArray[Any]) -> SegmentationError:
    # A label whose voxels are all unsegmented singles has one part only.
    first, second = error.parts[0], error.parts[min(1, len(error.parts) - 1)]
    position = contact_voxel(inside, error.label, parts, first, second)
    if position is None:
        position = middle_voxel((inside == inside.dtype.type(error.label)) & (parts == parts.dtype.type(second)))
    return SegmentationError(
        kind=kind,
        label=error.label,
        bits=error.bits,
        voxels=error.voxels,
        parts=error.parts[:10],
        part_voxels=error.part_voxels[:10],
        position=position,
    )


@njit(cache=True, nogil=True)
def _touches(inside, label, parts, second, z, y, x):  # type: ignore[no-untyped-def]
    """Whether one of the six neighbours lies in the label and in its second part."""
    depth, height, width = inside.shape
    if z > 0 and inside[z - 1, y, x] == label and parts[z - 1, y, x] == second:
        return True
    if z + 1 < depth and inside[z + 1, y, x] == label and parts[z + 1, y, x] == second:
        return True
    if y > 0 and inside[z, y - 1, x] == label and parts[z, y - 1, x] == second:
        return True
    if y + 1 < height and inside[z, y + 1, x] == label and parts[z, y + 1, x] == second:
        return True
    if x > 0 and inside[z, y, x - 1] == label and parts[z, y, x - 1] == second:
        return True
    return x + 1 < width and inside[z, y, x + 1] == label and parts[z, y, x + 1] == second


@njit(cache=True, nogil=True)
def _contact(inside, label, parts, first, second):  # type: ignore[no-untyped-def]
    """Centre of the contact voxels in a first pass, the contact voxel nearest to it in a second."""
    depth, height, width = inside.shape
    number = 0
    sum_z = sum_y = sum_x = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if (
                    inside[z, y, x] == label
                    and parts[z, y, x] == first
                    and _touches(inside, label, parts, second, z, y, x)
                ):
                    number += 1
                    sum_z += z
                    sum_y += y
                    sum_x += x
    if number == 0:
        return False, 0, 0, 0
    nearest = -1.0
    best_z = best_y = best_x = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if (
                    inside[z, y, x] == label
                    and parts[z, y, x] == first
                    and _touches(inside, label, parts, second, z, y, x)
                ):
                    distance = (z - sum_z / number) ** 2 + (y - sum_y / number) ** 2 + (x - sum_x / number) ** 2
                    if nearest < 0 or distance < nearest:
                        nearest = distance
                        best_z, best_y, best_x = z, y, x
    return True, best_z, best_y, best_x
