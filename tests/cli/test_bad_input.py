"""Every user mistake on the way through the chain: its own sentence, exit code 2, nothing half-written."""

from __future__ import annotations

import codecs
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuroloom.chain import Chain, all_steps, open_project
from neuroloom.project import load_project
from neuroloom.volume import create_volume, open_volume
from small_project import VALUES, make_project

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("bad") / "p")


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "p"))


def replace(project: Path, name: str, data: np.ndarray[Any, Any], voxel_size: tuple[float, ...] = (8, 8, 8)) -> None:
    path = project / "data" / "train.zarr"
    create_volume(path, name, data.shape, data.dtype, voxel_size, overwrite=True).write((0, 0, 0), data)


def missing_dataset(project: Path) -> None:
    shutil.rmtree(project / "data" / "train.zarr" / "volumes" / "labels" / "neuron_ids")


def other_shape(project: Path) -> None:
    replace(project, "volumes/labels/neuron_ids", np.ones((40, 44, 47), np.uint64))


def other_voxel_size(project: Path) -> None:
    replace(project, "volumes/raw", np.ones((40, 44, 48), np.uint8), (8, 8, 9))


def empty_mask(project: Path) -> None:
    replace(project, "volumes/labels/mask", np.zeros((40, 44, 48), np.uint8))


def float_labels(project: Path) -> None:
    replace(project, "volumes/labels/neuron_ids", np.ones((40, 44, 48), np.float32))


def nan_in_raw(project: Path) -> None:
    raw = np.full((40, 44, 48), 0.5, np.float32)
    raw[20, 20, 20] = np.nan
    replace(project, "volumes/raw", raw)


def truncated_chunk(project: Path) -> None:
    chunk = next(
        p for p in sorted((project / "data" / "train.zarr" / "volumes" / "raw" / "c").rglob("*")) if p.is_file()
    )
    chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])


def small_volume(project: Path) -> None:
    for name, kind in (("raw", np.uint8), ("labels/neuron_ids", np.uint64), ("labels/mask", np.uint8)):
        replace(project, f"volumes/{name}", np.ones((10, 44, 48), kind))


