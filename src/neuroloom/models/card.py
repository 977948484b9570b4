"""A model's card: what people should know before they use its weights, as `model.toml` beside them.

description = "Affinities of FIB-SEM, 8 nm"        [[authors]]
license = "CC-BY-4.0"                              name = "Ada Lovelace"
trained_on = "…"
voi = 1.51                                         [[citations]]
voi_convention = "…"                               text = "…"
                                                   doi = "10.1038/…"
[settings.segmentation]
threshold = 0.3                                    as in a project file: what goes well with these weights
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neuroloom.errors import UserError
from neuroloom.project import Agglomeration, Fragments, Prediction, Segmentation


class Author(BaseModel):
    """Who made the weights.

    Attributes:
        name: Of a person or a group.
        affiliation: Where they work.
        orcid: Four groups of four characters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    affiliation: str | None = None
    orcid: str | None = Field(None, pattern=r"^\d{4}-\d{4}-\d{4}-\d{3}[\dX]$")


class Citation(BaseModel):
    """What to cite.

    Attributes:
        text: Authors, title, where it was published.
        doi: Without "https://doi.org/".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = Field(min_length=1)
    doi: str | None = Field(None, pattern=r"^10\.\d{4,9}/\S+$")


class Settings(BaseModel):
    """Sections of a project file that go well with a model's weights; only keys that are set count.

    Attributes:
        prediction: Over how many mirror images affinities are averaged.
        fragments: How affinities are cut.
        agglomeration: How fragments are joined.
        segmentation: The merge threshold, chosen on tissue that the weights have not learned.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prediction: Prediction = Prediction()
    fragments: Fragments = Fragments()
    agglomeration: Agglomeration = Agglomeration()
    segmentation: Segmentation = Segmentation()

    def as_values(self) -> dict[str, dict[str, Any]]:
        """What is set, as it nests in a project file."""
        return self.model_dump(mode="json", exclude_unset=True)


class Card(BaseModel):
    """What people should know of a model; what networks need is in its checkpoint.

    Attributes:
        description: One sentence: of which tissue and microscope, at which voxel size.
        license: Of the weights, as SPDX names it.
        authors: Who made them.
        citations: What to cite when using them.
        trained_on: The volumes, with their source and licence.
        voi: Split + merge in bits on a volume it was not trained on.
        voi_convention: Which volume, and how the score is defined.
        settings: What to set in a project that predicts with it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = Field(min_length=1)
    license: str = Field(min_length=1)
    authors: tuple[Author, ...] = Field(min_length=1)
    citations: tuple[Citation, ...] = ()
    trained_on: str | None = None
    voi: float | None = Field(None, ge=0)
    voi_convention: str | None = None
    settings: Settings = Settings()


def read_card(path: Path) -> Card:
    """Read a card.

    Args:
        path: A TOML file.

    Raises:
        UserError: It is missing or not valid; the first mistake is named.
    """
    try:
        return Card.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(
            f"The card {path} does not exist. Write one with `description`, `license` and [[authors]]."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"The card {path} is no valid TOML: {error}. Correct it.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        fields = ", ".join(Card.model_fields)
        raise UserError(
            f"The card {path}: `{place}`: {first['msg'][0].lower()}{first['msg'][1:]}. A card has {fields}."
        ) from error
