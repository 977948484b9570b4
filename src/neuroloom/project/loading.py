"""Reading and checking `neuroloom.toml`, and where every artifact of its project lies.

PROJECT/
  neuroloom.toml                          what to do; the only file a person edits
  training/lsd-<fingerprint>/             best.ckpt, last.ckpt, curve.jsonl, snapshots/, tensorboard/
  training/acrlsd-<fingerprint>/
  results/<volume>/affinities-<fingerprint>/affinities.zarr
  results/<volume>/fragments-<fingerprint>/fragments.zarr
  results/<volume>/agglomeration-<fingerprint>/     edges per block, forest.arrow
  results/<volume>/segmentation-<fingerprint>/      lut-<threshold>.npz and .arrow, segmentation.zarr
  evaluation/<volume>-<fingerprint>.json
  report.html, pictures/<volume>.png, pictures/crops.png
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import tomlkit
from pydantic import ValidationError
from tomlkit.exceptions import ParseError

from neuroloom.addresses import scheme_of, sqlite_path
from neuroloom.errors import UserError
from neuroloom.files import write_text
from neuroloom.project.mistakes import Problem, at_line, explain, list_problems
from neuroloom.project.parameters import Parameters, Triple
from neuroloom.project.toml_lines import key_lines

FILE_NAME = "neuroloom.toml"


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

    @property
    def option(self) -> str:
        """How a shell wants to hear of it: `--project FOLDER`."""
        return f"--project {shlex.quote(str(self.folder))}"

    def locate(self, path: str) -> str:
        """A path of the project file, taken from the project's folder; URLs as they are."""
        return path if "://" in path else str((self.folder / path).resolve())

    @property
    def graph_store(self) -> str:
        """The address of the graph store, its file taken from the project's folder."""
        address = self.parameters.graph.store
        if scheme_of(address) == "sqlite":
            return f"sqlite:{(self.folder / sqlite_path(address)).resolve()}"
        return address

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

    @property
    def text(self) -> str:
        """The project file as it is now."""
        return _read(self.file)

    def start_from(self, weights: str) -> Project:
        """Write into the project file what trainings start from, keeping comments and order.

        Args:
            weights: Name of a model, or path of a checkpoint.

        Returns:
            The project with the new value.
        """
        document = tomlkit.parse(self.text)
        document.setdefault("training", tomlkit.table())["start"] = weights
        write_text(self.file, tomlkit.dumps(document))
        return load_project(self.folder)

    def set_length(self, key: str, iterations: int, minutes: float) -> Project:
        """Write into the project file how long a network is trained, keeping comments and order.

        Args:
            key: "lsd" or "affinities".
            iterations: Steps.
            minutes: What they were fitted to.

        Returns:
            The project with the new values.
        """
        document = tomlkit.parse(self.text)
        section = document.setdefault("training", tomlkit.table()).setdefault(key, tomlkit.table())
        section["iterations"] = iterations
        section["minutes"] = minutes
        write_text(self.file, tomlkit.dumps(document))
        return load_project(self.folder)

    def choose_threshold(self, threshold: float, because: str) -> Project:
        """Write the evaluation's choice into the project file, keeping comments and order.

        Args:
            threshold: The merge threshold.
            because: One sentence why.

        Returns:
            The project with the new value.
        """
        document = tomlkit.parse(self.text)
        section = document.setdefault("segmentation", tomlkit.table())
        section["chosen_threshold"] = threshold
        section["chosen_because"] = because
        write_text(self.file, tomlkit.dumps(document))
        return load_project(self.folder)


def allow_resampling(path: Path) -> None:
    """Write into a project file that volumes of other voxels are resampled, keeping comments and order.

    Args:
        path: The project's folder or its `neuroloom.toml`; one that is wrong is left for `load_project` to tell.
    """
    file = path if path.suffix == ".toml" else path / FILE_NAME
    if not file.is_file():
        return
    try:
        document = tomlkit.parse(_read(file))
        section = document.setdefault("prediction", tomlkit.table())
        if section.get("resample") is not True:
            section["resample"] = True
            write_text(file, tomlkit.dumps(document))
    except (ParseError, AttributeError, TypeError):
        return


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
    text = _read(file)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is no valid TOML: {error}. Correct that line.") from error
    lines = key_lines(text)
    try:
        parameters = Parameters.model_validate(content)
    except ValidationError as error:
        problems = explain(error, lines)
        raise UserError(list_problems(file, problems)) from error
    project = Project(file.parent.resolve(), parameters)
    found = [problem for check in (training_problems, size_problems, *checks) for problem in check(project)]
    if found:
        raise UserError(list_problems(file, [at_line(lines, location, message) for location, message in found]))
    return project


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark of its encoding
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no UTF-8 text. Save it as plain text in UTF-8.") from error


def training_problems(project: Project) -> list[Problem]:
    """Nothing to train on, although there are no given weights either."""
    parameters = project.parameters
    if parameters.volumes.train or parameters.prediction.model is not None:
        return []
    message = (
        "`volumes.train` is missing (hand-segmented blocks to train on). Add [[volumes.train]], or name weights with "
        "`prediction.model`."
    )
    return [(("volumes",), message)]


def size_problems(project: Project) -> list[Problem]:
    """Blocks that must be multiples of something and are not."""
    parameters = project.parameters
    problems: list[Problem] = []
    if parameters.prediction.model is None:  # given weights say themselves what their factor is
        problems += block_problems(
            "prediction", parameters.prediction.block, "the network's factor", parameters.network.factor
        )
    block, fragments = parameters.agglomeration.block, parameters.fragments.block
    return problems + block_problems("agglomeration", block, "`fragments.block`", fragments)


def block_problems(section: str, block: Triple | None, of_what: str, factor: Triple) -> list[Problem]:
    """The block of a section that is no multiple of something.

    Args:
        section: Its name.
        block: In voxels; None is right.
        of_what: What it must be multiples of.
        factor: In voxels.
    """
    if block is None or not any(b % f for b, f in zip(block, factor, strict=True)):
        return []
    nearest = [max(f, round(b / f) * f) for b, f in zip(block, factor, strict=True)]
    message = f"`{section}.block` is {list(block)}; expected multiples of {of_what} {list(factor)}: {nearest}."
    return [((section, "block"), message)]
