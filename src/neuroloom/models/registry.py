"""Shipped models by name, checkpoints and others' networks by path: where weights lie, and what they are.

weights/NAME/model.toml      the card
weights/NAME/card.md         further text, if any
weights/NAME/weights.ckpt    the checkpoint
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from neuroloom.errors import UserError, one_of
from neuroloom.models.card import Card, read_card
from neuroloom.models.foreign import ForeignModel, is_foreign, read_foreign
from neuroloom.networks.architecture import parameter_count
from neuroloom.networks.metadata import Metadata

FOLDER = Path(__file__).parent / "weights"
CARD_NAME = "model.toml"


@dataclass(frozen=True)
class Weights:
    """What a checkpoint holds, without the weights themselves.

    Attributes:
        path: The file.
        sha256: Its content.
        metadata: The network that gives the output.
        lsd: Its descriptor network, for setups that need one.
    """

    path: Path
    sha256: str
    metadata: Metadata
    lsd: Metadata | None

    @property
    def networks(self) -> tuple[Metadata, ...]:
        """In the order they run."""
        return (self.metadata,) if self.lsd is None else (self.lsd, self.metadata)

    @property
    def parameters(self) -> int:
        """Number of weights and biases of all networks."""
        return sum(parameter_count(part.network) for part in self.networks)


@dataclass(frozen=True)
class Model:
    """A shipped model.

    Attributes:
        name: What it is called.
        card: What people should know of it.
        text: Further text, markdown; may be empty.
        checkpoint: The file of its weights.
    """

    name: str
    card: Card
    text: str
    checkpoint: Path

    @property
    def weights(self) -> Weights:
        """What its checkpoint holds."""
        return read_weights(self.checkpoint)


def shipped_models() -> dict[str, Model]:
    """All models that come with neuroloom, by name.

    Raises:
        UserError: A card is not valid.
    """
    models = {}
    for file in sorted(FOLDER.glob(f"*/{CARD_NAME}")):
        text = file.with_name("card.md")
        models[file.parent.name] = Model(
            name=file.parent.name,
            card=read_card(file),
            text=text.read_text(encoding="utf-8") if text.exists() else "",
            checkpoint=file.with_name("weights.ckpt"),
        )
    return models


def find_model(name: str) -> Model:
    """A shipped model.

    Raises:
        UserError: There is none of that name; the nearest one is named.
    """
    models = shipped_models()
    if name in models:
        return models[name]
    if not models:
        raise UserError(
            f"There is no model {name!r}: this version ships none. Name a checkpoint by its path, such as ./best.ckpt."
        )
    raise UserError(f"There is no model {name!r}; expected the path of a checkpoint, or one of {one_of(name, models)}")


def is_path(name_or_path: str) -> bool:
    """Whether a file is named by its path: with a slash, or by the ending of a checkpoint or of others' networks."""
    return "/" in name_or_path or "\\" in name_or_path or name_or_path.endswith(".ckpt") or is_foreign(name_or_path)


def find_weights(name_or_path: str, folder: Path = Path()) -> Weights:
    """The weights of a shipped model or of a checkpoint.

    Args:
        name_or_path: A shipped model's name, or a path with a slash or the ending .ckpt.
        folder: Where relative paths start.

    Raises:
        UserError: There is no such model or file, or it is no checkpoint.
    """
    if is_foreign(name_or_path):
        raise UserError(
            f"{name_or_path} is somebody else's network: it can predict (`prediction.model`), but nothing else is "
            "possible with it. Name a model of neuroloom or a checkpoint."
        )
    path = folder / Path(name_or_path).expanduser() if is_path(name_or_path) else find_model(name_or_path).checkpoint
    return read_weights(path)


def find_given(name_or_path: str, folder: Path = Path()) -> Weights | ForeignModel:
    """What predicts: weights as `find_weights` finds them, or somebody else's network.

    Args:
        name_or_path: As for `find_weights`; a declaration (.toml) or a package of bioimage.io (.zip) too.
        folder: Where relative paths start.

    Raises:
        UserError: There is no such model or file, or it is not what its name says.
    """
    if is_foreign(name_or_path):
        return read_foreign(folder / Path(name_or_path).expanduser())
    return find_weights(name_or_path, folder)


def find_card(name_or_path: str, folder: Path = Path()) -> Card | None:
    """The card of a shipped model, or the one beside a checkpoint; None where there is none.

    Args:
        name_or_path: As for `find_given`; somebody else's network has none.
        folder: Where relative paths start.

    Raises:
        UserError: There is no such model, or the card is not valid.
    """
    if not is_path(name_or_path):
        return find_model(name_or_path).card
    if is_foreign(name_or_path):
        return None
    beside = (folder / Path(name_or_path).expanduser()).with_name(CARD_NAME)
    return read_card(beside) if beside.exists() else None


def read_weights(path: Path) -> Weights:
    """What a checkpoint holds; read once, as long as the file does not change.

    Raises:
        UserError: It is missing, damaged, or no checkpoint.
    """
    path = path.resolve()
    status = path.stat() if path.is_file() else None
    return _read(path, (status.st_mtime_ns, status.st_size) if status else None)


@lru_cache(maxsize=32)
def _read(path: Path, state: tuple[int, int] | None) -> Weights:
    from neuroloom.networks.checkpoint import load_checkpoint  # loads PyTorch

    loaded = load_checkpoint(path)
    return Weights(path, loaded.sha256, loaded.metadata, loaded.lsd.metadata if loaded.lsd else None)
