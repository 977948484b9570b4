"""Packages of bioimage.io as somebody else's networks: what they say is taken, what they leave open is asked for."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from foreign_network import NEAREST, declare
from neuroloom.errors import UserError
from neuroloom.models import find_weights
from neuroloom.models.bioimageio.package import export_package
from neuroloom.models.card import read_card
from neuroloom.models.foreign import read_foreign
from neuroloom.models.foreign.network import ForeignNetwork
from neuroloom.prediction.foreign import ForeignPredictor
from neuroloom.prediction.predictor import Predictor
from small_model import CARD, save_weights

SCALED = "id: scale_linear\n        kwargs:\n          gain: 0.00392156862745098\n          offset: 0.0"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that we wrote ourselves."""
    pytest.importorskip("bioimageio.core")
    folder = tmp_path_factory.mktemp("package")
    (folder / "model.toml").write_text(CARD)
    save_weights(folder / "best.ckpt", "acrlsd")
    export_package(find_weights(str(folder / "best.ckpt")), read_card(folder / "model.toml"), "", folder / "theirs.zip")
    return folder / "theirs.zip"


def rewrite(package: Path, to: Path, *changes: tuple[str, str], without: str = "") -> Path:
    """A package with another rdf.yaml."""
    with zipfile.ZipFile(package) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            if name == without:
                continue
            content = old.read(name)
            if name.endswith("rdf.yaml") or name == "bioimageio.yaml":
                text = content.decode()
                for before, after in changes:
                    assert before in text, text
                    text = text.replace(before, after)
                content = text.encode()
            new.writestr(name, content)
    return to


def test_our_own_needs_no_declaration(exported: Path) -> None:
    model = read_foreign(exported)
    said = model.declaration
    assert said.voxel_size == (8, 8, 8)
    assert [list(offset) for offset in said.neighborhood] == NEAREST
    assert (said.input, said.output, said.step, said.halo) == ((34,) * 3, (2,) * 3, (2,) * 3, (0,) * 3)
    assert said.raw_range == (0, 1)
    assert (said.output_is, said.input_axes, said.output_axes) == ("affinities", "bczyx", "bczyx")
    own = Predictor(exported.with_name("best.ckpt"), "cpu", "fp32")
    foreign = ForeignPredictor(exported, "cpu")
    raw = np.random.default_rng(0).integers(0, 256, foreign.input_shape((6, 7, 8)), np.uint8)
    assert (foreign.margin, raw.shape) == (own.margin, own.input_shape((6, 7, 8)))
    difference = foreign(raw, (6, 7, 8)).astype(int) - own(raw, (6, 7, 8))
    assert np.abs(difference).max() <= 1


def test_what_is_declared_counts(exported: Path, tmp_path: Path) -> None:
    path = declare(tmp_path / "n.toml", {"file": str(exported), "voxel_size": [9, 8, 8], "raw_range": [-1, 1]})
    model = read_foreign(path)
    assert model.declaration.voxel_size == (9, 8, 8)
    assert model.declaration.raw_range == (-1, 1)
    assert model.declaration.step == (2, 2, 2)
    assert model.sha256 != read_foreign(exported).sha256


