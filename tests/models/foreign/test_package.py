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
from neuroloom.models.foreign import ForeignNetwork, read_foreign
from neuroloom.prediction import ForeignPredictor, Predictor
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
            r"`voxel_size` has to be declared, since the package gives its axis z in no unit",
        ),
        ([("unit: nanometer", "unit: foot")], r"`voxel_size` has to be declared, since .* axis z in foot"),
        (
            [("z_minus_1", "affinity")],
            r"`neighborhood` has to be declared, since .* channel 'affinity', which names no",
        ),
        (
            [(SCALED, "id: zero_mean_unit_variance")],
            r"`raw_range` has to be declared, since .* zero_mean_unit_variance",
        ),
        (
            [("- 0.0\n        - 255.0", "- null\n        - null")],
            r"`raw_range` has to be declared, since .* between which values",
        ),
    ],
)
def test_what_it_leaves_open(exported: Path, tmp_path: Path, changes: list[tuple[str, str]], said: str) -> None:
    package = rewrite(exported, tmp_path / "n.zip", *changes)
    with pytest.raises(UserError, match=said + r".* Write a file, such as .* with `file = \"n\.zip\"` and it"):
        read_foreign(package)
    path = declare(tmp_path / "n.toml", {"file": "n.zip"})
    with pytest.raises(UserError, match=r"n\.toml: " + said + r".* Add it\."):
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
