"""Why a step will be done again: what is other than when it was done last.

Each result has a description, `stage.json`, and each training a `job.json`. The newest of the step's other results is
compared with what the step would be now. Where an input is another one, its own description is compared, and so on,
until parameters of the project file are reached, or content: an image, a network that was given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from neuroloom.agglomeration.stage import Agglomerate
from neuroloom.blockwise import Source, Stage
from neuroloom.errors import UserError
from neuroloom.files import read_json
from neuroloom.fragments.stage import Fragments
from neuroloom.prediction import Predict
from neuroloom.project import Training
from neuroloom.segmentation.stage import Segment
from neuroloom.training.job import TrainingJob

SECTIONS: dict[type[Stage], str] = {
    Predict: "prediction",
    Fragments: "fragments",
    Agglomerate: "agglomeration",
    Segment: "segmentation",
}
"""Of the project file."""

_KEYS = {
    "block_shape": "block",
    "checkpoint_sha256": "network",
    "ensemble_sha256": "ensemble",
    "tissue": "tissue mask",
    "mask": "affinities",
    "lsd_sha256": "descriptor network",
    "start_sha256": "start",
    "raw_first": "descriptors_after",
}
"""What the project file, or a user, calls what stages and trainings call otherwise."""


@dataclass(frozen=True)
class Change:
    """One thing that is other than it was.

    Attributes:
        key: As the project file has it, such as "fragments.threshold"; or a word for content, such as "raw".
        before: Its value when the step was done last; of content the beginning of its fingerprint.
        after: Its value now.
        is_content: Whether it is content.
    """

    key: str
    before: Any
    after: Any
    is_content: bool = False

    def __str__(self) -> str:
        return self.key if self.is_content else f"{self.key} {self.before} -> {self.after}"


def in_words(changes: tuple[Change, ...]) -> str:
    """Changes, for people; empty where there is none."""
    return f"changed since the last time: {', '.join(map(str, changes))}" if changes else ""


def stage_changes(stage: Stage, inputs: Sequence[Stage], trainings: Path) -> tuple[Change, ...]:
    """What is other than when a stage was done last; nothing where it never was.

    Args:
        stage: One that is to be done.
        inputs: The stages before it, as they are now.
        trainings: The folder of the project's trainings.
    """
    last = _newest(stage.folder, "stage.json")
    if last is None:
        return ()
    known = {before.fingerprint(): before for before in inputs}
    return _unique(_between(_described(last), stage, known, trainings))


def training_changes(job: TrainingJob, folder: Path) -> tuple[Change, ...]:
    """What is other than when a network was trained last; nothing where it never was.

    Args:
        job: A training that is to be done.
        folder: Where it will lie.
    """
    last = _newest(folder, "job.json")
    return () if last is None else _unique(_between_jobs(_described(last), job, folder.parent))


def _newest(folder: Path, name: str) -> Path | None:
    """The newest description among other results of the same step."""
    step = folder.name.rsplit("-", 1)[0]
    found = [file for file in folder.parent.glob(f"{step}-*/{name}") if file.parent != folder]
    others = [file for file in found if file.parent.name.rsplit("-", 1)[0] == step]
    return max(others, key=lambda file: file.stat().st_mtime, default=None)


def _described(file: Path) -> dict[str, Any]:
    try:
        return read_json(file)
    except (OSError, UserError):  # what cannot be read any more cannot be compared
        return {}


def _content(key: str, before: str | None, after: str | None) -> Change:
    return Change(key, before and before[:12], after and after[:12], True)


def _unique(changes: Iterator[Change]) -> tuple[Change, ...]:
    return tuple({change.key: change for change in changes}.values())


def _between(before: dict[str, Any], stage: Stage, known: Mapping[str, Stage], trainings: Path) -> Iterator[Change]:
    """What is other than in a stage's description."""
    if before.get("stage") != type(stage).__name__ or before.get("fingerprint") == stage.fingerprint():
        return
    found = False
    for change in _fields(before.get("parameters", {}), stage, known, trainings):
        found = True
        yield change
    if not found:
        yield _content(f"how neuroloom does {stage.title}", before["fingerprint"], stage.fingerprint())


