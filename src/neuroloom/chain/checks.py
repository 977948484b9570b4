"""Whether a project's volumes and network fit together, before anything starts; all mistakes are told at once."""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Iterator
from pathlib import Path

from funlib.geometry import Roi

from neuroloom.chain.networks import geometry
from neuroloom.chain.new_project import fitting_crop, largest_sigma
from neuroloom.chain.weights import resampling_problems, times, trained_voxel_size, weights_problems
from neuroloom.errors import UserError, one_of
from neuroloom.networks import architecture
from neuroloom.networks.setups import SETUPS
from neuroloom.project import LabelledVolume, Problem, Project, RawVolume, load_project
from neuroloom.training.descriptors.windows import TRUNCATION
from neuroloom.volume import open_volume
from neuroloom.volume.array import Triple, same_voxel_size
from neuroloom.volume.masks import read_mask


def open_project(path: Path) -> Project:
    """Load a project and check that every volume it names can be opened and fits the others.

    Args:
        path: The project's folder or its `neuroloom.toml`.

    Raises:
        UserError: The file or a volume is wrong; all mistakes are listed with their lines.
    """
    return load_project(
        path, volume_problems, setup_problems, network_problems, reach_problems, long_range_problems, weights_problems
    )


def setup_problems(project: Project) -> list[Problem]:
    """A setup that does not exist, or that volumes cannot be segmented with."""
    setup = project.parameters.training.setup
    expected = [name for name, known in SETUPS.items() if known.gives_affinities]
    if setup in expected:
        return []
    if setup in SETUPS:
        message = f"`training.setup` is {setup!r}, which gives no affinities; expected one of {', '.join(expected)}."
    else:
        message = f"`training.setup` is {setup!r}; expected one of {one_of(setup, expected)}"
    return [(("training", "setup"), message)]


def network_problems(project: Project) -> list[Problem]:
    """A training crop that is no output of the network, or larger than a volume to train on."""
    parameters = project.parameters
    if setup_problems(project) or parameters.prediction.model is not None:
        return []
    network = geometry(parameters, parameters.training.setup)
    crop = parameters.training.crop
    possible = architecture.output_shape(network, architecture.input_shape(network, crop))
    if possible != crop:
        message = f"`training.crop` is {list(crop)}, which the network cannot give; the next it can: {list(possible)}."
        return [(("training", "crop"), message)]
    for volume, shape in _training_shapes(project):
        if any(c > s for c, s in zip(crop, shape, strict=True)):
            fitting = fitting_crop(parameters.network, crop, [shape])
            message = (
                f"volume {volume.name} of {times(shape)} voxels is smaller than `training.crop`, {list(crop)}; the "
                f"largest that fits: {list(fitting)}."
            )
            return [(("training", "crop"), message)]
    return []


def reach_problems(project: Project) -> list[Problem]:
    """Descriptors or affinities that reach farther than every volume to train on."""
    parameters, training = project.parameters, project.parameters.training
    shapes = [shape for _, shape in _training_shapes(project)]
    if not shapes or parameters.prediction.model is not None:
        return []
    problems: list[Problem] = []
    limit = largest_sigma(shapes, parameters.voxel_size)
    if training.sigma_nm > limit:
        message = (
            f"`training.sigma_nm` is {training.sigma_nm:g}: its window of {2 * TRUNCATION * training.sigma_nm:g} "
            f"nm is larger than the volumes to train on; expected {math.floor(limit)} or less. The size of a "
            "neurite is what it should see."
        )
        problems.append((("training", "sigma_nm"), message))
    for offset in training.neighborhood:
        if all(any(abs(o) >= s for o, s in zip(offset, shape, strict=True)) for shape in shapes):
            message = (
                f"`training.neighborhood` has {list(offset)}, which is farther than the volumes to train on reach "
                f"({', '.join(times(shape) for shape in shapes)} voxels); no such affinity is ever known."
            )
            problems.append((("training", "neighborhood"), message))
    return problems


