"""Weights that a project is given: to predict with, to start from, or for their descriptors.

prediction.model    setup, geometry, neighbourhood, σ come from the checkpoint; the voxel size must be the project's, or
                    volumes are resampled
                    somebody else's network says itself what it takes and gives
prediction.ensemble    likewise; the voxel size must be that of the network that predicts
training.start      everything must be as in the project: training goes on with these weights
                    of the project's setup            its networks start from it, its descriptor network too
                    of lsd                            only the descriptor network starts from it
training.descriptors   σ and voxel size must be as in the project: its descriptor network is used as it is
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from neuroloom.chain.networks import geometry, setups_to_train
from neuroloom.errors import UserError
from neuroloom.models import ForeignModel, Weights, find_given, find_weights
from neuroloom.networks.architecture import UNetParameters
from neuroloom.networks.metadata import Metadata
from neuroloom.networks.setups import SETUPS
from neuroloom.prediction.resampling import Resampling
from neuroloom.project import NEAREST, Parameters, Problem, Project, block_problems
from neuroloom.volume.array import Nanometres, Triple, same_voxel_size


def given_model(project: Project) -> Weights | ForeignModel | None:
    """The weights, or somebody else's network, that a project predicts with, or None where it trains its own.

    Raises:
        UserError: They are not there, or damaged.
    """
    model = project.parameters.prediction.model
    return None if model is None else find_given(model, project.folder)


def given_ensemble(project: Project) -> tuple[Weights | ForeignModel, ...]:
    """More weights, or others' networks, whose affinities are averaged with those of the one that predicts.

    Raises:
        UserError: They are not there, or damaged.
    """
    return tuple(find_given(name, project.folder) for name in project.parameters.prediction.ensemble)


def trained_voxel_size(project: Project) -> Nanometres:
    """nm, z y x, of what the network that predicts was trained on."""
    model = given_model(project)
    return project.parameters.voxel_size if model is None else _trained_on(model)


def _trained_on(given: Weights | ForeignModel) -> Nanometres:
    return given.declaration.voxel_size if isinstance(given, ForeignModel) else given.metadata.voxel_size


def given_start(project: Project, setup: str) -> Weights | None:
    """The weights that the training of a setup starts from, or None for random ones.

    Args:
        project: The project.
        setup: What is trained.

    Raises:
        UserError: They are not there, or damaged.
    """
    training = project.parameters.training
    if training.start is None or setup not in setups_to_train(training.setup, training):
        return None
    weights = find_weights(training.start, project.folder)
    return weights if setup in {part.setup for part in weights.networks} else None


def given_descriptors(project: Project) -> Weights | None:
    """The weights whose descriptor network a project uses as it is, or None where it trains its own.

    Raises:
        UserError: They are not there, or damaged.
    """
    descriptors = project.parameters.training.descriptors
    return None if descriptors is None else find_weights(descriptors, project.folder)


def lsd_geometry(project: Project) -> UNetParameters:
    """The descriptor network of a project, trained or given.

    Raises:
        UserError: The given one is not there, or damaged.
    """
    given = given_descriptors(project)
    part = None if given is None else _descriptor_network(given)
    return geometry(project.parameters, "lsd") if part is None else part.network


def _descriptor_network(weights: Weights) -> Metadata | None:
    return next((part for part in weights.networks if part.setup == "lsd"), None)


def weights_problems(project: Project) -> list[Problem]:
    """Given weights that are not there or do not fit the project."""
    problems: list[Problem] = []
    try:
        model = given_model(project)
    except UserError as error:
        problems.append((("prediction", "model"), f"`prediction.model`: {error}"))
    else:
        if model is not None:
            problems += _predicting_problems(project.parameters, "model", model, project.parameters.voxel_size)
    if problems:
        return problems  # what is right of the others depends on it
    for name in project.parameters.prediction.ensemble:
        try:
            other = find_given(name, project.folder)
        except UserError as error:
            problems.append((("prediction", "ensemble"), f"`prediction.ensemble`: {error}"))
        else:
            problems += _predicting_problems(project.parameters, "ensemble", other, trained_voxel_size(project))
    for section, key, check in (
        ("training", "start", _start_problems),
        ("training", "descriptors", _descriptors_problems),
    ):
        name = getattr(getattr(project.parameters, section), key)
        if name is None:
            continue
        try:
            weights = find_weights(name, project.folder)
        except UserError as error:
            problems.append(((section, key), f"`{section}.{key}`: {error}"))
            continue
        problems += check(project.parameters, weights)
    return problems


def _predicting_problems(
    parameters: Parameters, key: str, given: Weights | ForeignModel, voxel_size: Nanometres
) -> list[Problem]:
    """What keeps a network from predicting.

    Args:
        parameters: The project's.
        key: Of the section [prediction].
        given: What it names.
        voxel_size: What the network should be trained on.
    """
    place, said = ("prediction", key), f"`prediction.{key}`: {given.path}"
    problems = _affinity_problems(place, said, given.metadata) if isinstance(given, Weights) else []
    trained = _trained_on(given)
    if problems:
        return problems
    if same_voxel_size(trained, voxel_size):
        return block_problems("prediction", parameters.prediction.block, "the network's factor", factor_of(given))
    if key == "ensemble":
        message = f"{said} was trained on voxels of {times(trained)} nm, the other network on {times(voxel_size)} nm."
        return [(place, f"{message} Average networks of one voxel size.")]
    if parameters.prediction.resample:
        return resampling_problems(place, said, voxel_size, trained)
    message = (
        f"{said} was trained on voxels of {times(trained)} nm, the project's are {times(voxel_size)} nm. Have volumes "
        "resampled (`neuroloom predict --resample`, or `prediction.resample = true`), or train a network for yours."
    )
    return [(place, message)]


def resampling_problems(
    place: tuple[str | int, ...], said: str, voxel_size: Nanometres, trained: Nanometres
) -> list[Problem]:
    """Voxels that cannot be brought to the size that a network was trained on.

    Args:
        place: In the project file.
        said: What a message begins with.
        voxel_size: nm, z y x, of a volume.
        trained: Likewise, of what the network was trained on.
    """
    try:
        Resampling.between(voxel_size, trained)
    except UserError as error:
        return [(place, f"{said}: {error}")]
    return []


def _affinity_problems(place: tuple[str, str], said: str, trained: Metadata) -> list[Problem]:
    if trained.setup not in SETUPS:
        return [(place, f"{said} is of setup {trained.setup!r}, which is not among {', '.join(SETUPS)}.")]
    if not SETUPS[trained.setup].gives_affinities:
        return [(place, f"{said} is of setup {trained.setup!r}, which gives no affinities; name an affinity network.")]
    if trained.neighborhood[:3] != NEAREST:
        message = (
            f"{said} gives affinities at {_text(trained.neighborhood)}; expected {_text(NEAREST)} first, because "
            "fragments are cut from these three."
        )
        return [(place, message)]
    return []


def factor_of(given: Weights | ForeignModel) -> Triple:
    """Voxels by which the prediction may be moved without changing it, z y x."""
    if isinstance(given, ForeignModel):
        return given.factor
    z, y, x = (math.lcm(*along) for along in zip(*(part.network.factor for part in given.networks), strict=True))
    return z, y, x


def _start_problems(parameters: Parameters, weights: Weights) -> list[Problem]:
    place, setup = ("training", "start"), parameters.training.setup
    if setup not in SETUPS:
        return []  # told by itself
    expected = setups_to_train(setup, parameters.training)
    if weights.metadata.setup not in expected:
        message = (
            f"`training.start`: {weights.path} is of setup {weights.metadata.setup!r}; expected "
            f"{' or '.join(repr(name) for name in expected)}, as the project trains them."
        )
        return [(place, message)]
    parts = {part.setup: list(_differences(parameters, part)) for part in weights.networks if part.setup in expected}
    different = dict.fromkeys(text for texts in parts.values() for text in texts)
    if not different:
        return []
    only_lsd = weights.lsd is not None and not parts[setup]
    other = "use its descriptor network as it is (`training.descriptors`)" if only_lsd else "start from other weights"
    message = (
        f"`training.start`: {weights.path} differs from the project: {'; '.join(different)}. Change the project, or "
        f"{other}."
    )
    return [(place, message)]


def _differences(parameters: Parameters, start: Metadata) -> Iterator[str]:
    theirs, ours = start.network.model_dump(), geometry(parameters, start.setup).model_dump()
    training = parameters.training
    for key in ("feature_maps", "growth", "downsampling", "kernels", "upsampling"):
        if theirs[key] != ours[key]:
            yield f"`network.{key}` {_text(theirs[key])} instead of {_text(ours[key])}"
    if SETUPS[start.setup].gives_affinities and start.neighborhood != training.neighborhood:
        yield f"`training.neighborhood` {_text(start.neighborhood)} instead of {_text(training.neighborhood)}"
    yield from _other_tissue(parameters, start)


def _descriptors_problems(parameters: Parameters, weights: Weights) -> list[Problem]:
    place, said = ("training", "descriptors"), f"`training.descriptors`: {weights.path}"
    part = _descriptor_network(weights)
    if part is None:
        return [(place, f"{said} is of setup {weights.metadata.setup!r} and has no descriptor network.")]
    different = list(_other_tissue(parameters, part))
    if not different:
        of_what = "the descriptor network's factor"
        return block_problems("prediction", parameters.prediction.block, of_what, part.network.factor)
    return [(place, f"{said} differs from the project: {'; '.join(different)}. Change the project, or name others.")]


def _other_tissue(parameters: Parameters, start: Metadata) -> Iterator[str]:
    training = parameters.training
    if start.sigma_nm is not None and abs(start.sigma_nm - training.sigma_nm) > 1e-6:
        yield f"`training.sigma_nm` {start.sigma_nm:g} instead of {training.sigma_nm:g}"
    if not same_voxel_size(start.voxel_size, parameters.voxel_size):
        yield f"voxels of {times(start.voxel_size)} nm instead of {times(parameters.voxel_size)} nm"


def times(values: Sequence[float]) -> str:
    """Extents or sizes in words: 8 x 8 x 8."""
    return " x ".join(f"{v:g}" for v in values)


def _text(value: object) -> str:
    return str([list(part) for part in value]) if isinstance(value, tuple) else str(value)
