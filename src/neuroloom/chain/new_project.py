"""What a new project holds: settings that the data decide, and a network and crops that fit them.

voxel size   -> pooling: an axis is pooled where its voxels are not two or more times longer than the shortest
             -> kernels: an axis is left alone (1) where its voxels are that much longer, except at the lowest level
volumes      -> sigma: from the thickness of the labels, no larger than its window fits into the volumes
             -> crop: what the network can give, no larger than the smallest volume to train on

                                pooling            kernels
                8 x 8 x 8 nm    2 2 2   2 2 2      3 3 3   3 3 3   3 3 3
               20 x 9 x 9 nm    1 2 2   2 2 2      1 3 3   3 3 3   3 3 3      each level is nearer to cubes
               40 x 4 x 4 nm    1 2 2   1 2 2      1 3 3   1 3 3   3 3 3
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuroloom.networks import unet
from neuroloom.networks.setups import network_parameters
from neuroloom.project import Network, Training
from neuroloom.training.descriptors.windows import TRUNCATION
from neuroloom.volume import open_volume
from neuroloom.volume.array import DATASETS, Triple
from neuroloom.volume.checking.advice import describe_volumes

LEVELS = len(Network().downsampling)


def propose(
    train: Sequence[str | Path], validate: Sequence[str | Path], predict: Sequence[str | Path], folder: str | Path
) -> dict[str, Any]:
    """The parts of a project file that the data decide.

    Args:
        train: Labelled containers to train on.
        validate: Labelled containers to score on.
        predict: Containers to segment.
        folder: The project's folder; paths are written as seen from there.

    Returns:
        Values as they nest in the project file; under "_why", sentences on how they were found.

    Raises:
        UserError: A dataset is missing or damaged, voxel sizes differ, or there are no labels.
    """
    validated = {os.path.realpath(path) for path in validate}
    twice = [path for path in predict if os.path.realpath(path) in validated]
    values = describe_volumes(train, validate, [path for path in predict if path not in twice], folder)
    values["_why"] += [f"{path} is not among those to predict: what validates is segmented anyway" for path in twice]
    pooling = downsampling(values["voxel_size"])
    if pooling != Network().downsampling:
        values["network"] = {"downsampling": [list(level) for level in pooling]}
        values["_why"].append(f"downsampling {[list(level) for level in pooling]}: voxels are longer along some axes")
    extents = kernels(values["voxel_size"], pooling)
    if any(extent != (3, 3, 3) for extent in extents):
        values["network"]["kernels"] = [list(level) for level in extents]
        values["_why"].append(f"kernels {[list(level) for level in extents]}: likewise; the lowest level sees all axes")
    else:
        extents = ()
    wanted = Training().crop
    shapes = [open_volume(path, DATASETS["labels"]).shape for path in train]
    if shapes and values["training"]["sigma_nm"] > (limit := largest_sigma(shapes, values["voxel_size"])):
        values["training"]["sigma_nm"] = float(math.floor(limit))
        values["_why"].append(f"sigma_nm {math.floor(limit)} all the same: its window would not fit into the volumes")
    crop = fitting_crop(Network(downsampling=pooling, kernels=extents), wanted, shapes)
    if crop != wanted:
        values["training"] = {**values.get("training", {}), "crop": list(crop)}
        values["_why"].append(
            f"crop {list(crop)}: no larger than the smallest volume to train on, and what the network can give"
        )
    return values


def downsampling(voxel_size: Sequence[float]) -> tuple[Triple, ...]:
    """Pooling from level to level that brings voxels nearer to cubes.

    Args:
        voxel_size: nm, z y x.

    Example:
        >>> downsampling((40, 4, 4))
        ((1, 2, 2), (1, 2, 2))
    """
    size, levels = list(voxel_size), []
    for _ in range(LEVELS):
        z, y, x = (2 if s < 2 * min(size) else 1 for s in size)
        levels.append((z, y, x))
        size = [s * f for s, f in zip(size, (z, y, x), strict=True)]
    return tuple(levels)


def kernels(voxel_size: Sequence[float], pooling: Sequence[Triple]) -> tuple[Triple, ...]:
    """Extents of the convolutions of each level: along an axis 1, where its voxels are still much longer there.

    The lowest level sees its neighbours along all axes, or the network would know nothing of the next section.

    Args:
        voxel_size: nm, z y x.
        pooling: From level to level.

    Example:
        >>> kernels((20, 9, 9), ((1, 2, 2), (2, 2, 2)))
        ((1, 3, 3), (3, 3, 3), (3, 3, 3))
    """
    size, levels = list(voxel_size), []
    for factors in pooling:
        z, y, x = (3 if s < 2 * min(size) else 1 for s in size)
        levels.append((z, y, x))
        size = [s * f for s, f in zip(size, factors, strict=True)]
    return (*levels, (3, 3, 3))


def fitting_crop(network: Network, wanted: Triple, shapes: Sequence[Triple]) -> Triple:
    """The largest output of a network that is no larger than wanted and fits into every volume.

    Args:
        network: Its size.
        wanted: Extent in voxels, z y x.
        shapes: Extents of the volumes.
    """
    parameters = network_parameters("lsd", network)
    limits = [min(extents) for extents in zip(wanted, *shapes, strict=True)]
    z, y, x = (
        next((c for c in range(limit, 0, -1) if _given(parameters, axis, c) == c), _given(parameters, axis, 1))
        for axis, limit in enumerate(limits)
    )
    return z, y, x


def largest_sigma(shapes: Sequence[Triple], voxel_size: Sequence[float]) -> float:
    """The largest σ, in nm, whose window is no longer than the longest side of the volumes.

    Args:
        shapes: Extents of the volumes to train on, in voxels, z y x.
        voxel_size: nm, z y x.
    """
    longest = max(n * size for shape in shapes for n, size in zip(shape, voxel_size, strict=True))
    return longest / (2 * TRUNCATION)


def _given(parameters: unet.UNetParameters, axis: int, extent: int) -> int:
    """The smallest output along an axis that is not below `extent`."""
    wanted = (extent, extent, extent)
    return unet.output_shape(parameters, unet.input_shape(parameters, wanted))[axis]
