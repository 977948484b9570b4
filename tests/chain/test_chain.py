"""The whole chain as a user runs it: once, again, after a change, and after being killed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from neuroloom.chain import Chain, all_steps, open_project
from neuroloom.chain.artifacts import choose
from neuroloom.chain.estimates import baseline_iterations, step_operations
from neuroloom.chain.report import _summary
from neuroloom.evaluation.thresholds import Evaluation, evaluate_segmentation
from small_project import VALUES, make_project, neuroloom

pytestmark = pytest.mark.system


def segmentation_hash(project: Path) -> str:
    chain = Chain(open_project(project))
    stage = chain.segment(chain.volume("val"))
    assert stage is not None
    assert stage.is_done()
    return hashlib.sha256(stage.output.open().read().tobytes()).hexdigest()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = make_project(tmp_path_factory.mktemp("finished") / "p")
    result = neuroloom("run", "--project", project)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "to do   train lsd" in result.stdout
    assert "Left: roughly" in result.stdout
    assert "VOI sum on val" in result.stdout
    assert "report.html" in result.stdout
    return project


def test_everything_is_there(finished: Path) -> None:
    chain = Chain(open_project(finished))
    assert all(step.state == "done" for step in all_steps(chain))
    assert chain.project.threshold is not None
    assert "lowest VOI sum" in (chain.parameters.segmentation.chosen_because or "")
    volume = chain.volume("val")
    predict, segment = chain.predict(volume), chain.segment(volume)
    assert predict is not None
    assert segment is not None
    assert predict.output.open().read().shape == (3, 30, 40, 44)
    assert segment.output.open().read().shape == (30, 40, 44)
    page = (finished / "report.html").read_text()
    assert "<svg" in page
    assert "data:image/png" in page
    for setup in ("lsd", "acrlsd"):
        folder = chain.training_folder(setup)
        assert folder is not None
        assert list((folder / "snapshots").glob("*.png"))
        assert list((folder / "tensorboard").iterdir())


def test_scores_of_a_volume_that_is_trained_on_are_called_so(finished: Path, tmp_path: Path) -> None:
    honest = Chain(open_project(finished))
    scored = honest.evaluation(honest.validation_volumes[0])
    assert "which was never trained on" in (finished / "report.html").read_text()
    assert "is trained on as well" not in neuroloom("status", "--project", finished).stdout
    volumes = {**VALUES["volumes"], "validate": [{"name": "val", "path": "../p/data/train.zarr"}]}
    project = make_project(tmp_path / "p", {"volumes": volumes})
    result = neuroloom("run", "--dry-run", "--project", project)
    assert result.returncode == 0
    assert "Note: val is trained on as well; its scores say little of other volumes." in result.stdout
    chain = Chain(open_project(project))
    assert "which was trained on as well" in _summary(chain, chain.validation_volumes[0], scored)


def test_a_second_run_does_nothing_again(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("done.json")}
    result = neuroloom("run", "--project", finished)
    assert result.returncode == 0
    assert "Everything is done" in result.stdout
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("done.json")} == before


def test_status_and_plan_for_scripts(finished: Path) -> None:
    content = json.loads(neuroloom("status", "--project", finished, "--json").stdout)
    assert {step["state"] for step in content["steps"]} == {"done"}
    plan = json.loads(neuroloom("run", "--project", finished, "--dry-run", "--json").stdout)
    assert [step["name"] for step in plan["steps"]] == [step["name"] for step in content["steps"]]


def test_a_changed_parameter_repeats_what_depends_on_it_and_nothing_else(finished: Path, tmp_path: Path) -> None:
    import shutil

    # paths are part of a volume's identity, so change the project in place and put it back
    file = finished / "neuroloom.toml"
    original = file.read_text()
    try:
        file.write_text(original.replace('"hist_quant_75"', '"mean"'))
        steps = {step.name: step.state for step in all_steps(Chain(open_project(finished)))}
        assert {name for name, state in steps.items() if state != "done"} == {
            "agglomerate val",
            "evaluate val",
            "choose threshold",
            "segment val",
        }
        file.write_text(original.replace("iterations = 4", "iterations = 5"))
        steps = {step.name: step.state for step in all_steps(Chain(open_project(finished)))}
        assert set(steps.values()) == {"to do"}
        file.write_text(original.replace("snapshot_every = 4", "snapshot_every = 3"))
        assert all(step.state == "done" for step in all_steps(Chain(open_project(finished))))
    finally:
        file.write_text(original)
    shutil.rmtree(tmp_path)


def test_a_segmentation_need_not_be_written(finished: Path) -> None:
    import shutil

    chain = Chain(open_project(finished))
    volume = chain.volume("val")
    written, table = chain.segment(volume), chain.segment(volume, materialize=False)
    assert written is not None
    assert table is not None
    result = neuroloom("segment", "val", "--no-materialize", "--project", finished)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"Table of val at threshold {table.threshold:g}: {table.lookup_file}" in result.stdout
    assert table.is_done()
    assert not Path(table.output.path).exists()
    np.testing.assert_array_equal(table.open().read(), written.open().read())
    file, page = finished / "neuroloom.toml", finished / "report.html"
    original, report = file.read_text(), page.read_text()
    try:
        file.write_text(original.replace("materialize = true", "materialize = false"))
        assert not Chain(open_project(finished)).parameters.segmentation.materialize
        assert neuroloom("report", "--project", finished).returncode == 0
        assert page.read_text().count("data:image/png") == report.count("data:image/png")
    finally:
        file.write_text(original)
        page.write_text(report)
        shutil.rmtree(table.folder)


def test_one_command_for_every_step_says_what_comes_first(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    for command, said in (
        (("predict",), "needs a trained network"),
        (("fragments",), "run `neuroloom predict val` first"),
        (("agglomerate",), "run `neuroloom fragments val` first"),
        (("evaluate",), "Run `neuroloom agglomerate val` first"),
        (("segment",), "No threshold is chosen yet"),
        (("segment", "--threshold", "0.5"), "Run `neuroloom agglomerate val` first"),
        (("train", "acrlsd"), "Run `neuroloom train lsd` first"),
        (("train", "lsds"), "no setup 'lsds'"),
        (("predict", "nothing"), "no volume 'nothing'"),
    ):
        result = neuroloom(*command, "--project", project)
        assert result.returncode == 2, result.stdout + result.stderr
        assert said in result.stderr
        assert "Traceback" not in result.stderr


def test_killed_again_and_again_the_result_is_the_same(finished: Path, tmp_path: Path) -> None:
    # the same volumes at the same place, so that fingerprints are equal: only results are removed
    import shutil

    expected = segmentation_hash(finished)
    aside = tmp_path / "aside"
    aside.mkdir()
    for name in ("training", "results", "evaluation"):
        shutil.move(finished / name, aside / name)
    file = finished / "neuroloom.toml"
    file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.startswith("chosen_")))
    said = tmp_path / "said.txt"
    # what has just begun when the run is killed: a training state, then the marker of each stage's beginning
    marks = ["training/lsd-*/state.pt", "training/acrlsd-*/state.pt"]
    marks += [
        f"results/val/{step}-*/stage.json" for step in ("affinities", "fragments", "agglomeration", "segmentation")
    ]
    for mark in marks:
        command = [sys.executable, "-m", "neuroloom.cli", "run", "--project", str(finished)]
        with open(said, "w") as output:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        deadline = time.monotonic() + 240
        while not list(finished.glob(mark)):
            assert process.poll() is None, f"ended before there was {mark}: {said.read_text()}"
            assert time.monotonic() < deadline, f"no {mark}: {said.read_text()}"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=600) == -signal.SIGKILL, f"ended before it could be killed: {said.read_text()}"
    result = neuroloom("run", "--project", finished)
    assert result.returncode == 0, result.stdout + result.stderr
    assert segmentation_hash(finished) == expected


def test_the_choice_averages_the_volumes() -> None:
    truth = np.arange(8, dtype=np.uint64).reshape(2, 2, 2) + 1

    def scored(good: float, bad: float) -> Evaluation:
        right = evaluate_segmentation(truth, truth, threshold=good, connected=False)
        wrong = evaluate_segmentation(np.ones_like(truth), truth, threshold=bad, connected=False)
        entries = tuple(sorted((*right.thresholds, *wrong.thresholds), key=lambda entry: entry.threshold))
        return right.model_copy(update={"thresholds": entries})

    threshold, because = choose({"a": scored(0.2, 0.1), "b": scored(0.2, 0.1)})
    assert threshold == 0.2
    assert "0.000 bits on a, b" in because
    assert "end of the list" in because
    assert choose({"a": scored(0.2, 0.1), "b": scored(0.1, 0.2)})[0] == 0.1  # equal: the lower


def test_the_baseline_costs_as_much_computing(finished: Path) -> None:
    project = open_project(finished)
    steps = baseline_iterations(project)
    both = 4 * step_operations(project, "lsd") + 12 * step_operations(project, "acrlsd")
    assert steps * step_operations(project, "affs") == pytest.approx(both, rel=0.1)
    baseline = Chain(open_project(finished)).baseline()
    assert baseline is None  # not asked for