def missing_volume(project: Path) -> None:
    (project / "data" / "train.zarr").rename(project / "data" / "trains.zarr")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (missing_dataset, "holds no dataset 'volumes/labels/neuron_ids'"),
        (other_shape, "they must be equal"),
        (other_voxel_size, "they must agree"),
        (empty_mask, "nothing to learn from"),
        (float_labels, "labels must be whole numbers"),
        (nan_in_raw, "holds NaN"),
        (truncated_chunk, "truncated or damaged"),
        (small_volume, "smaller than"),
        (missing_volume, "did you mean"),
    ],
)
def test_bad_volumes(project: Path, call: Call, spoil: Callable[[Path], None], said: str) -> None:
    spoil(project)
    code, _, error = call("run", "--project", project)
    assert code == 2, error
    assert said in error
    assert "Traceback" not in error
    assert not list(project.rglob("done.json"))
    assert not list(project.rglob("*.ckpt"))
    assert not list(project.rglob("lock"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose two networks are trained."""
    project = make_project(tmp_path_factory.mktemp("trained") / "p")
    chain = Chain(open_project(project))
    for setup in ("lsd", "acrlsd"):
        chain.train(setup, lambda done, total, words: None)
    return project


def folder_of(project: Path, setup: str) -> Path:
    folder = Chain(open_project(project)).training_folder(setup)
    assert folder is not None
    return folder


def test_damaged_checkpoint(trained: Path, call: Call) -> None:
    checkpoint = folder_of(trained, "acrlsd") / "best.ckpt"
    whole = checkpoint.read_bytes()
    try:
        checkpoint.write_bytes(whole[: len(whole) // 2])
        code, _, error = call("predict", "--project", trained)
        assert code == 2
        assert "damaged or was replaced" in error
        checkpoint.unlink()
        code, _, error = call("predict", "--project", trained)
        assert code == 2
        assert str(checkpoint) in error
    finally:
        checkpoint.write_bytes(whole)


def test_damaged_descriptor_checkpoint(trained: Path, tmp_path: Path, call: Call) -> None:
    project = trained
    checkpoint = folder_of(project, "lsd") / "best.ckpt"
    whole, acrlsd = checkpoint.read_bytes(), folder_of(project, "acrlsd")
    aside = tmp_path / "aside"
    shutil.move(acrlsd, aside)
    try:
        checkpoint.write_bytes(whole[:1000])
        code, _, error = call("train", "acrlsd", "--project", project)
        assert code == 2
        assert str(checkpoint) in error
    finally:
        checkpoint.write_bytes(whole)
        shutil.rmtree(acrlsd, ignore_errors=True)
        shutil.move(aside, acrlsd)


def test_another_run_writes_the_same_output(trained: Path, call: Call) -> None:
    chain = Chain(open_project(trained))
    stage = chain.predict(chain.volume("val"))
    assert stage is not None
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        stage.folder.mkdir(parents=True, exist_ok=True)
        owner = {"host": os.uname().nodename, "pid": other.pid, "started": "now"}
        (stage.folder / "lock").write_text(json.dumps(owner))
        code, _, error = call("predict", "--project", trained)
        assert code == 2
        assert f"process {other.pid}" in error
    finally:
        other.kill()
        other.wait()
        shutil.rmtree(stage.folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
@pytest.mark.parametrize(("options", "said"), [("size=64k", "No room left"), ("ro", "cannot be written")])
def test_full_and_read_only_disks(trained: Path, call: Call, options: str, said: str) -> None:
    results = trained / "results"
    results.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(results)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no mounts here: {mounted.stderr.strip()}")
    try:
        code, _, error = call("predict", "--project", trained)
        assert code == 2, error
        assert said in error
        assert not list(results.rglob("done.json"))
    finally:
        subprocess.run(["umount", str(results)], check=True)


def test_a_truncated_chunk_of_raw_is_named_while_predicting(trained: Path, call: Call) -> None:
    path = trained / "data" / "val.zarr" / "volumes" / "raw"
    chunk = next(p for p in sorted((path / "c").rglob("*")) if p.is_file())
    whole, times = chunk.read_bytes(), chunk.stat()
    try:
        chunk.write_bytes(whole[: len(whole) // 2])
        code, _, error = call("run", "--project", trained)
        assert code == 2
        assert "truncated or damaged" in error
    finally:
        chunk.write_bytes(whole)
        os.utime(chunk, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_crop_that_the_network_cannot_give(project: Path, call: Call) -> None:
    file = project / "neuroloom.toml"
    file.write_text(file.read_text().replace("crop = [16, 16, 16]", "crop = [16, 17, 16]"))
    code, _, error = call("run", "--project", project, "--dry-run")
    assert code == 2
    assert "`training.crop` is [16, 17, 16]" in error
    assert "[16, 18, 16]" in error


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("sigma_nm = 40.0", "sigma_nm = 5000", r"line \d+: `training.sigma_nm` is 5000: .*expected 64 or less"),
        (
            "learning_rate = 0.01",
            "learning_rate = 1e30",
            r"line \d+: `training.learning_rate` is 1e\+30; expected less than",
        ),
        ("[0, 0, -1]]", "[0, 0, -1], [-500, 0, 0]]", r"line \d+: `training.neighborhood` has \[-500, 0, 0\], .* known"),
        ('device = "cpu"', 'device = "cuda:0,cuda:1"', r"cannot share a step of 1 crop"),
        ("batch_size = 1", "batch_size = 4\nat_once = 3 #", r"`at_once` is 3; expected a divisor of `batch_size`, 4"),
    ],
)
def test_trainings_that_cannot_be(project: Path, call: Call, old: str, new: str, said: str) -> None:
    file = project / "neuroloom.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    code, _, error = call("train", "lsd", "--project", project)
    assert code == 2
    assert re.search(said, error), error
    assert not (project / "training").exists() or not list((project / "training").glob("*/state.pt"))


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="two GPUs are there")
def test_gpus_that_are_not_there(project: Path, call: Call) -> None:
    file = project / "neuroloom.toml"
    text = (
        file.read_text()
        .replace('device = "cpu"', 'device = "cuda:0,cuda:1"')
        .replace("batch_size = 1", "batch_size = 2")
    )
    file.write_text(text)
    code, _, error = call("train", "lsd", "--project", project)
    assert code == 2
    assert "is not to be had on this machine" in error


def test_a_project_file_that_is_no_text(project: Path, call: Call) -> None:
    (project / "neuroloom.toml").write_bytes(b"\xff\xfe")
    code, _, error = call("status", "--project", project)
    assert code == 2
    assert "no UTF-8 text" in error


def test_a_project_file_that_begins_with_a_mark_of_its_encoding(project: Path, call: Call) -> None:
    file = project / "neuroloom.toml"
    file.write_bytes(codecs.BOM_UTF8 + file.read_bytes())
    code, _, error = call("run", "--dry-run", "--project", project)
    assert (code, error) == (0, "")
    load_project(project).choose_threshold(0.5, "it suits")
    assert load_project(project).threshold == 0.5


@pytest.mark.parametrize(
    ("place", "said"), [("file", r"\(File exists\)"), ("file/project", "a file lies where a folder is needed")]
)
def test_a_file_where_a_folder_is_needed(tmp_path: Path, call: Call, place: str, said: str) -> None:
    (tmp_path / "file").write_text("")
    code, _, error = call("init", tmp_path / place)
    assert code == 2
    assert re.search(rf"{place} cannot be made.*{said}.*Choose another place\.", error), error


@pytest.mark.parametrize(
    "command",
    [
        ("init", "PLACE"),
        ("sample", "PLACE", "--shape", "16,16,16"),
        ("import", "PLACE", "--raw", "r.npy", "--voxel-size", "8"),
    ],
)
def test_places_that_cannot_be(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, command: Sequence[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("r.npy", np.full((16, 16, 16), 90, np.uint8))
    for place, said in (
        ("n" * 300, "too long"),
        ("r.npy/v.zarr", r"r\.npy.* cannot be made \((Not a directory|File exists)\)"),
        (
            "/proc/nowhere/v.zarr",
            r"/proc/nowhere.* cannot be made \(No such file or directory\)\. Choose another place\.",
        ),
    ):
        code, _, error = call(*(place if word == "PLACE" else word for word in command))
        assert code == 2, (place, error)
        assert re.search(said, error), error
    assert [path.name for path in tmp_path.iterdir()] == ["r.npy"]


def test_a_damaged_curve(trained: Path, call: Call) -> None:
    curve = folder_of(trained, "acrlsd") / "curve.jsonl"
    whole = curve.read_text()
    try:
        curve.write_text(whole[:-10])
        code, _, error = call("report", "--project", trained)
        assert code == 2
        assert f"{curve} is damaged. Delete {curve.parent} to do that step again." in error
    finally:
        curve.write_text(whole)


def test_a_damaged_marker(trained: Path, call: Call) -> None:
    marker = folder_of(trained, "acrlsd") / "done.json"
    whole = marker.read_text()
    try:
        marker.write_text("{bad")
        code, _, error = call("status", "--project", trained)
        assert code == 2
        assert f"{marker} is damaged" in error
    finally:
        marker.write_text(whole)


def test_the_project_file_is_kept_by_init(project: Path, call: Call) -> None:
    before = (project / "neuroloom.toml").read_text()
    code, _, error = call("init", project)
    assert code == 2
    assert "exists already" in error
    assert (project / "neuroloom.toml").read_text() == before


def test_descriptors_of_another_sigma_are_trained_again(trained: Path) -> None:
    file = trained / "neuroloom.toml"
    original = file.read_text()
    try:
        file.write_text(original.replace("sigma_nm = 40.0", "sigma_nm = 48.0"))
        states = {step.name: step.state for step in all_steps(Chain(open_project(trained)))}
        assert states["train lsd"] == states["train acrlsd"] == "to do"
    finally:
        file.write_text(original)
    assert open_volume(trained / "data" / "val.zarr", "volumes/raw").shape == (30, 40, 44)
    assert VALUES["training"]["sigma_nm"] == 40.0
