"""Raw to affinities: tiling and the fused two-network predictor."""

from neuroloom.prediction.predictor import Predictor
from neuroloom.prediction.stage import Predict, default_block

__all__ = ["Predict", "Predictor", "default_block"]
