"""The project file `neuroloom.toml` as frozen pydantic models, and where every artifact lies.

    PROJECT/
      neuroloom.toml                          what to do; the only file a person edits
      training/lsd-<fingerprint>/             best.ckpt, last.ckpt, curve.jsonl, snapshots/, tensorboard/
      training/acrlsd-<fingerprint>/
      results/<volume>/affinities-<fingerprint>/affinities.zarr
      results/<volume>/fragments-<fingerprint>/fragments.zarr
      results/<volume>/agglomeration-<fingerprint>/     edges per block, forest.arrow
      results/<volume>/segmentation-<fingerprint>/      lut-<threshold>.npz, segmentation.zarr
      evaluation/<volume>-<fingerprint>.json
      report.html, pictures/<volume>.png

Lengths are in nm where the name says so, in voxels (z, y, x) otherwise.
"""

from __future__ import annotations

import difflib
import math
import os
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from neuroloom.errors import UserError
from neuroloom.files import write_text
from neuroloom.toml_lines import Location, key_lines, line_of

FILE_NAME = "neuroloom.toml"

Triple = tuple[int, int, int]
Problem = tuple[Location, str]
"""Where in the file, ("volumes", "train", 0, "path"), and one sentence on what is wrong."""

Positive = Annotated[int, Field(ge=1)]
PositiveTriple = tuple[Positive, Positive, Positive]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
PositiveNanometres = tuple[PositiveFloat, PositiveFloat, PositiveFloat]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
MergeFunction = Literal[
    "hist_quant_10",
    "hist_quant_25",
    "hist_quant_50",
    "hist_quant_75",
    "hist_quant_90",
    "hist_quant_10_initmax",
    "hist_quant_25_initmax",
    "hist_quant_50_initmax",
    "hist_quant_75_initmax",
    "hist_quant_90_initmax",
    "mean",
]


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, values never change after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RawVolume(Section):
    """A volume to segment."""

    name: Name = Field(description="how results of this volume are called")
    path: str = Field(description="zarr container (v2 or v3): a path, from this file's folder, or a URL")
    raw: str = Field("volumes/raw", description="dataset of the image: uint8, or float32 in [0, 1]")


class LabelledVolume(RawVolume):
    """A volume with truth, to train on or to choose the threshold on."""

    labels: str = Field("volumes/labels/neuron_ids", description="dataset of the truth: uint64, 0 = background")
    mask: str | None = Field(None, description="dataset that is 1 where the truth may be used; leave out if everywhere")
    weight: PositiveFloat | None = Field(
        None, description="how often crops come from this volume; default: its number of labelled voxels"
    )


class Volumes(Section):
    """Which volumes are used for what."""

    train: tuple[LabelledVolume, ...] = Field(min_length=1, description="hand-segmented blocks to train on")
    validate_: tuple[LabelledVolume, ...] = Field(
        (), alias="validate", description="hand-segmented blocks never trained on: they choose checkpoint and threshold"
    )
    predict: tuple[RawVolume, ...] = Field((), description="volumes to segment")

    @model_validator(mode="after")
    def _names_are_unique(self) -> Volumes:
        seen: set[str] = set()
        for volume in (*self.validate_, *self.predict):
            if volume.name in seen:
                raise ValueError(f"two volumes are called {volume.name!r}; results would overwrite each other")
            seen.add(volume.name)
        return self


class Network(Section):
    """The valid U-Net, the same for descriptors and affinities."""

    feature_maps: Positive = Field(12, description="feature maps of the first level")
    growth: Positive = Field(3, description="each level has this many times the maps of the level above")
    downsampling: tuple[PositiveTriple, ...] = Field(
        ((2, 2, 2), (2, 2, 2)), min_length=1, description="max-pool factors between levels, z y x"
    )
    upsampling: Literal["transposed", "trilinear", "nearest"] = Field("transposed", description="how levels grow again")

    @property
    def factor(self) -> Triple:
        """Voxels by which the prediction may be moved without changing it, z y x."""
        z, y, x = (math.prod(level[axis] for level in self.downsampling) for axis in range(3))
        return z, y, x


