"""Where blocks of stages are run and networks trained: by this machine, or by jobs of a profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from neuroloom.blockwise.run import Supply
from neuroloom.cluster import check_profile, slurm_supply
from neuroloom.project import Profile, Project, StageName, TrainJob, find_profile


@dataclass(frozen=True)
class Running:
    """Where blocks are run, and networks trained.

    Attributes:
        profile: Whose workers run them; None for this machine's as the project's resources say.
        take_over: Whether a lock that a run on another machine left behind is taken over.
    """

    profile: Profile | None = None
    take_over: bool = False

    def supply(self, stage: StageName, title: str) -> Supply | None:
        """The workers of a stage; None for processes of this machine.

        Args:
            stage: Which.
            title: What jobs are called in the queue.
        """
        if self.profile is None or self.profile.kind == "local":
            return None
        return slurm_supply(self.profile.job(stage), title)

    @property
    def train_job(self) -> TrainJob | None:
        """The job of a training; None for this machine."""
        return None if self.profile is None or self.profile.kind == "local" else self.profile.train_job

    def local_workers(self, stage: StageName) -> int | None:
        """Processes of this machine that a local profile asks for.

        Args:
            stage: Which.
        """
        return None if self.profile is None else self.profile.job(stage).workers_max


HERE = Running()
"""On this machine, as the project's resources say."""


def running_on(project: Project, name: str | None, take_over: bool = False) -> Running:
    """Where a profile says.

    Args:
        project: The project.
        name: The profile's; None for this machine.
        take_over: As in `Running`.

    Raises:
        UserError: Nobody knows it, or the cluster cannot do what it asks for.
    """
    if name is None:
        return Running(None, take_over)
    parameters = project.parameters
    profile = find_profile(project.folder, parameters.profiles, parameters.cluster, name)
    if profile.kind == "slurm":
        check_profile(name, profile, (*get_args(StageName), "train"))
    return Running(profile, take_over)
