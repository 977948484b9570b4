"""Packages for bioimage.io: valid and right by its own libraries, and back to the very checkpoint."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neuroloom.errors import UserError
from neuroloom.models import find_weights, registry
from neuroloom.models.bioimageio.package import CHECKPOINT, IDENTITY, export_package
from neuroloom.models.bioimageio.reading import import_package
from neuroloom.models.card import read_card
from neuroloom.prediction.predictor import Predictor
from small_model import CARD, save_weights, ship

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """An AcrLSD checkpoint with its card beside it."""
    (tmp_path / "model.toml").write_text(CARD)
    return save_weights(tmp_path / "best.ckpt", "acrlsd")


class TestExport:
    @pytest.fixture(autouse=True)
    def _libraries(self) -> None:
        pytest.importorskip("bioimageio.core")

    def test_bioimageio_runs_it_and_it_comes_back(self, checkpoint: Path, tmp_path: Path, call: Call) -> None:
        import bioimageio.core

        package = tmp_path / "fib-8nm.zip"
        code, out, error = call("models", "export", checkpoint, package)
        assert code == 0, error
        assert f"Wrote {package}" in out
        summary = bioimageio.core.test_model(package)
        assert summary.status == "passed", summary.format()
        described = bioimageio.core.load_model_description(package)
        assert described.name == "neuroloom fib-8nm"
        assert (described.license, described.authors[0].name) == ("CC0-1.0", "Ada Lovelace")
        assert str(described.cite[0].doi) == "10.1038/s41592-022-01711-z"
        # on another image than the stored one, and of another extent
        predictor = Predictor(checkpoint, "cpu", "fp32")
        raw = np.random.default_rng(0).integers(0, 256, predictor.input_shape((4, 6, 8)), dtype=np.uint8)
        sample = bioimageio.core.predict(model=described, inputs={"raw": raw[None, None]})
        found = np.asarray(next(iter(sample.members.values())).data)[0]
        expected = predictor(raw, (4, 6, 8))
        assert found.shape == expected.shape
        assert expected.std() > 20
        assert np.abs(found * 255 - expected).max() < 2  # a descriptor may be rounded to either of two values
        code, out, error = call("models", "import", package, tmp_path / "back.ckpt")
        assert code == 0, error
        assert (tmp_path / "back.ckpt").read_bytes() == checkpoint.read_bytes()

    def test_a_shipped_model_by_name(
        self, checkpoint: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ship(tmp_path / "weights", "fibsem-8nm", checkpoint, text="Read me.\n")
        monkeypatch.setattr(registry, "FOLDER", tmp_path / "weights")
        code, _, error = call("models", "export", "fibsem-8nm", tmp_path / "m.zip")
        assert code == 0, error
        with zipfile.ZipFile(tmp_path / "m.zip") as package:
            text = package.read("README.md").decode()
        assert "Read me." in text
        assert "4.25 bits. made up" in text

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("CC0-1.0", "mine", r"does not take this model: license: Input should be .*Correct the card"),
            ("0097", "0098", r"does not take this model: authors\.0\.orcid: .* is not a valid ORCID"),
            ("Random weights", "x" * 2000, r"does not take this model: description: String should have at most 1024"),
        ],
    )
    def test_what_bioimageio_refuses(self, checkpoint: Path, tmp_path: Path, old: str, new: str, said: str) -> None:
        assert old in CARD
        (tmp_path / "model.toml").write_text(CARD.replace(old, new))
        with pytest.raises(UserError, match=said):
            export_package(find_weights(str(checkpoint)), read_card(tmp_path / "model.toml"), "", tmp_path / "m.zip")
        assert not (tmp_path / "m.zip").exists()

    def test_what_cannot_be_exported(self, checkpoint: Path, tmp_path: Path, call: Call) -> None:
        lsd = save_weights(tmp_path / "lsd.ckpt", "lsd")
        for arguments, said in (
            ((lsd, tmp_path / "m.zip"), "is of setup 'lsd', which gives no affinities"),
            ((checkpoint, tmp_path / "m.tar"), "m.tar does not end with .zip"),
            ((checkpoint, tmp_path / "m.zip", "--card", tmp_path / "no.toml"), "no.toml does not exist. Write one"),
            (("fibsem", tmp_path / "m.zip"), "There is no model 'fibsem'"),
        ):
            code, _, error = call("models", "export", *arguments)
            assert code == 2
            assert said in error


def test_without_its_libraries(checkpoint: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bioimageio", None)
    code, _, error = call("models", "export", checkpoint, tmp_path / "m.zip")
    assert code == 2
    assert "pip install neuroloom[bioimageio]" in error


def write_package(path: Path, **files: bytes | str) -> Path:
    with zipfile.ZipFile(path, "w") as package:
        for name, content in files.items():
            package.writestr(name.replace("__", "."), content)
    return path


def test_what_cannot_be_imported(checkpoint: Path, tmp_path: Path, call: Call) -> None:
    whole = {"rdf__yaml": "", CHECKPOINT: checkpoint.read_bytes()}
    identity = json.dumps({"sha256": find_weights(str(checkpoint)).sha256})
    text = tmp_path / "text.zip"
    text.write_text("no zip")
    evil = write_package(tmp_path / "evil.zip", rdf__yaml="", **{CHECKPOINT: b"cos\nsystem\n"})
    cut = write_package(tmp_path / "cut.zip", **whole, **{IDENTITY: identity})
    cut.write_bytes(cut.read_bytes()[:5000])
    other = json.dumps({"sha256": "0" * 64})
    for package, said in (
        (tmp_path / "none.zip", "does not exist"),
        (text, "is no zip file, or damaged"),
        (cut, "is no zip file, or damaged"),
        (write_package(tmp_path / "a.zip", notes__txt=""), "is no package of bioimage.io: it holds no rdf.yaml"),
        (write_package(tmp_path / "b.zip", rdf__yaml=""), "is a model that neuroloom did not write"),
        (write_package(tmp_path / "c.zip", **whole), "is damaged: neuroloom.ckpt in it is not what was exported"),
        (write_package(tmp_path / "d.zip", **whole, **{IDENTITY: other}), "is not what was exported"),
        (write_package(tmp_path / "e.zip", **whole, **{IDENTITY: "{bad"}), "is not what was exported"),
        (evil, "is not what was exported"),
    ):
        code, _, error = call("models", "import", package, tmp_path / "new.ckpt")
        assert code == 2, package
        assert said in error
        assert not (tmp_path / "new.ckpt").exists()
    code, _, error = call("models", "import", tmp_path / "c.zip", checkpoint)
    assert code == 2
    assert "best.ckpt exists already" in error


def test_what_was_exported_is_imported(checkpoint: Path, tmp_path: Path) -> None:
    identity = json.dumps({"sha256": find_weights(str(checkpoint)).sha256})
    package = write_package(
        tmp_path / "m.zip", rdf__yaml="", **{CHECKPOINT: checkpoint.read_bytes(), IDENTITY: identity}
    )
    import_package(package, tmp_path / "new.ckpt")
    assert (tmp_path / "new.ckpt").read_bytes() == checkpoint.read_bytes()
