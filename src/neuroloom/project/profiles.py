"""Profiles: where the workers of each stage come from, in the project file or in one that projects share.

    [profiles.lab]              holds for all stages, and for training
    [profiles.lab.predict]      holds for prediction alone, and wins
    [profiles.lab.train]        likewise for training, which is one job

A profile is looked for by name in the project file, in the file that its key `cluster` names, in `cluster.toml` beside
it, and in the file that the environment variable `NEUROLOOM_CLUSTER` names: the first that has it counts.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from neuroloom.errors import UserError, one_of

StageName = Literal["predict", "fragments", "agglomerate", "segment"]
"""Stages that have blocks, as commands call them."""

VARIABLE = "NEUROLOOM_CLUSTER"
FILE_NAME = "cluster.toml"
LOCAL = "local"

Positive = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
Word = Annotated[str, Field(pattern=r"^[^\s,]+$")]


class AnyJob(BaseModel):
    """What a job of SLURM asks for, and how it starts Python."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    partition: Word | None = Field(None, description="SLURM partition; default: the cluster's own default")
    cpus: Positive = Field(1, description="cores of a worker; it uses them all")
    memory_gb: PositiveFloat = Field(4.0, description="memory of a worker")
    memory_max_gb: PositiveFloat | None = Field(
        None, description="memory of workers after one was killed for it; default: twice `memory_gb`, if nodes have it"
    )
    gpus: int = Field(0, ge=0, le=1, description="GPUs of a worker")
    gpu_type: Word | None = Field(None, description="kind of GPU, as the cluster calls it, such as a100")
    gpu_option: Literal["gres", "gpus"] = Field(
        "gres", description='how the cluster wants to be asked for GPUs, "gres" (--gres=gpu:1) or "gpus" (--gpus=1)'
    )
    minutes: PositiveFloat | None = Field(
        None, description="time limit of a worker, after which another one takes its place; default: the partition's"
    )
    account: Word | None = Field(None, description="account that pays")
    qos: Word | None = Field(None, description="quality of service")
    constraint: str | None = Field(None, description="features that nodes must have")
    extra: tuple[str, ...] = Field((), description='more options of sbatch, each such as "--exclude=node7"')
    setup: tuple[str, ...] = Field((), description='shell commands before the worker, such as "module load cuda"')
    container: str | None = Field(None, description="Apptainer or Singularity image in which neuroloom is installed")
    container_program: Literal["apptainer", "singularity"] = Field("apptainer", description="what runs it")
    container_options: tuple[str, ...] = Field((), description='its options, such as "--bind=/data"')
    python: str | None = Field(
        None, description="Python of the workers; default: this program's own, in a container python3"
    )
    poll_seconds: PositiveFloat = Field(10.0, description="between two looks at the queue")
    lead: Positive | None = Field(
        None,
        description="blocks that may be ready and wait for these workers, before the stages that make what they read "
        "pause; default: 4 for each worker, at least 16",
    )

    @model_validator(mode="after")
    def _more_is_more(self) -> Self:
        if self.memory_max_gb is not None and self.memory_max_gb < self.memory_gb:
            least = f"{self.memory_gb:g}"
            raise ValueError(f"memory_max_gb is {self.memory_max_gb:g}; expected memory_gb, {least}, or more")
        return self


class Job(AnyJob):
    """What a worker is, and how many of them there are."""

    spot_partition: Word | None = Field(
        None, description="partition of machines that may be taken away, asked first; `partition` is the fallback"
    )
    spot_minutes: PositiveFloat = Field(
        10.0, description="as long as fewer than `workers_min` workers run there, jobs wait for spot machines so long"
    )
    workers_min: Positive = Field(1, description="workers that must run on spot machines, or the fallback is asked too")
    workers_max: Positive | None = Field(
        None, description="workers at most, and never more than blocks that are left; default: 10; local: all cores"
    )
    block_minutes: PositiveFloat = Field(
        120.0, description="a worker that takes longer for one block hangs, and is stopped"
    )
    host: str | None = Field(
        None, description="address under which nodes reach the machine that runs neuroloom; default: found out"
    )

    @model_validator(mode="after")
    def _spot_is_another(self) -> Self:
        if self.spot_partition is not None and self.spot_partition == self.partition:
            raise ValueError("spot_partition and partition are the same; leave spot_partition out")
        return self


