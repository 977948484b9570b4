"""Fragments -> scored edges -> merge forest."""

from neuroloom.agglomeration.forest import Forest, load_forest, save_forest, spanning_forest
from neuroloom.agglomeration.scores import merge_scores

__all__ = ["Forest", "load_forest", "merge_scores", "save_forest", "spanning_forest"]
