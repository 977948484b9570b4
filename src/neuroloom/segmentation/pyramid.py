"""Smaller and smaller copies of a segmentation, for viewers that draw a large volume in few voxels.

    segmentation   a a a b b b 0 0        a voxel of the next level is the most frequent label of its cell, mostly of
    s1               a   a   b   0        2 x 2 x 2 voxels of the level before; cells are counted from the volume's
    s2                 a       b          first voxel, so that levels do not depend on blocks

Of labels that are equally frequent, the smallest one counts; 0 (none) only where it is more frequent than each of the
others, so that thin neurites remain. An axis is halved unless its voxels are longer than the shortest by √2 or more:
voxels of thick sections become cubes first. It ends where a whole level is at most 128 voxels long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from neuroloom.volume.array import Nanometres, Triple

WHOLE = 128
"""Voxels along the longest axis at which a level is small enough."""


@dataclass(frozen=True)
class Level:
    """One of the copies.

    Attributes:
        dataset: Its name in the container.
        step: Voxels of the level before that are one of this level, z y x: 1 or 2.
        factor: Voxels of the segmentation that are one of this level, z y x.
        shape: Extent in voxels, z y x; the last voxel may reach beyond the volume.
    """

    dataset: str
    step: Triple
    factor: Triple
    shape: Triple

    def voxel_size(self, full: Nanometres) -> Nanometres:
        """nm per voxel of this level, z y x.

        Args:
            full: Of the segmentation.
        """
        z, y, x = (v * f for v, f in zip(full, self.factor, strict=True))
        return z, y, x


def levels(dataset: str, shape: Triple, voxel_size: Nanometres) -> list[Level]:
    """The segmentation, and its copies, the largest first.

    Args:
        dataset: Name of the segmentation.
        shape: Its extent in voxels.
        voxel_size: nm, z y x.
    """
    found = [Level(dataset, (1, 1, 1), (1, 1, 1), shape)]
    while max(found[-1].shape) > WHOLE:
        last = found[-1]
        sizes = last.voxel_size(voxel_size)
        # an axis of one voxel cannot get shorter, and is no measure for the others
        shortest = min(size for size, extent in zip(sizes, last.shape, strict=True) if extent > 1)
        z, y, x = (
            2 if extent > 1 and size < math.sqrt(2) * shortest else 1
            for size, extent in zip(sizes, last.shape, strict=True)
        )
        step = (z, y, x)
        fz, fy, fx = (f * s for f, s in zip(last.factor, step, strict=True))
        nz, ny, nx = (-(-n // s) for n, s in zip(last.shape, step, strict=True))
        found.append(Level(f"s{len(found)}", step, (fz, fy, fx), (nz, ny, nx)))
    return found


def majority(labels: NDArray[np.uint64], step: Sequence[int]) -> NDArray[np.uint64]:
    """The most frequent label of each cell.

    Args:
        labels: `(z, y, x)`; begins where a cell does.
        step: Extent of a cell, z y x: 1 or 2. Cells at the end may be cut.

    Returns:
        `(z, y, x)`, one voxel per cell.
    """
    if max(step) == 1:
        return labels
    result = np.empty([-(-n // s) for n, s in zip(labels.shape, step, strict=True)], np.uint64)
    z, y, x = (int(s) for s in step)
    _majority(np.ascontiguousarray(labels, np.uint64), z, y, x, result)
    return result


def ome_metadata(name: str, pyramid: Sequence[Level], voxel_size: Nanometres, offset: Nanometres) -> dict[str, Any]:
    """What OME-NGFF 0.5 wants to know of a pyramid, to be kept as `ome` with the container.

    Args:
        name: What viewers call it.
        pyramid: From `levels`.
        voxel_size: nm of the segmentation's voxels, z y x.
        offset: nm of the corner of its first voxel, z y x.
    """
    datasets = []
    for level in pyramid:
        sizes = level.voxel_size(voxel_size)
        # there, a place is that of a voxel's middle
        middle = [o + size / 2 for o, size in zip(offset, sizes, strict=True)]
        transformations = [{"type": "scale", "scale": list(sizes)}, {"type": "translation", "translation": middle}]
        datasets.append({"path": level.dataset, "coordinateTransformations": transformations})
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    return {"version": "0.5", "multiscales": [{"name": name, "type": "majority", "axes": axes, "datasets": datasets}]}


@numba.njit(cache=True, nogil=True)
def _majority(labels: Any, step_z: int, step_y: int, step_x: int, result: Any) -> None:
    depth, height, width = labels.shape
    cell = np.empty(8, np.uint64)
    for z in range(result.shape[0]):
        below = min((z + 1) * step_z, depth) - 1
        for y in range(result.shape[1]):
            behind = min((y + 1) * step_y, height) - 1
            # the rows of a cell, some of them twice where it has less than four
            a, b = labels[z * step_z, y * step_y], labels[z * step_z, behind]
            c, d = labels[below, y * step_y], labels[below, behind]
            for x in range(result.shape[2]):
                i, j = x * step_x, min((x + 1) * step_x, width) - 1
                first = a[i]
                if (
                    first == a[j] and first == b[i] and first == b[j] and first == c[i] and first == c[j]
                    and first == d[i] and first == d[j]
                ):  # fmt: skip
                    result[z, y, x] = first
                    continue
                count = 0
                for k in range(z * step_z, below + 1):
                    for m in range(y * step_y, behind + 1):
                        for n in range(i, j + 1):
                            cell[count] = labels[k, m, n]
                            count += 1
                result[z, y, x] = _most_frequent(cell, count)


@numba.njit(cache=True, nogil=True)
def _most_frequent(cell: Any, count: int) -> Any:
    best, most = np.uint64(0), 0
    for i in range(count):
        label, times = cell[i], 0
        for j in range(count):
            times += cell[j] == label
        if times > most or (times == most and label != 0 and (best == 0 or label < best)):
            best, most = label, times
    return best
