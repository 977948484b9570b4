"""`train --plan` and `train --minutes` on a small project."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from neuroloom.networks import architecture
from neuroloom.networks.setups import network_parameters
from neuroloom.networks.unet import UNet
from neuroloom.project import FILE_NAME, load_project
from small_project import make_project, neuroloom


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "p")


def files(project: Path) -> set[str]:
    return {str(path.relative_to(project)) for path in project.rglob("*") if ".zarr" not in str(path)}


def test_plan_says_what_training_takes_and_keeps_nothing(project: Path) -> None:
    before = files(project)
    result = neuroloom("train", "acrlsd", "--plan", "--json", "--project", project)
    assert result.returncode == 0, result.stderr
    plan = json.loads(result.stdout)
    assert files(project) == before
    network = load_project(project).parameters.network
    acrlsd, lsd = (network_parameters(setup, network) for setup in ("acrlsd", "lsd"))
    assert plan["weights"] == sum(weight.numel() for weight in UNet(acrlsd).parameters())
    assert plan["frozen_weights"] == sum(weight.numel() for weight in UNet(lsd).parameters())
    inner = architecture.input_shape(acrlsd, (16, 16, 16))
    assert tuple(plan["raw"]) >= architecture.input_shape(lsd, inner)
    assert plan["flop"] == 3 * architecture.flop(acrlsd, inner) + architecture.flop(lsd, plan["raw"])
    assert plan["sees"] == [(r - 16) // 2 for r in plan["raw"]]
    assert (plan["steps"], plan["batch_size"], plan["precision"], plan["device"]) == (12, 1, "fp32", "cpu")
    assert plan["seconds"] == pytest.approx(12 * plan["seconds_per_step"])
    assert 0 < plan["seconds_per_step"] < 60
    assert plan["scoring_seconds"] > 0
    assert 0 < plan["memory"] < plan["memory_there"]


def test_plan_in_words(project: Path) -> None:
    result = neuroloom("train", "lsd", "--plan", "--project", project)
    assert result.returncode == 0, result.stderr
    for words in ("16 x 16 x 16 voxels of output", "one crop per step", "s per step on cpu, measured in 10 steps"):
        assert words in result.stdout
    assert "frozen" not in result.stdout
    assert "scores" not in result.stdout
    assert result.stdout.rstrip().endswith("To begin: neuroloom train lsd")


@pytest.mark.parametrize("option", [("--plan",), ("--minutes", "5")])
def test_what_times_steps_here_is_refused_with_a_cluster(
    call: Callable[..., tuple[int, str, str]], option: tuple[str, ...]
) -> None:
    code, _, said = call("train", "lsd", "--on", "lab", *option)
    assert (code, said.strip()) == (
        2, "--plan and --minutes time steps on this machine; give them without --on."
    )  # fmt: skip


def test_json_without_plan_is_refused(project: Path) -> None:
    result = neuroloom("train", "lsd", "--json", "--project", project)
    assert (result.returncode, result.stderr.strip()) == (2, "--json goes with --plan.")


@pytest.mark.parametrize("option", [("--minutes", "5"), ("--from", "best.ckpt")])
def test_a_plan_changes_nothing(project: Path, option: tuple[str, str]) -> None:
    before = (project / FILE_NAME).read_bytes()
    result = neuroloom("train", "lsd", "--plan", *option, "--project", project)
    assert (result.returncode, result.stderr.strip()) == (
        2,
        "--plan changes nothing; give --minutes or --from without it.",
    )
    assert (project / FILE_NAME).read_bytes() == before


def test_minutes_become_steps_that_are_kept(project: Path) -> None:
    arguments = ("train", "lsd", "--minutes", "0.01", "--project", project)
    result = neuroloom(*arguments)
    assert result.returncode == 0, result.stderr
    length = load_project(project).parameters.training.lsd
    assert (length.minutes, load_project(project).parameters.training.affinities.iterations) == (0.01, 12)
    assert f"`training.lsd.iterations = {length.iterations}` is written into" in result.stdout
    (folder,) = (project / "training").iterdir()
    assert json.loads((folder / "done.json").read_text())["steps"] == length.iterations
    # the same time again is the same training, however fast the machine is by now
    before = (project / FILE_NAME).read_text()
    again = neuroloom(*arguments)
    assert again.returncode == 0
    assert "Timing" not in again.stdout
    assert (project / FILE_NAME).read_text() == before
    assert [path.name for path in (project / "training").iterdir()] == [folder.name]
