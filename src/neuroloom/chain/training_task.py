"""The description of a training that a SLURM job does: all that it needs to know of the project."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from neuroloom.project import Parameters


class TrainingTask(BaseModel):
    """What a job trains.

    Attributes:
        project: The project's folder.
        parameters: Of the project when the job was submitted.
        setup: What is trained.
        fingerprint: Of the training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    project: Path
    parameters: Parameters
    setup: str
    fingerprint: str