class TrainingLength(Section):
    """How long one of the two networks is trained."""

    iterations: Positive = Field(description="training steps")


class Training(Section):
    """Both trainings."""

    setup: Literal["acrlsd", "affs"] = Field(
        "acrlsd", description='"acrlsd": descriptors first, then affinities from both; "affs": straight from raw'
    )
    sigma_nm: PositiveFloat = Field(80.0, description="size of the window of the local shape descriptors, in nm")
    crop: PositiveTriple = Field((64, 64, 64), description="network output of one training crop, in voxels")
    batch_size: Positive = Field(1, description="crops per step")
    learning_rate: PositiveFloat = Field(1e-3, description="of Adam, after warm-up; falls along a cosine")
    seed: int = Field(0, ge=0, description="of everything random in training")
    lsd: TrainingLength = Field(TrainingLength(iterations=2000), description="the descriptor network")
    affinities: TrainingLength = Field(TrainingLength(iterations=2000), description="the affinity network")
    baseline: bool = Field(
        False, description="also train the same network straight from raw, for about as long, and compare"
    )
    validate_every: Positive = Field(200, description="iterations between scores on held-out crops")
    snapshot_every: Positive = Field(500, description="iterations between pictures to look at")
    checkpoint_every: Positive = Field(200, description="iterations between states that a stopped run goes on from")
    patience: Positive | None = Field(None, description="stop after this many scores without a better one")


class Prediction(Section):
    """Affinities for whole volumes."""

    block: PositiveTriple | None = Field(
        None, description="voxels predicted at once; multiples of the network's factor; default: fits the memory"
    )


class Fragments(Section):
    """Affinities to supervoxels."""

    in_xy: bool | None = Field(
        None, description="section by section; default: only where voxels are 2 or more times longer in z"
    )
    min_seed_distance: Positive = Field(10, description="voxels between two fragments' centres, at least")
    threshold: Fraction = Field(0.5, description="mean affinity above which a voxel lies inside a neurite")
    fill: bool = Field(True, description="flood the background too, since neurites touch")
    filter_fragments: Fraction = Field(0.0, description="drop fragments of lower mean affinity; 0 keeps all")
    epsilon_agglomerate: Fraction = Field(0.0, description="merge at once up to this score; 0 merges nothing")
    block: PositiveTriple = Field((256, 256, 256), description="voxels of one block")
    context: Triple = Field((20, 20, 20), description="voxels read around a block")


class Agglomeration(Section):
    """Supervoxels to scored edges."""

    merge_function: MergeFunction = Field("hist_quant_75", description="how the score of two fragments is computed")
    block: PositiveTriple = Field((256, 256, 256), description="voxels of one block; multiples of the fragments' block")
    context: Triple = Field((32, 32, 32), description="voxels read around a block")


def _default_thresholds() -> tuple[float, ...]:
    return tuple(round(0.02 * i, 2) for i in range(1, 46))


class Segmentation(Section):
    """Scored edges to segments. Raising the threshold merges more."""

    thresholds: tuple[Fraction, ...] = Field(
        default_factory=_default_thresholds, min_length=1, description="merge scores tried on the validation volumes"
    )
    threshold: Fraction | Literal["auto"] = Field(
        "auto", description='"auto": the one of lowest VOI on the validation volumes (below), or a number'
    )
    chosen_threshold: Fraction | None = Field(None, description="written by the evaluation; used by auto")
    chosen_because: str | None = Field(None, description="written by the evaluation")

    @field_validator("thresholds")
    @classmethod
    def _sorted(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted(set(values)))


class Resources(Section):
    """What this machine gives."""

    workers: Positive | None = Field(None, description="processes for fragments and agglomeration; default: all cores")
    device: str = Field("auto", description='"auto", "cpu", "cuda", "cuda:1", ...')
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 where the processor has it")
    memory_gb: PositiveFloat | None = Field(None, description="memory to use; default: what is free at the start")


