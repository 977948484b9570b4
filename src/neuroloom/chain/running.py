"""Where blocks of stages are run and networks trained: by this machine, or by jobs of a profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from neuroloom.blockwise.work import Supply
from neuroloom.cluster import WORKERS, check_profile, slurm_supply
from neuroloom.project import Job, Profile, Project, StageName, TrainJob, find_profile


@dataclass(frozen=True)
class Running:
    """Where blocks are run, and networks trained.

    Attributes:
        profile: Whose workers run them; None for this machine's as the project's resources say.
        take_over: Whether a lock that a run on another machine left behind is taken over.
        delete_intermediate: Whether affinities are deleted as soon as nobody is to read them any more.
    """

    profile: Profile | None = None
    take_over: bool = False
    delete_intermediate: bool = False

    @property
    def is_elsewhere(self) -> bool:
        """Whether blocks are done by other machines."""
        return self.profile is not None and self.profile.kind == "slurm"

    def supply(self, stage: StageName, title: str) -> Supply | None:
        """The workers of a stage; None for processes of this machine.

        Args:
            stage: Which.
            title: What jobs are called in the queue.
        """
        if self.profile is None or not self.is_elsewhere:
            return None
        return slurm_supply(self.profile.job(stage), title)

    def lead(self, stage: StageName, workers: int) -> int:
        """How many blocks of a stage may be ready and wait, before stages that it reads pause.

        Args:
            stage: Which.
            workers: Of this machine that do it.
        """
        job = Job() if self.profile is None else self.profile.job(stage)
        if self.is_elsewhere:
            workers = job.workers_max or WORKERS
        return job.lead or max(16, 4 * workers)

    @property
    def train_job(self) -> TrainJob | None:
        """The job of a training; None for this machine."""
        return self.profile.train_job if self.profile is not None and self.is_elsewhere else None

    def local_workers(self, stage: StageName) -> int | None:
        """Processes of this machine that a local profile asks for.

        Args:
            stage: Which.
        """
        return None if self.profile is None else self.profile.job(stage).workers_max


HERE = Running()
"""On this machine, as the project's resources say."""


def running_on(
    project: Project, name: str | None, take_over: bool = False, delete_intermediate: bool = False
) -> Running:
    """Where a profile says.

    Args:
        project: The project.
        name: The profile's; None for this machine.
        take_over: As in `Running`.
        delete_intermediate: As in `Running`.

    Raises:
        UserError: Nobody knows it, or the cluster cannot do what it asks for.
    """
    if name is None:
        return Running(None, take_over, delete_intermediate)
    parameters = project.parameters
    profile = find_profile(project.folder, parameters.profiles, parameters.cluster, name)
    if profile.kind == "slurm":
        check_profile(name, profile, (*get_args(StageName), "train"))
    return Running(profile, take_over, delete_intermediate)
