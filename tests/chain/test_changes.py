"""Why a step will be done again: parameters as the project file calls them, or content."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from neuroloom.chain import Chain, all_steps, open_project
from neuroloom.chain.artifacts import _fingerprint
from neuroloom.chain.changes import Change, in_words
from neuroloom.files import write_json, write_text
from neuroloom.fragments.stage import Fragments
from neuroloom.project import FILE_NAME
from neuroloom.project.template import render
from small_model import save_weights
from small_project import VALUES, make_project, make_volume

GIVEN = {"prediction": {"block": [16, 24, 24], "model": "weights.ckpt"}, "segmentation": {"threshold": 0.5}}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of given weights whose steps have been described, as if they were done."""
    folder = make_project(tmp_path / "p", GIVEN)
    save_weights(folder / "weights.ckpt", "affs")
    describe(folder)
    return folder


def describe(folder: Path) -> None:
    chain = Chain(open_project(folder))
    volume = chain.volume("val")
    for stage in (chain.predict(volume), chain.fragments(volume), chain.agglomerate(volume), chain.segment(volume)):
        assert stage is not None
        stage.describe()


def changes(folder: Path, **values: Any) -> dict[str, list[str]]:
    """By step, what has changed with other sections of the project."""
    write_text(folder / FILE_NAME, render({**VALUES, **GIVEN, **values}))
    return {step.name: [str(change) for change in step.changes] for step in all_steps(Chain(open_project(folder)))}


def test_nothing_is_said_where_nothing_was_done_or_changed(project: Path, tmp_path: Path) -> None:
    fresh = make_project(tmp_path / "fresh", GIVEN)
    save_weights(fresh / "weights.ckpt", "affs")
    for folder in (project, fresh):
        assert not any(changes(folder).values())


def test_a_parameter_is_named_for_all_steps_that_depend_on_it(project: Path) -> None:
    found = changes(project, fragments={**VALUES["fragments"], "threshold": 0.6})
    expected = ["fragments.threshold 0.5 -> 0.6"]
    assert found["predict val"] == []
    assert found["fragments val"] == found["agglomerate val"] == found["segment val"] == expected
    steps = {step.name: step for step in all_steps(Chain(open_project(project)))}
    assert steps["fragments val"].why == "8 blocks; changed since the last time: fragments.threshold 0.5 -> 0.6"


@pytest.mark.parametrize(
    ("section", "values", "step", "expected"),
    [
        ("prediction", {"block": [16, 16, 24]}, "segment", ["prediction.block [16, 24, 24] -> [16, 16, 24]"]),
        ("prediction", {"mirrors": 2}, "predict", ["prediction.mirrors 1 -> 2"]),
        ("agglomeration", {"method": "mutex_watershed"}, "agglomerate", None),
        ("agglomeration", {"context": [9, 9, 9]}, "agglomerate", ["agglomeration.context [8, 8, 8] -> [9, 9, 9]"]),
        ("segmentation", {"threshold": 0.25}, "segment", ["segmentation.threshold 0.5 -> 0.25"]),
        ("segmentation", {"orphans": 50}, "segment", ["segmentation.orphans 0 -> 50"]),
    ],
)
def test_parameters_are_called_as_in_the_project_file(
    project: Path, section: str, values: dict[str, Any], step: str, expected: list[str] | None
) -> None:
    before = GIVEN.get(section) or VALUES[section]
    found = changes(project, **{section: {**before, **values}})[f"{step} val"]
    assert found == (expected or ["agglomeration.method hierarchical -> mutex_watershed"])


def test_a_parameter_that_makes_no_difference_is_not_named(project: Path) -> None:
    """`bias` is not looked at by this method."""
    agglomeration = {**VALUES["agglomeration"], "context": [9, 9, 9], "bias": 0.4}
    found = changes(project, agglomeration=agglomeration)
    assert found["agglomerate val"] == ["agglomeration.context [8, 8, 8] -> [9, 9, 9]"]


def test_other_content_is_named(project: Path) -> None:
    shutil.rmtree(project / "data" / "val.zarr")
    make_volume(project / "data" / "val.zarr", 7, (30, 40, 44))
    save_weights(project / "weights.ckpt", "affs", seed=3)
    _fingerprint.cache_clear()
    found = changes(project)
    assert sorted(found["predict val"]) == ["network", "raw"]
    assert sorted(found["segment val"]) == ["network", "raw"]


