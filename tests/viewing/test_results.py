"""Which layers a project's volume has."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from neuroloom.errors import UserError
from neuroloom.files import write_json, write_text
from neuroloom.project import Project, load_project
from neuroloom.segmentation import save_lookup
from neuroloom.viewing import project_layers
from neuroloom.viewing.layers import array_files, check_layers
from neuroloom.viewing.results import finished_results
from neuroloom.volume import create_volume, open_volume

SHAPE, VOXEL_SIZE = (8, 8, 8), (8.0, 8.0, 8.0)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    for name in ("train", "validation"):
        create_volume(tmp_path / f"{name}.zarr", "volumes/raw", SHAPE, "uint8", VOXEL_SIZE)
        create_volume(tmp_path / f"{name}.zarr", "volumes/labels/neuron_ids", SHAPE, "uint64", VOXEL_SIZE)
    write_text(
        tmp_path / "neuroloom.toml",
        "voxel_size = [8, 8, 8]\n"
        '[[volumes.train]]\nname = "train"\npath = "train.zarr"\n'
        '[[volumes.validate]]\nname = "validation"\npath = "validation.zarr"\n'
        '[[volumes.predict]]\nname = "new"\npath = "train.zarr"\n',
    )
    return load_project(tmp_path)


def finish(project: Project, step: str, fingerprint: str, when: int, **sources: str) -> Path:
    """A result as a stage leaves it."""
    folder = project.result_folder("validation", step, fingerprint)
    shape = (3, *SHAPE) if step == "affinities" else SHAPE
    create_volume(folder / f"{step}.zarr", step, shape, "uint8" if step == "affinities" else "uint64", VOXEL_SIZE)
    inputs = {name: {"path": "p", "dataset": "d", "fingerprint": value} for name, value in sources.items()}
    write_json(folder / "stage.json", {"stage": step, "fingerprint": fingerprint, "parameters": inputs})
    write_json(folder / "done.json", {})
    os.utime(folder / "done.json", (when, when))
    return folder


def names(project: Project, volume: str | None = None) -> dict[str, bool]:
    return {layer.name: layer.visible for layer in project_layers(project, volume)}


def test_without_results_raw_and_truth_are_shown(project: Project) -> None:
    assert names(project, "validation") == {"raw": True, "truth": True}
    assert names(project, "new") == {"raw": True}


def test_the_last_finished_step_is_switched_on(project: Project) -> None:
    finish(project, "affinities", "a" * 64, 1)
    assert names(project) == {"raw": True, "affinities": True, "truth": False}
    finish(project, "fragments", "f" * 64, 2, affinities="a" * 64)
    assert names(project) == {"raw": True, "affinities": False, "fragments": True, "truth": False}
    finish(project, "segmentation", "5" * 64, 3, fragments="f" * 64)
    layers = project_layers(project)
    assert [layer.name for layer in layers] == ["raw", "affinities", "fragments", "truth", "segmentation"]
    assert [layer.name for layer in layers if layer.visible] == ["raw", "segmentation"]
    assert [layer.kind for layer in layers] == ["image", "affinities", "labels", "labels", "labels"]


def test_results_that_belong_together_are_shown_together(project: Project) -> None:
    finish(project, "affinities", "a" * 64, 1)
    fragments = finish(project, "fragments", "f" * 64, 2, affinities="a" * 64)
    finish(project, "segmentation", "5" * 64, 3, fragments="f" * 64)
    # later than the segmentation, and of other parameters
    finish(project, "affinities", "b" * 64, 4)
    finish(project, "fragments", "e" * 64, 5, affinities="b" * 64)
    found = finished_results(project, "validation")
    assert found["fragments"] == fragments
    assert found["affinities"].name == "affinities-" + "a" * 12
    newer = finish(project, "segmentation", "6" * 64, 6, fragments="e" * 64)
    assert finished_results(project, "validation")["segmentation"] == newer
    assert finished_results(project, "validation")["affinities"].name == "affinities-" + "b" * 12


def test_a_segmentation_that_is_not_written_is_made_of_fragments(project: Project) -> None:
    fragments = finish(project, "fragments", "f" * 64, 2, affinities="a" * 64)
    labels = np.arange(512, dtype=np.uint64).reshape(SHAPE) // np.uint64(10)
    open_volume(fragments / "fragments.zarr", "fragments").write((0, 0, 0), labels)
    folder = finish(project, "segmentation", "5" * 64, 3, fragments="f" * 64)
    shutil.rmtree(folder / "segmentation.zarr")
    described = json.loads((folder / "stage.json").read_text())
    described["parameters"]["threshold"] = 0.25
    write_json(folder / "stage.json", described)
    ids = np.arange(1, 60, dtype=np.uint64)
    save_lookup(np.stack([ids, (ids + np.uint64(2)) // np.uint64(3)]), folder, 0.25)
    shown = project_layers(project)[-1]
    assert (shown.name, shown.kind, shown.visible) == ("segmentation", "labels", True)
    wanted = np.where(labels > 0, (labels + np.uint64(2)) // np.uint64(3), 0)
    np.testing.assert_array_equal(shown.volume.read(), wanted)
    check_layers([shown])
    files = array_files(shown.volume)
    assert not isinstance(files, Path)
    np.testing.assert_array_equal(np.frombuffer(files("0.0.0") or b"", "<u8").reshape(SHAPE), wanted)
    shutil.rmtree(fragments)
    with pytest.raises(UserError, match="fragments it was made from are gone"):
        project_layers(project)


def test_unfinished_results_are_left_out(project: Project) -> None:
    folder = finish(project, "affinities", "a" * 64, 1)
    (folder / "done.json").unlink()
    assert names(project, "validation") == {"raw": True, "truth": True}


def test_a_wrong_name_is_answered_with_the_nearest(project: Project) -> None:
    with pytest.raises(UserError, match="did you mean 'validation'"):
        project_layers(project, "validaton")
