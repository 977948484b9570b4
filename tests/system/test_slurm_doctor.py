"""The doctor on a real SLURM: a cluster that is well, and one thing after another that is not."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.system.slurm import Slurm

from neuroloom.chain import open_project
from neuroloom.cluster import visit
from neuroloom.cluster.doctor import examine
from neuroloom.cluster.outcome import Check
from neuroloom.project import Profile
from small_project import make_project

pytestmark = pytest.mark.system
BARE = sys._base_executable  # type: ignore[attr-defined]
"""A Python without this environment's packages."""

ALL = {"node", "python", "neuroloom", "packages", "project", "write speed", "clock", "network", "memory", "cores"}


@pytest.fixture(autouse=True)
def _files_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visit, "FILE_SECONDS", 2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("doctor") / "disk" / "project")


def look(folder: Path, minutes: float = 2.0, **profile: Any) -> dict[str, dict[str, Check]]:
    """Checks by their names, by partition or, where all stages use the same one, by stage."""
    keys = {"kind": "slurm", "partition": "cpu", "memory_gb": 0.8, "poll_seconds": 0.3, **profile}
    found = examine(open_project(folder), "lab", Profile.model_validate(keys), minutes, lambda phases, seconds: None)
    checks = {one.stages[0]: {check.name: check for check in one.checks} for one in found}
    assert not list(folder.rglob(".neuroloom-doctor-*"))
    assert {file.name for file in folder.glob("doctor/*.log")} == {Path(one.log).name for one in found if one.log}
    return checks


def wrong(checks: dict[str, Check]) -> dict[str, str]:
    """What is found where something is, by name."""
    return {name: f"{check.what} {check.fix}" for name, check in checks.items() if check.severity != "ok"}


def test_a_cluster_that_is_well(slurm: Slurm, folder: Path, call: Callable[..., tuple[int, str, str]]) -> None:
    (folder / "cluster.toml").write_text(
        '[profiles.lab]\nkind = "slurm"\npartition = "cpu"\nmemory_gb = 1.5\npoll_seconds = 0.3\nsetup = ["true"]\n'
        '[profiles.lab.agglomerate]\nspot_partition = "spot"\nmemory_gb = 2\n'
        '[profiles.lab.predict]\npartition = "gpu"\ngpus = 1\n'
    )
    code, out, err = call("cluster", "doctor", "lab", "--project", folder, "--json")
    report = json.loads(out)
    assert re.search(r"spot \(agglomerate\): (waits for a node|spot\d is being started)", err)
    gpu, cpu, spot = report["partitions"]
    assert [(one["partition"], one["stages"]) for one in (gpu, cpu, spot)] == [
        ("gpu", ["predict"]),
        ("cpu", ["fragments", "agglomerate", "segment", "train"]),
        ("spot", ["agglomerate"]),
    ]
    for one in (gpu, cpu, spot):
        checks = {check["name"]: check for check in one["checks"]}
        assert set(checks) - {"GPU"} == ALL | {"set-up"}
        assert [name for name, check in checks.items() if check["severity"] == "problem" and name != "GPU"] == []
        assert one["measured"]["node"].startswith(one["partition"])
        asked = "2 GB asked" if one is not gpu else "1.5 GB asked"
        assert asked in checks["memory"]["what"]
    # the GPUs that SLURM counts here are none
    problem = not torch.cuda.is_available()
    assert ("None is found, although 1 was asked for" in gpu["checks"][-1]["what"]) == problem
    assert (code, report["problems"]) == (int(problem), int(problem))
    assert not list(folder.rglob(".neuroloom-doctor-*"))
    assert not slurm.jobs()


