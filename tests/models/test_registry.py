"""Models by name, checkpoints by path, cards; and a clear word on every name or card that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuroloom.errors import UserError
from neuroloom.files import hash_file
from neuroloom.models import Author, find_model, find_weights, registry, shipped_models
from neuroloom.models.card import read_card
from neuroloom.networks.architecture import parameter_count
from neuroloom.networks.checkpoint import load_checkpoint
from small_model import CARD, save_weights, ship


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "weights"
    ship(folder, "fibsem-8nm", save_weights(tmp_path / "a.ckpt", "acrlsd"), text="# Good to know\n")
    ship(folder, "sections-40nm", save_weights(tmp_path / "b.ckpt", "affs"))
    monkeypatch.setattr(registry, "FOLDER", folder)
    return folder


def test_what_comes_with_the_package_is_valid() -> None:
    for model in shipped_models().values():
        assert model.checkpoint.stat().st_size <= 16e6
        assert model.weights.metadata.setup


def test_models_are_found_by_name(shipped: Path) -> None:
    assert list(shipped_models()) == ["fibsem-8nm", "sections-40nm"]
    model = find_model("fibsem-8nm")
    assert (model.text, model.card.voi) == ("# Good to know\n", 4.25)
    assert model.card.authors == (Author(name="Ada Lovelace", orcid="0000-0002-1825-0097"),)
    weights = find_weights("fibsem-8nm")
    loaded = load_checkpoint(shipped / "fibsem-8nm" / "weights.ckpt")
    assert loaded.lsd is not None
    assert (weights.metadata, weights.lsd, weights.sha256) == (loaded.metadata, loaded.lsd.metadata, loaded.sha256)
    assert [part.setup for part in weights.networks] == ["lsd", "acrlsd"]
    assert weights.parameters == sum(parameter_count(part.network) for part in weights.networks)


def test_checkpoints_are_found_by_path_and_read_again_when_they_change(tmp_path: Path) -> None:
    path = save_weights(tmp_path / "mine.ckpt", "affs")
    assert find_weights("mine.ckpt", tmp_path).sha256 == hash_file(path)
    assert find_weights(str(path)).path == path.resolve()
    save_weights(path, "mtlsd")
    assert find_weights("./mine.ckpt", tmp_path).metadata.setup == "mtlsd"


def test_wrong_names(shipped: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model 'fibsem8nm'; expected .*did you mean 'fibsem-8nm'\?"):
        find_weights("fibsem8nm")
    with pytest.raises(UserError, match=r"checkpoint .*none\.ckpt does not exist"):
        find_weights("none.ckpt", tmp_path)
    for folder in shipped.iterdir():
        (folder / "model.toml").unlink()
    with pytest.raises(UserError, match=r"no model 'fibsem-8nm': this version ships none\. Name a checkpoint"):
        find_weights("fibsem-8nm")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('license = "CC0-1.0"', "", r"`license`: field required. A card has description, license"),
        ("voi = 4.25", "voi = -1", r"`voi`: input should be greater than or equal to 0"),
        ("trained_on", "trained", r"`trained`: extra inputs are not permitted. A card has .*trained_on"),
        ("0000-0002-1825-0097", "12", r"`authors\.0\.orcid`: string should match"),
        ("10.1038/", "https://doi.org/10.1038/", r"`citations\.0\.doi`: string should match"),
        ("voi = 4.25", "voi = = 4.25", r"no valid TOML: .*line 4"),
    ],
)
def test_wrong_cards(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in CARD
    (tmp_path / "model.toml").write_text(CARD.replace(old, new))
    with pytest.raises(UserError, match=said) as caught:
        read_card(tmp_path / "model.toml")
    assert "model.toml" in str(caught.value)


def test_a_missing_card(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.toml does not exist\. Write one with"):
        read_card(tmp_path / "model.toml")
