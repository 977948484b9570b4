"""The chain through the command line, on a real SLURM, while machines, workers and the command itself are killed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.system.slurm import Slurm
from tests.system.soak import STEPS, costs, hashes, make_sample, soak

from small_project import neuroloom

pytestmark = pytest.mark.system


def test_the_chain_gives_the_bytes_of_one_machine_whatever_is_killed(slurm: Slurm, tmp_path: Path) -> None:
    here, there = make_sample(tmp_path / "here"), tmp_path / "there"
    ran = neuroloom("run", "--project", here)
    assert ran.returncode == 0, ran.stderr
    expected = hashes(here)
    assert len(expected) > 256
    outcome = soak(slurm, there, 3, 2, expected, 1200)
    assert outcome.good, outcome
    steps = {fault.step for fault in outcome.faults}
    assert len(outcome.faults) >= 5
    assert "affinities" in steps
    assert len(steps) >= 3
    nodes = {step: {cost["node"][:-1] for cost in costs(there, step)} for step in STEPS}
    assert nodes == {"affinities": {"gpu"}, "fragments": {"cpu"}, "agglomeration": {"spot"}, "segmentation": {"spot"}}
    again = neuroloom("run", "--project", there, "--on", "lab")
    assert again.returncode == 0, again.stderr
    assert not slurm.call("squeue", "-hr", "--states=pending,running").strip()
