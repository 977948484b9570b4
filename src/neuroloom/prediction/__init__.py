"""Raw to affinities: blocks and tiles, the fused two-network predictor, others' networks, means over mirror images."""

from neuroloom.prediction.planning import default_block, foreign_block
from neuroloom.prediction.stage import Predict

__all__ = ["Predict", "default_block", "foreign_block"]
