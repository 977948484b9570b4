"""Weights to use as they are or to start from: shipped ones by name, anybody's by path.

card        what people should know of a model          registry    shipped models by name, checkpoints by path
foreign     networks of somebody else                   bioimageio  packages of our own
"""

from neuroloom.models.card import Author, Card, Citation
from neuroloom.models.foreign import ForeignModel
from neuroloom.models.registry import (
    Model,
    Weights,
    find_card,
    find_given,
    find_model,
    find_weights,
    is_path,
    shipped_models,
)

__all__ = [
    "Author",
    "Card",
    "Citation",
    "ForeignModel",
    "Model",
    "Weights",
    "find_card",
    "find_given",
    "find_model",
    "find_weights",
    "is_path",
    "shipped_models",
]