class Parameters(Section):
    """The whole file."""

    voxel_size: PositiveNanometres = Field(description="nm per voxel, z y x, of all volumes")
    volumes: Volumes
    network: Network = Network()
    training: Training = Training()
    prediction: Prediction = Prediction()
    fragments: Fragments = Fragments()
    agglomeration: Agglomeration = Agglomeration()
    segmentation: Segmentation = Segmentation()
    resources: Resources = Resources()


class Project:
    """A project folder with a valid `neuroloom.toml`; made by `load_project`.

    Attributes:
        folder: The folder that holds the file.
        parameters: The file's content.
    """

    def __init__(self, folder: Path, parameters: Parameters) -> None:
        self.folder = folder
        self.parameters = parameters

    @property
    def file(self) -> Path:
        """The project file."""
        return self.folder / FILE_NAME

    def locate(self, path: str) -> str:
        """A path of the project file, taken from the project's folder; URLs as they are."""
        return path if "://" in path else str((self.folder / path).resolve())

    def training_folder(self, setup: str, fingerprint: str) -> Path:
        """Where a network is trained."""
        return self.folder / "training" / f"{setup}-{fingerprint[:12]}"

    def result_folder(self, volume: str, step: str, fingerprint: str) -> Path:
        """Where a stage's outputs for a volume lie."""
        return self.folder / "results" / volume / f"{step}-{fingerprint[:12]}"

    def evaluation_file(self, volume: str, fingerprint: str) -> Path:
        """Where a validation volume's scores lie."""
        return self.folder / "evaluation" / f"{volume}-{fingerprint[:12]}.json"

    @property
    def report_file(self) -> Path:
        """The report."""
        return self.folder / "report.html"

    @property
    def threshold(self) -> float | None:
        """The merge threshold to segment with: set by hand, else chosen by the evaluation, else None."""
        wanted = self.parameters.segmentation.threshold
        return self.parameters.segmentation.chosen_threshold if wanted == "auto" else wanted

    def choose_threshold(self, threshold: float, because: str) -> Project:
        """Write the evaluation's choice into the project file, keeping comments and order.

        Args:
            threshold: The merge threshold.
            because: One sentence why.

        Returns:
            The project with the new value.
        """
        document = tomlkit.parse(self.file.read_text())
        section = document.setdefault("segmentation", tomlkit.table())
        section["chosen_threshold"] = threshold
        section["chosen_because"] = because
        write_text(self.file, tomlkit.dumps(document))
        return load_project(self.folder)


def load_project(path: Path, *checks: Callable[[Project], list[Problem]]) -> Project:
    """Read and check a project; nothing starts before the whole file is valid.

    Args:
        path: The project's folder or its `neuroloom.toml`.
        checks: Further checks of a project whose keys and values are right (that its volumes exist, for example).

    Returns:
        The project.

    Raises:
        UserError: The file is missing, no TOML, or has wrong keys, values, units or paths; all mistakes are listed,
            each with its line, what was expected and the nearest right word.
    """
    file = path if path.suffix == ".toml" else path / FILE_NAME
    if not file.is_file():
        raise UserError(f"{file} does not exist. Make a project with `neuroloom init {path if path != file else '.'}`.")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no UTF-8 text. Save it as plain text in UTF-8.") from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is no valid TOML: {error}. Correct that line.") from error
    lines = key_lines(text)
    try:
        parameters = Parameters.model_validate(content)
    except ValidationError as error:
        problems = [_explain(problem, lines) for problem in _innermost(error.errors())]
        raise UserError(_list_problems(file, problems)) from error
    project = Project(file.parent.resolve(), parameters)
    found = [problem for check in (size_problems, *checks) for problem in check(project)]
    if found:
        raise UserError(_list_problems(file, [_at(lines, location, message) for location, message in found]))
    return project