def long_range_problems(project: Project) -> list[Problem]:
    """Affinities of more than one voxel that shall take part in agglomeration, and are not learned."""
    parameters = project.parameters
    if not parameters.agglomeration.long_range or parameters.prediction.model is not None:
        return []  # what given weights predict is told by the affinities
    if len(parameters.training.neighborhood) > 3:
        return []
    message = (
        "`agglomeration.long_range` is true, but `training.neighborhood` has the three nearest offsets only. Add "
        "farther ones, such as [-9, 0, 0], or set `long_range = false`."
    )
    return [(("agglomeration", "long_range"), message)]


def _training_shapes(project: Project) -> Iterator[tuple[LabelledVolume, Triple]]:
    """Volumes to train on with their extents in voxels; those that cannot be opened are told by `volume_problems`."""
    for volume in project.parameters.volumes.train:
        try:
            yield volume, open_volume(project.locate(volume.path), volume.labels).shape
        except UserError:
            continue


def volume_problems(project: Project) -> list[Problem]:
    """What is wrong with the volumes of a project: missing, another voxel size, labels that do not fit their raw."""
    problems: list[Problem] = []
    volumes = project.parameters.volumes
    for kind, group in (("train", volumes.train), ("validate", volumes.validate_), ("predict", volumes.predict)):
        for number, volume in enumerate(group):
            problems += [((*("volumes", kind, number), key), text) for key, text in _problems_of(project, volume, kind)]
    return problems


def _problems_of(project: Project, volume: RawVolume, kind: str) -> Iterator[tuple[str, str]]:
    """Keys of a volume with what is wrong with them.

    Args:
        project: The project.
        volume: One of its volumes.
        kind: "train", "validate" or "predict".
    """
    path = project.locate(volume.path)
    if "://" not in path and not Path(path).exists():
        near = _nearest_path(Path(path))
        hint = f"did you mean {near}?" if near else "relative paths start at the project file's folder."
        yield "path", f"`path` {volume.path!r} does not exist; {hint}"
        return
    shapes: dict[str, tuple[int, ...]] = {}
    for key in ("raw", "labels", "mask"):
        dataset = getattr(volume, key, None)
        if dataset is None:
            continue
        try:
            opened = open_volume(path, dataset)
        except UserError as error:
            yield key, str(error)
            continue
        wanted = project.parameters.voxel_size
        if kind == "predict" and project.parameters.prediction.resample:
            with contextlib.suppress(UserError):  # weights that are not there are told by themselves
                trained = trained_voxel_size(project)
                found = resampling_problems((), opened.location, opened.voxel_size, trained)
                yield from ((key, message) for _, message in found)
        elif not same_voxel_size(opened.voxel_size, wanted):
            agree = "they must agree, or be resampled (`neuroloom predict --resample`)"
            yield (
                key,
                f"{opened.location} has voxels of {times(opened.voxel_size)} nm, the project's `voxel_size` is "
                f"{times(wanted)} nm; {agree if kind == 'predict' else 'they must agree'}.",
            )
        if key == "labels" and opened.dtype.kind not in "ui":
            yield key, f"{opened.location} holds {opened.dtype}; labels must be whole numbers. Import them again."
        shapes[key] = opened.shape
    beyond = [z for z in volume.replace_sections if "raw" in shapes and z >= shapes["raw"][0]]
    if beyond:
        yield (
            "replace_sections",
            f"`replace_sections` names {beyond[0]}, but {path}/{volume.raw} has sections 0 to {shapes['raw'][0] - 1}.",
        )
    if volume.tissue is not None and "raw" in shapes:
        try:
            read_mask(open_volume(path, volume.tissue), open_volume(path, volume.raw), Roi((0, 0, 0), (1, 1, 1)))
        except UserError as error:
            yield "tissue", str(error)
    for key in ("labels", "mask"):
        if key in shapes and "raw" in shapes and shapes[key] != shapes["raw"]:
            yield (
                key,
                f"{path}/{getattr(volume, key)} has {times(shapes[key])} voxels, its raw {times(shapes['raw'])}; "
                "they must be equal.",
            )


def _nearest_path(path: Path) -> str | None:
    if not path.parent.is_dir():
        return None
    near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    return str(path.parent / near[0]) if near else None
