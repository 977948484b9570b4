"""The project file `neuroloom.toml`: what it holds, reading and checking it, writing a commented one.

parameters     every key, its default and what it means       loading    reading, checking, where artifacts lie
augmentation   likewise, for the section of that name         mistakes   told with their line and the nearest word
profiles       likewise, for workers on clusters              template   writing a commented file
"""

from neuroloom.project.augmentation import Augmentation
from neuroloom.project.loading import (
    FILE_NAME,
    Project,
    allow_resampling,
    block_problems,
    load_project,
    size_problems,
)
from neuroloom.project.mistakes import Problem
from neuroloom.project.parameters import (
    NEAREST,
    Agglomeration,
    AgglomerationMethod,
    Fragments,
    Graph,
    LabelledVolume,
    MergeFunction,
    Network,
    Parameters,
    Prediction,
    RawVolume,
    Segmentation,
    Training,
    TrainingLength,
    Triple,
    Unlabelled,
)
from neuroloom.project.profiles import AnyJob, Job, Profile, StageName, TrainJob, find_profile

__all__ = [
    "FILE_NAME",
    "NEAREST",
    "Agglomeration",
    "AgglomerationMethod",
    "AnyJob",
    "Augmentation",
    "Fragments",
    "Graph",
    "Job",
    "LabelledVolume",
    "MergeFunction",
    "Network",
    "Parameters",
    "Prediction",
    "Problem",
    "Profile",
    "Project",
    "RawVolume",
    "Segmentation",
    "StageName",
    "TrainJob",
    "Training",
    "TrainingLength",
    "Triple",
    "Unlabelled",
    "allow_resampling",
    "block_problems",
    "find_profile",
    "load_project",
    "size_problems",
]