def test_what_is_wrong_with_how_workers_start(slurm: Slurm, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "numpy-0.9.dist-info").mkdir()
    (tmp_path / "numpy-0.9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.9\n")
    checks = look(
        folder,
        predict={"python": "/opt/no-such-python"},
        fragments={"setup": ["A=1", "moodule load cuda"]},
        agglomerate={"host": "::1"},
        segment={"setup": [f"export PYTHONPATH={tmp_path}:$PYTHONPATH"]},
    )
    python = wrong(checks["predict"])
    assert python.keys() == {"python"}
    assert "/opt/no-such-python does not run there" in python["python"]
    assert "No such file or directory Set `python`" in python["python"]
    setup = wrong(checks["fragments"])
    assert setup.keys() == {"set-up"}
    assert "`moodule load cuda` ended with exit code 127" in setup["set-up"]
    assert "command not found" in setup["set-up"]
    network = wrong(checks["agglomerate"])
    assert network.keys() == {"network"}
    assert "cannot connect to this machine at ::1" in network["network"]
    assert "Set `host`" in network["network"]
    packages = wrong(checks["segment"])
    assert packages.keys() == {"packages"}
    assert "numpy 0.9 instead of" in packages["packages"]
    assert "moodule" in (folder / "doctor" / "cpu-job1.log").read_text()


def test_scripts_that_end_early_and_pythons_without_neuroloom(slurm: Slurm, folder: Path) -> None:
    checks = look(
        folder,
        predict={"setup": ["true", "exit 3"]},
        fragments={"setup": ["if true; then"]},
        agglomerate={"python": BARE, "setup": ["unset PYTHONPATH"]},
        segment={"extra": ["--no-such-option"]},
    )
    ended = wrong(checks["predict"])
    assert ended.keys() == {"set-up", "python"}
    assert "The set-up lines ended the script with exit code 3" in ended["set-up"]
    assert "syntax error" in wrong(checks["fragments"])["set-up"]
    without = wrong(checks["agglomerate"])
    assert "cannot be imported by" in without["neuroloom"]
    assert "No module named 'neuroloom'" in without["neuroloom"]
    assert "SLURM refuses" in wrong(checks["segment"])["node"]


def test_a_disk_that_a_node_does_not_see(slurm: Slurm, folder: Path) -> None:
    disk = folder.parent
    with slurm.without("cpu2", disk):
        checks = look(
            folder,
            extra=["--nodelist=cpu2"],
            predict={"host": "::1"},
            fragments={"host": "::1", "python": "/opt/no-such-python"},
        )
    unseen = wrong(checks["agglomerate"])
    assert unseen.keys() == {"project"}
    assert f"{folder} is not seen there. Mount the disk of {folder} on the nodes of cpu" in unseen["project"]
    silent = wrong(checks["predict"])
    assert silent.keys() == {"project", "network"}
    assert "The job ran on cpu2, but what it wrote is not seen here" in silent["project"]
    assert wrong(checks["fragments"]).keys() == {"project", "network", "python"}


def test_a_node_that_never_comes(slurm: Slurm, folder: Path) -> None:
    checks = look(folder, minutes=0.03, extra=["--hold"])
    assert "No node came in time. SLURM's reason: JobHeldUser." in wrong(checks["predict"])["node"]
    slurm.wait_for(lambda: not slurm.jobs(), 10)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_doctor_that_is_stopped_leaves_nothing(slurm: Slurm, folder: Path, sent: signal.Signals) -> None:
    (folder / "cluster.toml").write_text('[profiles.lab]\nkind = "slurm"\npartition = "cpu"\nextra = ["--hold"]\n')
    command = [sys.executable, "-m", "neuroloom.cli", "cluster", "doctor", "lab", "-p", str(folder)]
    doctor = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        slurm.wait_for(lambda: bool(slurm.jobs()), 60)
        time.sleep(0.5)
        doctor.send_signal(sent)
        output, _ = doctor.communicate(timeout=600)
    finally:
        doctor.kill()
    assert doctor.returncode == 130, output
    assert "All jobs of the doctor are cancelled" in output
    slurm.wait_for(lambda: not slurm.jobs(), 10)
    assert not list(folder.rglob(".neuroloom-doctor-*"))
