"""What SLURM itself has measured of jobs, from a SLURM that keeps accounts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.accounts import PROGRAMS, AccountedSlurm
from tests.system.master import start_master
from tests.system.slurm import Slurm, running_slurm
from tests.system.troubled_stage import Troubled, supply

from neuroloom.blockwise import run_stage
from neuroloom.blockwise.replay import replay
from neuroloom.blockwise.standing import standing
from system_parts import require

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    require(PROGRAMS, "slurmdbd", "mariadb-server")
    with running_slurm(AccountedSlurm) as running, pytest.MonkeyPatch.context() as patch:
        for name in ("SLURM_CONF", "PATH"):
            patch.setenv(name, running.environment[name])
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, ROOT / "src", ROOT / "tests"))))
        yield running


def test_figures_of_each_time_a_job_ran_are_kept(slurm: Slurm, tmp_path: Path) -> None:
    stage = Troubled(folder=tmp_path / "stage", shape=(8, 6, 4), block_shape=(2, 2, 2), seconds=2.0)
    master = start_master(stage, partition="cpu")
    try:
        slurm.wait_for(lambda: len(stage.outputs()) > 2, 60)
        now = standing(stage.folder)
        assert now.run is not None
        assert now.run.alive
        assert {worker.node for worker in now.run.workers} <= {"cpu1", "cpu2"}
        assert 0 < now.done < 24
        taken = now.run.workers[0].name
        slurm.call("scontrol", "requeue", taken)
        output, _ = master.communicate(timeout=600)
    finally:
        master.kill()
    assert master.returncode == 0, output
    found = replay(stage.folder)
    assert found.costs.blocks == 24  # whatever was done twice
    assert found.evictions == 1
    first, last = found.jobs[taken].measured
    assert first["state"] == "REQUEUED"
    assert last["state"] in ("COMPLETED", "CANCELLED")  # at the end of the stage
    measured = [entry for job in found.jobs.values() for entry in job.measured]
    assert any(entry["memory"] > 20e6 for entry in measured)
    assert all(entry["cpus"] == 1 and entry["gpus"] == 0 for entry in measured)
    account = standing(stage.folder).account
    assert account.slurm
    assert account.job_core_hours == pytest.approx(sum(entry["seconds"] for entry in measured) / 3600, abs=1e-5)


def test_gpus_count(slurm: Slurm, tmp_path: Path) -> None:
    stage = Troubled(folder=tmp_path / "stage", shape=(2, 2, 2), block_shape=(2, 2, 2), seconds=2.0)
    run_stage(stage, supply=supply(partition="gpu", gpus=1))
    account = standing(stage.folder).account
    assert account.job_gpu_hours == account.job_core_hours > 0
