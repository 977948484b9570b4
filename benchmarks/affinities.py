"""Affinities of real tissue, predicted with shipped weights: what everything after prediction is measured on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.volumes import Options, tissue
from neuroloom.models import find_weights
from neuroloom.prediction.predictor import Predictor


def predicted(options: Options, extent: int) -> tuple[str, NDArray[np.uint8], NDArray[np.uint64]]:
    """Affinities of the middle of `fib25-val`.

    Args:
        options: Say where volumes are.
        extent: Of the cube in voxels; smaller where the volume is.

    Returns:
        What it is, in words; affinities (3, z, y, x); labels (z, y, x).
    """
    what, raw, labels = tissue(options, "fib25-val", extent)
    weights = find_weights("fibsem-fly-8nm-small" if options.quick else "fibsem-fly-8nm")
    predictor = Predictor(weights.path, "cpu")
    before, needed = predictor.margin, predictor.input_shape(raw.shape)
    around = [(m, n - m - size) for m, n, size in zip(before, needed, raw.shape, strict=True)]
    affinities = predictor(np.pad(raw, around, mode="reflect"), raw.shape)
    return f"{what}, affinities of {weights.path.parent.name}", affinities[:3], labels
