"""What a new project holds: settings that the data decide, and a network and crops that fit them.

voxel size   -> pooling: an axis is pooled where its voxels are not two or more times longer than the shortest
             -> kernels: an axis is left alone (1) where its voxels are that much longer, except at the lowest level
volumes      -> sigma: from the thickness of the labels, no larger than its window fits into the volumes
             -> crop: what the network can give, no larger than the smallest volume to train on
weights      -> with given ones, network and sigma are theirs, and their card advises on the rest

                                pooling            kernels
                8 x 8 x 8 nm    2 2 2   2 2 2      3 3 3   3 3 3   3 3 3
               20 x 9 x 9 nm    1 2 2   2 2 2      1 3 3   3 3 3   3 3 3      each level is nearer to cubes
               40 x 4 x 4 nm    1 2 2   1 2 2      1 3 3   1 3 3   3 3 3
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuroloom.chain.weights import times
from neuroloom.errors import UserError
from neuroloom.models import ForeignModel, find_card, find_given, find_weights, is_path
from neuroloom.networks import architecture
from neuroloom.networks.setups import SETUPS, network_parameters
from neuroloom.prediction.resampling import Resampling
from neuroloom.project import Network, Training
from neuroloom.training.descriptors.windows import TRUNCATION
from neuroloom.volume import open_volume
from neuroloom.volume.array import DATASETS, Nanometres, Triple, same_voxel_size

LEVELS = len(Network().downsampling)


def propose(
    train: Sequence[str | Path],
    validate: Sequence[str | Path],
    predict: Sequence[str | Path],
    folder: str | Path,
    model: str | None = None,
    datasets: Mapping[str, str] = DATASETS,
    resample: bool = False,
) -> dict[str, Any]:
    """The parts of a project file that the data decide.

    Args:
        train: Labelled containers to train on.
        validate: Labelled containers to score on.
        predict: Containers to segment.
        folder: The project's folder; paths are written as seen from there.
        model: Weights to predict with, or, with volumes to train on, to start training from: a model's name or a
            checkpoint; to predict with, somebody else's network too.
        datasets: Names of "raw", "labels" and "mask" in each container.
        resample: Whether volumes to segment may have other voxels than those to learn from or than the model was
            trained on.

    Returns:
        Values as they nest in the project file; under "_why", sentences on how they were found.

    Raises:
        UserError: A dataset is missing or damaged, voxel sizes differ, or there are no labels; the model is not there,
            or is for another voxel size.
    """
    from neuroloom.volume.checking.advice import describe_volumes  # loads scipy

    validated = {os.path.realpath(path) for path in validate}
    twice = [path for path in predict if os.path.realpath(path) in validated]
    values = describe_volumes(
        train, validate, [path for path in predict if path not in twice], folder, datasets, resample
    )
    values["_why"] += [f"{path} is not among those to predict: what validates is segmented anyway" for path in twice]
    shapes = [open_volume(path, datasets["labels"]).shape for path in train]
    if model is not None:
        return _with_model(values, model, folder, shapes, resample)
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
    if shapes and values["training"]["sigma_nm"] > (limit := largest_sigma(shapes, values["voxel_size"])):
        values["training"]["sigma_nm"] = float(math.floor(limit))
        values["_why"].append(f"sigma_nm {math.floor(limit)} all the same: its window would not fit into the volumes")
    _fit_crop(values, Network(downsampling=pooling, kernels=extents), shapes)
    return values


def _with_model(
    values: dict[str, Any], model: str, folder: str | Path, shapes: Sequence[Triple], resample: bool
) -> dict[str, Any]:
    """A project that predicts with given weights, or trains on from them, with what goes well with them."""
    from neuroloom.volume.checking.advice import seen_from

    weights = find_weights(model) if shapes else find_given(model)
    if isinstance(weights, ForeignModel):
        values["prediction"] = {"model": seen_from(folder, model), **values.get("prediction", {})}
        _check_voxel_size(model, weights.declaration.voxel_size, values, resample)
        values["_why"].append(f"the network that {model} declares predicts; nothing is trained")
        return values
    card, trained = find_card(model), weights.metadata
    _check_voxel_size(model, trained.voxel_size, values, None if shapes else resample)
    if trained.setup not in SETUPS or not (shapes or SETUPS[trained.setup].gives_affinities):
        raise UserError(
            f"The model {model} is of setup {trained.setup!r}, which gives no affinities here; name an affinity network"
            f"{'' if shapes else ', or train on from it with --from'}."
        )
    named = seen_from(folder, model) if is_path(model) else model
    settings = card.settings.as_values() if card else {}
    if shapes:
        network = trained.network.model_dump(mode="json")
        values["network"] = {key: network[key] for key in Network.model_fields if network[key]}
        training: dict[str, Any] = {"start": named}
        if SETUPS[trained.setup].gives_affinities:
            training |= {"setup": trained.setup, "neighborhood": [list(offset) for offset in trained.neighborhood]}
        if trained.sigma_nm is not None:
            training["sigma_nm"] = trained.sigma_nm
        values["_why"] = [why for why in values["_why"] if not why.startswith("sigma_nm")]
        values["_why"].append(f"training starts from {model}: setup, network and sigma are those of the model")
        if weights.lsd is not None and not weights.lsd.network.same_size(trained.network):
            training["descriptors"] = named
            values["_why"].append("its descriptor network is of another size than the affinity network: used as it is")
        values["training"] = training
        _fit_crop(values, Network.model_validate(values["network"]), shapes)
    else:
        values["prediction"] = {"model": named, **values.get("prediction", {})}
        values["_why"].append(f"the model {model} predicts; nothing is trained")
    if shapes or "validate" in values["volumes"]:
        # the threshold is chosen on the project's own truth, or with its own network
        settings.get("segmentation", {}).pop("threshold", None)
    for section, given in settings.items():
        if not given:
            continue
        values[section] = {**values.get(section, {}), **given}
        what = ", ".join(f"{key} {value}" for key, value in given.items())
        values["_why"].append(f"{section}: {what}, as the model's card advises")
    return values


def _check_voxel_size(model: str, trained: Nanometres, values: dict[str, Any], resample: bool | None) -> None:
    """Refuse volumes of other voxels than a model's, or have them resampled; None where that is not possible."""
    own = values["voxel_size"]
    if same_voxel_size(trained, own):
        return
    if not resample:
        hint = "" if resample is None else "Add --resample to predict with it all the same, or: "
        raise UserError(
            f"The model {model} was trained on voxels of {times(trained)} nm, these volumes have {times(own)} nm "
            f"(z, y, x). {hint}Leave --model out to train a network for them."
        )
    Resampling.between(own, trained)
    values["prediction"] = {**values.get("prediction", {}), "resample": True}
    values["_why"].append(
        f"resample: the model was trained on voxels of {times(trained)} nm, these are {times(own)} nm"
    )


def _fit_crop(values: dict[str, Any], network: Network, shapes: Sequence[Triple]) -> None:
    """Make crops smaller where the network or the volumes to train on want it."""
    wanted = Training().crop
    crop = fitting_crop(network, wanted, shapes)
    if crop != wanted:
        values["training"] = {**values.get("training", {}), "crop": list(crop)}
        values["_why"].append(
            f"crop {list(crop)}: no larger than the smallest volume to train on, and what the network can give"
        )


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


def _given(parameters: architecture.UNetParameters, axis: int, extent: int) -> int:
    """The smallest output along an axis that is not below `extent`."""
    wanted = (extent, extent, extent)
    return architecture.output_shape(parameters, architecture.input_shape(parameters, wanted))[axis]