def _list_problems(file: Path, problems: list[str]) -> str:
    if len(problems) == 1:
        return f"{file}, {problems[0]}"
    return f"{file} has {len(problems)} mistakes:\n" + "\n".join(f"  {problem}" for problem in problems)


def _at(lines: dict[Location, int], location: Location, message: str) -> str:
    line = line_of(lines, location)
    return f"line {line}: {message}" if line else message


def _innermost(problems: Sequence[Any]) -> list[Any]:
    """One problem for each place: a wrong entry makes its list wrong too, a choice of types is wrong once for each."""
    places = [tuple(part for part in problem["loc"] if not _is_union_branch(part)) for problem in problems]
    return [
        problem
        for number, (problem, place) in enumerate(zip(problems, places, strict=True))
        if place not in places[:number]
        and not any(len(other) > len(place) and other[: len(place)] == place for other in places)
    ]


def _explain(problem: Any, lines: dict[Location, int]) -> str:
    location = tuple(part for part in problem["loc"] if not _is_union_branch(part))
    name = _dotted(location)
    found = problem["input"]
    if problem["type"] == "extra_forbidden":
        known = _fields_at(Parameters, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.4)
        hint = f"did you mean `{near[0]}`?" if near else f"expected one of {', '.join(known)}."
        return _at(lines, location, f"unknown key `{name}`; {hint}")
    if problem["type"] == "missing":
        return _at(lines, location[:-1], f"`{name}` is missing ({_description(location)}).")
    if problem["type"] == "literal_error":
        expected = str(problem["ctx"]["expected"])
        near = difflib.get_close_matches(
            str(found), [e.strip("' ") for e in expected.replace(" or ", ",").split(",")], 1
        )
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return _at(lines, location, f"`{name}` is {found!r}; expected {expected}{hint}")
    if problem["type"] == "string_pattern_mismatch":
        return _at(lines, location, f"`{name}` is {found!r}; expected letters, digits, dots, dashes and underscores.")
    reason = str(problem["msg"])
    if problem["type"] == "value_error":
        return _at(lines, location, f"`{name}`: {reason.removeprefix('Value error, ')}.")
    reason = reason.removeprefix("Input should be ")
    return _at(lines, location, f"`{name}` is {_short(found)}; expected {reason} ({_description(location)}).")


def _is_union_branch(part: str | int) -> bool:
    return isinstance(part, str) and ("[" in part or part.startswith(("literal", "constrained", "function-")))


def _dotted(location: Location) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _model_at(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    for part in location:
        if current is None or isinstance(part, int):
            continue
        field = next((f for n, f in current.model_fields.items() if (f.alias or n) == part), None)
        current = None if field is None else _model_in(field.annotation)
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in get_args(annotation) if (found := _model_in(argument))), None)


def _fields_at(model: type[BaseModel], location: Location) -> list[str]:
    found = _model_at(model, location)
    return [field.alias or name for name, field in found.model_fields.items()] if found else []


def _description(location: Location) -> str:
    names = [part for part in location if isinstance(part, str)]
    parent = _model_at(Parameters, tuple(names[:-1]))
    for name, field in parent.model_fields.items() if parent else ():
        if (field.alias or name) == names[-1]:
            return field.description or f"section [{names[-1]}]"
    return "see the reference of the project file"


def size_problems(project: Project) -> list[Problem]:
    """Blocks that must be multiples of something and are not."""
    parameters = project.parameters
    fragments = parameters.fragments.block
    pairs = (
        ("prediction", parameters.prediction.block, "the network's factor", parameters.network.factor),
        ("agglomeration", parameters.agglomeration.block, "`fragments.block`", fragments),
    )
    problems: list[Problem] = []
    for section, block, of_what, factor in pairs:
        if block is not None and any(b % f for b, f in zip(block, factor, strict=True)):
            nearest = [max(f, round(b / f) * f) for b, f in zip(block, factor, strict=True)]
            message = f"`{section}.block` is {list(block)}; expected multiples of {of_what} {list(factor)}: {nearest}."
            problems.append(((section, "block"), message))
    return problems


def default_workers() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
