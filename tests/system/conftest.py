"""Fixtures shared by tests that drive real parts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.slurm import Slurm, running_slurm

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """A real SLURM, which commands and workers find."""
    with running_slurm() as running, pytest.MonkeyPatch.context() as patch:
        for name in ("SLURM_CONF", "PATH"):
            patch.setenv(name, running.environment[name])
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, ROOT / "src", ROOT / "tests"))))
        yield running
