"""Raw to affinities: blocks and tiles, the fused two-network predictor, and means over mirror images."""

from neuroloom.prediction.planning import default_block
from neuroloom.prediction.predictor import Predictor
from neuroloom.prediction.stage import Predict

__all__ = ["Predict", "Predictor", "default_block"]
