"""Raw to affinities: tiling, the fused two-network predictor, and means over mirror images."""

from neuroloom.prediction.predictor import Predictor
from neuroloom.prediction.stage import Predict, default_block

__all__ = ["Predict", "Predictor", "default_block"]