class TrainJob(AnyJob):
    """The job of a training."""

    nodes: Positive = Field(1, description="machines that train together, each with `cpus`, `memory_gb` and `gpus`")
    cpus: Positive = Field(1, description="cores of each machine")
    memory_gb: PositiveFloat = Field(4.0, description="memory of each machine")
    memory_max_gb: PositiveFloat | None = Field(
        None, description="memory after the job was killed for it; default: twice `memory_gb`, if nodes have it"
    )
    gpus: int = Field(0, ge=0, description="GPUs of each machine; each takes its share of the crops of a step")
    minutes: PositiveFloat | None = Field(
        None, description="time limit, shortly before which the state is saved; another job goes on from there"
    )

    @property
    def processes(self) -> int:
        """Processes that train together, one for each GPU, or one on each machine without."""
        return self.nodes * max(1, self.gpus)


class Profile(Job):
    """Where workers come from. Keys of [profiles.NAME] hold for all steps, those of its tables for one."""

    kind: Literal["slurm", "local"] = Field(description='"slurm", or "local" for processes of this machine')
    predict: Job | None = Field(None, description="prediction alone")
    fragments: Job | None = Field(None, description="fragments alone")
    agglomerate: Job | None = Field(None, description="agglomeration alone")
    segment: Job | None = Field(None, description="segmentation alone")
    train: TrainJob | None = Field(None, description="training alone: one job, on one machine or several")

    def job(self, stage: StageName) -> Job:
        """A worker of a stage: its own keys, else the profile's, else defaults.

        Args:
            stage: Which.
        """
        own: Job | None = getattr(self, stage)
        shared = self.model_dump(include=set(Job.model_fields), exclude_unset=True)
        return Job.model_validate({**shared, **(own.model_dump(exclude_unset=True) if own is not None else {})})

    @property
    def train_job(self) -> TrainJob:
        """The job of a training: its own keys, else those of the profile that it has, too, else defaults."""
        shared = self.model_dump(include=set(TrainJob.model_fields), exclude_unset=True)
        own = self.train.model_dump(exclude_unset=True) if self.train is not None else {}
        return TrainJob.model_validate({**shared, **own})

    @model_validator(mode="after")
    def _stages_are_right(self) -> Self:
        for name in (*get_args(StageName), "train"):
            try:
                _ = self.train_job if name == "train" else self.job(name)
            except ValidationError as error:
                reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
                raise ValueError(f"{name}: {reason}") from error
        return self


class ClusterFile(BaseModel):
    """The file of profiles that projects share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profiles: dict[str, Profile] = Field({}, description="by name")


def find_profile(folder: Path, profiles: dict[str, Profile], shared: str | None, name: str) -> Profile:
    """A profile by its name.

    Args:
        folder: The project's.
        profiles: Of the project file.
        shared: The project file's key `cluster`.
        name: The profile's; "local" is always there.

    Raises:
        UserError: Nobody knows it, or a file of profiles is wrong.
    """
    files = [folder / FILE_NAME] if (folder / FILE_NAME).is_file() else []
    if shared is not None:
        files.insert(0, folder / Path(shared).expanduser())
    if os.environ.get(VARIABLE):
        files.append(Path(os.environ[VARIABLE]).expanduser())
    known = dict(profiles)
    for file in files:
        known = {**load_profiles(file), **known}
    known.setdefault(LOCAL, Profile(kind="local"))
    if name not in known:
        where = ", ".join(map(str, files)) if files else f"{folder / FILE_NAME} or the file that {VARIABLE} names"
        raise UserError(
            f"There is no profile {name!r}; known: {one_of(name, known)} Add [profiles.{name}] to the project file, "
            f"or to {where}."
        )
    return known[name]


def load_profiles(file: Path) -> dict[str, Profile]:
    """The profiles of a file that projects share.

    Raises:
        UserError: It is missing or wrong; all mistakes are listed, each with its line.
    """
    from neuroloom.project.mistakes import explain, list_problems
    from neuroloom.project.toml_lines import key_lines

    try:
        text = file.read_text(encoding="utf-8-sig")
        content: dict[str, Any] = tomllib.loads(text)
    except OSError as error:
        raise UserError(f"{file}, a file of cluster profiles, cannot be read ({error.strerror}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is no valid TOML: {error}. Correct that line.") from error
    try:
        return ClusterFile.model_validate(content).profiles
    except ValidationError as error:
        raise UserError(list_problems(file, explain(error, key_lines(text), ClusterFile))) from error