def _fields(before: dict[str, Any], stage: Stage, known: Mapping[str, Stage], trainings: Path) -> Iterator[Change]:
    section = SECTIONS.get(type(stage), stage.title)
    for name, old, new in _differing(before, stage):
        word = _KEYS.get(name, name)
        if _is_source(old) or _is_source(new):
            now = known.get(new["fingerprint"]) if new else None
            then = _description_of(old) if old else {}
            if now is not None and then.get("stage") == type(now).__name__:
                yield from _between(then, now, known, trainings)
            else:
                yield _content(word, old and old["fingerprint"], new and new["fingerprint"])
        elif name == "checkpoint_sha256":
            yield from _between_networks(word, old, new, trainings)
        elif name == "ensemble_sha256":
            yield Change(f"{section}.{word}", old, new, True)
        elif name == "block_shape" and isinstance(stage, Segment):
            yield Change("fragments.block", old, new)
        else:
            yield Change("extent of the volume" if name == "shape" else f"{section}.{word}", old, new)


def _differing(before: dict[str, Any], now: Stage | TrainingJob) -> Iterator[tuple[str, Any, Any]]:
    """Fields of other values than in a description, if putting the old one back makes a difference."""
    values = now.model_dump(mode="json")
    for name, new in values.items():
        old = before.get(name)
        if name not in before or old == new:
            continue
        try:
            counts = type(now).model_validate({**values, name: old}).fingerprint() != now.fingerprint()
        except ValidationError:
            counts = True
        if counts:
            yield name, old, new


def _is_source(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == Source.model_fields.keys()


def _description_of(source: dict[str, Any]) -> dict[str, Any]:
    """The description of the stage that made an array: beside it, or in the folder that is named."""
    path = Path(source["path"])
    for folder in (path, path.parent):
        found = _described(folder / "stage.json")
        if found.get("fingerprint") == source["fingerprint"]:
            return found
    return {}


def _between_networks(word: str, before: str | None, now: str | None, trainings: Path) -> Iterator[Change]:
    """What is other between two checkpoints, by their content."""
    jobs = [_job_of(sha256, trainings) for sha256 in (before, now)]
    try:
        job = TrainingJob.model_validate(jobs[1])
    except ValidationError:  # it was given
        job = None
    found = False
    if job is not None and jobs[0].get("setup") == job.setup:
        for change in _between_jobs(jobs[0], job, trainings):
            found = True
            yield change
    if not found:
        yield _content(word, before, now)


def _job_of(sha256: str | None, trainings: Path) -> dict[str, Any]:
    """The training that ended with a checkpoint."""
    for file in trainings.glob("*/done.json"):
        if sha256 is not None and _described(file).get("checkpoint_sha256") == sha256:
            return _described(file.parent / "job.json")
    return {}


def _between_jobs(before: dict[str, Any], job: TrainingJob, trainings: Path) -> Iterator[Change]:
    for name, old, new in _differing(before, job):
        word = f"training.{_KEYS.get(name, name)}"
        if name in ("volumes", "validation"):
            yield from _between_volumes("train" if name == "volumes" else "validate", old, new)
        elif name == "lsd_sha256":
            yield from _between_networks(_KEYS[name], old, new, trainings)
        elif name == "start_sha256":
            yield _content(word, old, new)
        elif name == "iterations":
            yield Change(f"training.{Training.length_key(job.setup)}.iterations", old, new)
        elif name in ("network", "augmentation"):
            section = name if name == "network" else word
            yield from (Change(f"{section}.{key}", old.get(key), new[key]) for key in new if old.get(key) != new[key])
        else:
            yield Change(name if name == "voxel_size" else word, old, new)


def _between_volumes(kind: str, before: list[dict[str, Any]], now: list[dict[str, Any]]) -> Iterator[Change]:
    names = [[volume["name"] for volume in volumes] for volumes in (before, now)]
    if names[0] != names[1]:
        yield Change(f"volumes.{kind}", names[0], names[1])
        return
    for old, new in zip(before, now, strict=True):
        for key in ("unlabelled", "zero_ids", "ignore_ids", "weight"):
            if old.get(key) != new[key]:
                yield Change(f"{key} of {new['name']}", old.get(key), new[key])
        if old["fingerprint"] != new["fingerprint"]:
            yield _content(f"volume {new['name']}", old["fingerprint"], new["fingerprint"])
