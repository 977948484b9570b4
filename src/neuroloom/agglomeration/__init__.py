"""Fragments -> scored edges -> merge forest."""

from neuroloom.agglomeration.forest import Forest, load_forest, save_forest, spanning_forest
from neuroloom.agglomeration.scores import merge_scores
from neuroloom.agglomeration.streaming import stream_forest

__all__ = ["Forest", "load_forest", "merge_scores", "save_forest", "spanning_forest", "stream_forest"]