def test_what_it_says_otherwise(exported: Path, tmp_path: Path) -> None:
    changes = [
        ("unit: nanometer", "unit: micrometer"),
        ("scale: 8.0", "scale: 0.008"),
        ("z_minus_1", "z_plus_1"),
        ("y_minus_1", "y_plus_1"),
        ("x_minus_1", "x_plus_1_z_minus_12"),
    ]
    with pytest.raises(UserError, match=r"`neighborhood`: it begins with \[\[1, 0, 0\], \[0, 1, 0\], \[-12, 0, 1\]\]"):
        read_foreign(rewrite(exported, tmp_path / "a.zip", *changes))
    said = read_foreign(rewrite(exported, tmp_path / "b.zip", *changes[:2])).declaration
    assert said.voxel_size == (8, 8, 8)
    fixed = "id: fixed_zero_mean_unit_variance\n        kwargs:\n          mean: 127.5\n          std: 255.0"
    said = read_foreign(rewrite(exported, tmp_path / "c.zip", (SCALED, fixed))).declaration
    assert said.raw_range == (-0.5, 0.5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            [("        unit: nanometer\n", "")],
            r"`voxel_size`, since the package gives its axis z in no unit",
        ),
        ([("unit: nanometer", "unit: foot")], r"`voxel_size`, since .* axis z in foot"),
        (
            [("z_minus_1", "affinity")],
            r"`neighborhood`, since .* channel 'affinity', which names no",
        ),
        (
            [(SCALED, "id: zero_mean_unit_variance")],
            r"`raw_range`, since .* zero_mean_unit_variance",
        ),
        (
            [("- 0.0\n        - 255.0", "- null\n        - null")],
            r"`raw_range`, since .* between which values",
        ),
    ],
)
def test_what_it_leaves_open(exported: Path, tmp_path: Path, changes: list[tuple[str, str]], said: str) -> None:
    package = rewrite(exported, tmp_path / "n.zip", *changes)
    with pytest.raises(
        UserError, match=r"n\.zip leaves open " + said + r".* Declare it in a file .* `file = \"n\.zip\"`"
    ):
        read_foreign(package)
    path = declare(tmp_path / "n.toml", {"file": "n.zip"})
    with pytest.raises(UserError, match=r"n\.toml leaves open " + said + r".* Declare it there\."):
        read_foreign(path)
    given = {"file": "n.zip", "voxel_size": [8, 8, 8], "neighborhood": NEAREST, "raw_range": [0, 1]}
    assert read_foreign(declare(path, given)).declaration.input == (34, 34, 34)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([("- raw\n", "- raw\n          - more\n")], "its network sees 2 channels; expected one, the image"),
        ([("type: space", "type: spice")], r"is no valid package of bioimage\.io: .*Ask its author for a valid one"),
        ([("type: model", "type: model\ntype: model")], r"is no valid package of bioimage\.io: DuplicateKeyError"),
        (
            [("  torchscript:", "  keras_hdf5:"), ("pytorch_version", "tensorflow_version")],
            "as keras_hdf5 only.*runs none",
        ),
    ],
)
def test_what_cannot_be_run(exported: Path, tmp_path: Path, changes: list[tuple[str, str]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_foreign(rewrite(exported, tmp_path / "n.zip", *changes))


OLDER = """\
format_version: 0.4.10
type: model
name: an older one
description: nothing
authors: [{name: Ada Lovelace}]
cite: [{text: nothing, doi: 10.1038/s41592-022-01711-z}]
license: CC-BY-4.0
documentation: README.md
git_repo: https://github.com/a/b
tags: [3d]
timestamp: '2022-01-01T00:00:00'
inputs:
  - name: raw
    axes: bczyx
    data_type: uint8
    shape: {min: [1, 1, 24, 64, 64], step: [0, 0, 8, 16, 16]}
    preprocessing: [{name: scale_linear, kwargs: {axes: zyx, gain: [0.01], offset: [-1.0]}}]
outputs:
  - name: affinities
    axes: bczyx
    data_type: float32
    shape: {reference_tensor: raw, scale: [1, 0, 1, 1, 1], offset: [0, 1.5, -2, 0, 0]}
    halo: [0, 0, 4, 16, 16]
    postprocessing: [{name: sigmoid}]
test_inputs: [in.npy]
test_outputs: [out.npy]
weights:
  torchscript: {source: weights.pt}
"""


def test_an_older_format(tmp_path: Path) -> None:
    pytest.importorskip("bioimageio.core")
    with zipfile.ZipFile(tmp_path / "n.zip", "w") as package:
        for name in ("README.md", "in.npy", "out.npy", "weights.pt"):
            package.writestr(name, "")
        package.writestr("rdf.yaml", OLDER)
    with pytest.raises(
        UserError, match=r"n\.zip leaves open `voxel_size`, since .*; `neighborhood`, since .* Declare them"
    ):
        read_foreign(tmp_path / "n.zip")
    values = {"file": "n.zip", "voxel_size": [8, 8, 8], "neighborhood": NEAREST}
    said = read_foreign(declare(tmp_path / "n.toml", values)).declaration
    assert (said.input, said.output) == ((24, 64, 64), (20, 64, 64))
    assert (said.step, said.halo) == ((8, 16, 16), (4, 16, 16))
    assert said.raw_range == pytest.approx((-1, 1.55))
    assert said.output_is == "logits"


def test_files_that_are_no_packages(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.zip").write_text("no zip")
    with pytest.raises(UserError, match=r"a\.zip is no zip file, or damaged"):
        read_foreign(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as package:
        package.writestr("notes.txt", "")
    with pytest.raises(UserError, match=r"b\.zip is no package of bioimage\.io: it holds no rdf\.yaml"):
        read_foreign(tmp_path / "b.zip")
    empty = read_foreign(rewrite(exported, tmp_path / "c.zip", without="weights.pt"))
    with pytest.raises(UserError, match=r"c\.zip does not hold weights\.pt, which it names as its network"):
        ForeignNetwork(empty, torch.device("cpu"))
    with pytest.raises(UserError, match=r"The package .*none\.zip does not exist"):
        read_foreign(tmp_path / "none.zip")
    for name in [name for name in sys.modules if name.startswith("bioimageio")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"pip install neuroloom\[bioimageio\]"):
        read_foreign(rewrite(exported, tmp_path / "d.zip"))
