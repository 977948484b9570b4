"""The whole chain of a project: which steps there are, which are done, and doing what is missing, in order.

    train lsd -> train acrlsd -> for every volume: predict -> fragments -> agglomerate
                                 for validation volumes: evaluate -> the threshold
                                 for every volume: segment;  then the report

A step's identity is the fingerprint of its parameters and inputs. The fingerprint of a prediction holds the content of
its checkpoint, so it is known once training is done; those of everything after follow from it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from neuroloom.blockwise import Source, Stage, run_stage
from neuroloom.blockwise.run import read_done
from neuroloom.errors import UserError
from neuroloom.project import LabelledVolume, Problem, Project, RawVolume, default_workers, load_project
from neuroloom.volume import open_volume
from neuroloom.volume.array import volume_fingerprint

Progress = Callable[[int, int], None]
State = Literal["done", "to do", "begun"]


def open_project(path: Path) -> Project:
    """Load a project and check that every volume it names can be opened and fits the others.

    Args:
        path: The project's folder or its `neuroloom.toml`.

    Raises:
        UserError: The file or a volume is wrong; all mistakes are listed with their lines.
    """
    return load_project(path, volume_problems)


def volume_problems(project: Project) -> list[Problem]:
    """What is wrong with the volumes of a project: missing, another voxel size, labels that do not fit their raw."""
    problems: list[Problem] = []
    volumes = project.parameters.volumes
    for kind, group in (("train", volumes.train), ("validate", volumes.validate_), ("predict", volumes.predict)):
        for number, volume in enumerate(group):
            problems += [((*("volumes", kind, number), key), text) for key, text in _problems_of(project, volume)]
    return problems