def test_the_newest_of_several_results_counts(project: Path) -> None:
    write_text(project / FILE_NAME, render({**VALUES, **GIVEN, "fragments": {**VALUES["fragments"], "threshold": 0.7}}))
    describe(project)
    results = project / "results" / "val"
    old, new = sorted(results.glob("fragments-*/stage.json"), key=lambda file: '"threshold": 0.7' in file.read_text())
    for file, when in ((old, 1e9), (new, 2e9)):
        os.utime(file, (when, when))
    found = changes(project, fragments={**VALUES["fragments"], "threshold": 0.6})
    assert found["fragments val"] == ["fragments.threshold 0.7 -> 0.6"]


def test_another_version_of_a_step_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fragments, "version", Fragments.version + 1)
    found = changes(project)
    assert found["fragments val"] == found["agglomerate val"] == ["how neuroloom does fragments"]


def test_a_description_that_is_gone_or_damaged_hides_only_what_it_would_tell(project: Path) -> None:
    for file in project.glob("results/val/affinities-*/stage.json"):
        file.write_text("{")
    assert changes(project, prediction={**GIVEN["prediction"], "mirrors": 2})["fragments val"] == ["affinities"]


def test_what_has_changed_of_a_training_and_of_those_before_it(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "p", {"segmentation": {"threshold": 0.5}})
    _as_if_trained(folder, "lsd")
    _as_if_trained(folder, "acrlsd")
    describe(folder)
    values = {"segmentation": {"threshold": 0.5}, "training": {**VALUES["training"], "learning_rate": 0.02}}
    write_text(folder / FILE_NAME, render({**VALUES, **values}))
    steps = {step.name: step for step in all_steps(Chain(open_project(folder)))}
    expected = "changed since the last time: training.learning_rate 0.01 -> 0.02"
    assert steps["train lsd"].why == f"4 steps; {expected}"
    assert steps["predict val"].why == "waits for what comes before"
    _as_if_trained(folder, "lsd")
    steps = {step.name: step for step in all_steps(Chain(open_project(folder)))}
    assert steps["train acrlsd"].why == f"12 steps; {expected}"
    _as_if_trained(folder, "acrlsd")
    steps = {step.name: step for step in all_steps(Chain(open_project(folder)))}
    assert steps["predict val"].why.endswith(expected)
    assert steps["segment val"].why.endswith(expected)


def test_how_long_and_on_what_a_network_is_trained(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "p")
    _as_if_trained(folder, "lsd")
    training = {**VALUES["training"], "lsd": {"iterations": 5}, "augmentation": {"noise": 0.5}}
    volume = {**VALUES["volumes"]["train"][0], "unlabelled": "ignore"}
    volumes = {**VALUES["volumes"], "train": [volume]}
    values = {"training": training, "network": {**VALUES["network"], "growth": 3}, "volumes": volumes}
    write_text(folder / FILE_NAME, render({**VALUES, **values}))
    first = all_steps(Chain(open_project(folder)))[0]
    assert sorted(map(str, first.changes)) == [
        "network.growth 2 -> 3",
        "training.augmentation.noise 0.0 -> 0.5",
        "training.lsd.iterations 4 -> 5",
        "unlabelled of train background -> ignore",
    ]
    more = [volume, {"name": "more", "path": "data/val.zarr"}]
    write_text(folder / FILE_NAME, render({**VALUES, "volumes": {"train": more}}))
    changed = all_steps(Chain(open_project(folder)))[0].changes
    assert Change("volumes.train", ["train"], ["train", "more"]) in changed
    assert "volumes.train ['train'] -> ['train', 'more']" in in_words(changed)


def _as_if_trained(folder: Path, setup: str) -> None:
    """Leave what a training leaves, but for its work."""
    chain = Chain(open_project(folder))
    job, place = chain.job(setup), chain.training_folder(setup)
    assert job is not None
    assert place is not None
    write_text(place / "job.json", job.model_dump_json())
    (place / "best.ckpt").write_text(place.name)
    summary = {"best_voi": None, "best_validation_loss": 0.1, "steps": job.iterations, "seconds": 1.0}
    write_json(place / "done.json", {"checkpoint": "best.ckpt", "checkpoint_sha256": place.name * 4, **summary})
