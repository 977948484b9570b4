"""Affinities become fragments (supervoxels): a watershed on the distance to the nearest membrane.

    affinities --mean > 0.5--> inside --Euclidean distance--> height --maxima of a 10-voxel window--> seeds
                                                                 |                                      |
                                                                 +---------- flooding from the top -----+--> fragments

The chain and its values are those of Sheridan et al., Nature Methods 2022 (doi:10.1038/s41592-022-01711-z). Distances
are in voxels, also in anisotropic volumes. They are kept squared: whole numbers, in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.fragments.distance import squared_distance
from neuroloom.fragments.flooding import flood
from neuroloom.fragments.hierarchy import agglomerate
from neuroloom.fragments.maxima import maximum_filter
from neuroloom.fragments.runs import Runs
from neuroloom.fragments.statistics import statistics


def fragments(
    affinities: NDArray[np.uint8],
    *,
    in_xy: bool = False,
    threshold: float = 0.5,
    min_seed_distance: int = 10,
    fill: bool = True,
    mask: NDArray[Any] | None = None,
    filter_fragments: float = 0.0,
    epsilon_agglomerate: float = 0.0,
    replace_sections: Sequence[int] = (),
) -> NDArray[np.uint32]:
    """Cut a volume of affinities into fragments, each connected across faces.

    Args:
        affinities: `(3, z, y, x)`, 255 = 1; channel c at v tells of v and its neighbour before along axis c.
        in_xy: Every section on its own, from the mean of the y and x affinities.
        threshold: Inside a neurite is where the mean affinity is above it.
        min_seed_distance: Extent of the maximum filter, voxels.
        fill: Flood what is not inside as well; otherwise it stays 0.
        mask: 0 where no fragments shall be; `(z, y, x)`, or coarser by whole factors.
        filter_fragments: Drop fragments whose mean affinity is lower.
        epsilon_agglomerate: Merge at once, by `hist_quant_25`, while the lowest score is below it; 0 = not at all.
        replace_sections: Sections, counted from the array's first, that stay 0.

    Returns:
        Labels `(z, y, x)`, 1 … n, 0 = none.

    Raises:
        UserError: The mask does not fit.
    """
    shape = affinities.shape[1:]
    full_mask = None if mask is None else expand_mask(mask, shape)
    if full_mask is not None:
        affinities = np.where(full_mask, affinities, np.uint8(0))
    channels = affinities[1:] if in_xy else affinities
    inside = _inside(np.ascontiguousarray(channels), int(np.floor(threshold * 255 * len(channels))))
    labels = np.zeros(shape, dtype=np.uint32)
    if in_xy:
        count = 0
        for z in range(shape[0]):
            section = watershed(inside[z : z + 1], min_seed_distance)[0]
            labels[z] = np.where(section > 0, section + np.uint32(count), np.uint32(0))
            count += int(section.max(initial=0))
    else:
        labels = watershed(inside, min_seed_distance)
    if not fill:
        labels[~inside] = 0
    if full_mask is not None:
        labels[~full_mask] = 0
    if filter_fragments > 0:
        low = statistics(affinities, Runs.of(labels)).mean_affinity < filter_fragments
        labels[np.concatenate([[False], low])[labels]] = 0
    if epsilon_agglomerate > 0:
        labels = agglomerate(affinities, labels, "hist_quant_25", epsilon_agglomerate)
    replaced = [z for z in replace_sections if 0 <= z < shape[0]]
    labels[replaced] = 0
    if fill and full_mask is None and not (filter_fragments or epsilon_agglomerate or replaced):
        return labels  # as they have grown from their seeds
    return connected(labels)


def watershed(inside: NDArray[np.bool_], min_seed_distance: int) -> NDArray[np.uint32]:
    """Seeded watershed on the distance to the nearest voxel that is not inside; it floods everything.

    Args:
        inside: `(z, y, x)`.
        min_seed_distance: Extent of the maximum filter, voxels.

    Returns:
        Labels `(z, y, x)`, 1 … n in the order of their seeds' first voxels.
    """
    if inside.size == 0:
        return np.zeros(inside.shape, dtype=np.uint32)
    height = squared_distance(inside)
    seeds = connected((height == maximum_filter(height, min_seed_distance)).view(np.uint8))
    return flood(height, seeds)


@numba.njit(cache=True)
def _inside(affinities: Any, above: int) -> Any:
    """Where the sum of affinities is larger."""
    _, depth, height, width = affinities.shape
    inside = np.empty((depth, height, width), dtype=np.bool_)
    sums = np.empty(width, dtype=np.int16)
    for z in range(depth):
        for y in range(height):
            sums[:] = 0
            for channel in range(len(affinities)):
                for x in range(width):
                    sums[x] += np.int16(affinities[channel, z, y, x])
            for x in range(width):
                inside[z, y, x] = sums[x] > above
    return inside


def connected(labels: NDArray[Any]) -> NDArray[np.uint32]:
    """Give every piece of a label that hangs together across faces a number of its own, 1 … n in z-major order.

    Args:
        labels: `(z, y, x)`, 0 = none.
    """
    return Runs.of(labels).connected().painted()


def expand_mask(mask: NDArray[Any], shape: Sequence[int]) -> NDArray[np.bool_]:
    """Bring a mask that is coarser by whole factors to the size of a volume.

    Args:
        mask: `(z, y, x)`, 0 = masked out.
        shape: Of the volume, voxels.

    Returns:
        Of that shape.

    Raises:
        UserError: The factors are not whole.
    """
    expanded = mask != 0
    for axis, (coarse, fine) in enumerate(zip(mask.shape, shape, strict=True)):
        if coarse == 0 or fine % coarse:
            raise UserError(
                f"A mask of {mask.shape} voxels does not fit a volume of {tuple(shape)}: expected the same size, or "
                "one smaller by a whole factor along each axis. Resample the mask."
            )
        if fine != coarse:
            expanded = np.repeat(expanded, fine // coarse, axis=axis)
    return expanded
