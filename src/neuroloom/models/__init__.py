"""Weights to use as they are or to start from: shipped ones by name, anybody's by path.

card        what people should know of a model          registry    shipped models by name, checkpoints by path
"""

from neuroloom.models.card import Author, Card, Citation
from neuroloom.models.registry import Model, Weights, find_card, find_model, find_weights, is_path, shipped_models

__all__ = [
    "Author",
    "Card",
    "Citation",
    "Model",
    "Weights",
    "find_card",
    "find_model",
    "find_weights",
    "is_path",
    "shipped_models",
]
