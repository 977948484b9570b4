"""The truth made ready for scoring: cut into pieces that are connected within the crop, and eroded at its borders.

A crop cuts neurites apart: two branches of one neuron that meet outside carry one label, and no segmentation of the
crop could join them. Where exactly an annotator draws a membrane is worth a bit or more of VOI that says nothing about
connectivity: eroding leaves these voxels out.

    erode 1 step, 6-neighbourhood:     1 1 1 2 2 2    becomes    1 1 0 0 2 2
"""

from __future__ import annotations

from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray


def connected_truth(labels: NDArray[Any]) -> NDArray[np.uint64]:
    """Give each 26-connected piece of each label a label of its own.

    Args:
        labels: `(z, y, x)` integer labels, 0 = not annotated.

    Returns:
        `(z, y, x) uint64`, pieces 1 … n, 0 where `labels` is 0.
    """
    pieces = cc3d.connected_components(np.ascontiguousarray(labels), connectivity=26)
    return np.asarray(pieces, dtype=np.uint64)


def erode_truth(labels: NDArray[np.uint64], steps: int, *, only_xy: bool = False) -> NDArray[np.uint64]:
    """Set to 0 every voxel that has another label (0 included) within `steps` steps along the axes.

    The border of the array is no border of a label. Steps are along z, y and x (a path of 6-neighbours), so two
    steps remove the diagonal neighbours too.

    Args:
        labels: `(z, y, x) uint64`, 0 = not annotated.
        steps: Number of steps in voxels; 0 returns a copy.
        only_xy: Erode within sections only, for anisotropic data.

    Returns:
        `(z, y, x) uint64`.
    """
    eroded = labels.copy()
    for _ in range(steps):
        inner = np.ones(eroded.shape, dtype=bool)
        for axis in range(1 if only_xy else 0, 3):
            before = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
            after = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
            same = eroded[before] == eroded[after]
            inner[before] &= same
            inner[after] &= same
        eroded[~inner] = 0
    return eroded
