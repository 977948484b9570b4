"""Raw to affinities: blocks and tiles, the fused two-network predictor, others' networks, means over mirror images."""

from neuroloom.prediction.foreign import ForeignPredictor, foreign_block
from neuroloom.prediction.planning import default_block
from neuroloom.prediction.predictor import Predictor
from neuroloom.prediction.stage import Predict

__all__ = ["ForeignPredictor", "Predict", "Predictor", "default_block", "foreign_block"]
