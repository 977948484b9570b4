"""What a label is good for: a volume may be painted in part, and hold what is to be no neuron, or is not to be judged.

    role        label    in the loss    as a neighbour
    OUT         any      no             unknown: no border is drawn against it, and no edge to it counts
    COUNTS      any      yes            what its label says; 0 is background
    UNPAINTED   0        no             something else: painted neurites end here, but two such voxels may be one object

Painted neurites are complete, so the voxels around them are known to belong to others: a border is grown into them from
there, and an edge between the two counts as one between objects.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

OUT, COUNTS, UNPAINTED = 0, 1, 2


def sort_labels(
    labels: NDArray[Any],
    mask: NDArray[Any] | None = None,
    unlabelled: str = "background",
    zero_ids: Sequence[int] = (),
    ignore_ids: Sequence[int] = (),
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Labels with their roles.

    Args:
        labels: Of any shape, integers, 0 = unlabelled.
        mask: Of the same shape, 0 where nothing is known; everything is by default.
        unlabelled: "background" where label 0 is known to be no neuron, "ignore" where it is just not painted.
        zero_ids: Labels that are background, and known to be.
        ignore_ids: Labels of which nothing is to be learned.

    Returns:
        Labels of the same type in which these ids are 0 (shapes that go on where the mask is 0 stay), and their roles,
        uint8.
    """
    roles = np.full(labels.shape, COUNTS, np.uint8)
    if unlabelled == "ignore":
        roles[labels == 0] = UNPAINTED
    if ignore_ids:
        roles[is_one_of(labels, ignore_ids)] = OUT
    if mask is not None:
        roles[mask == 0] = OUT
    if zero_ids or ignore_ids:
        labels = np.where(is_one_of(labels, [*zero_ids, *ignore_ids]), labels.dtype.type(0), labels)
    return labels, roles


def is_one_of(labels: NDArray[Any], ids: Collection[int]) -> NDArray[np.bool_]:
    """Where labels are one of some ids, whatever the type of the labels can hold."""
    largest = np.iinfo(labels.dtype).max
    return np.isin(labels, np.array([i for i in ids if i <= largest], labels.dtype))
