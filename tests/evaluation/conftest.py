"""Small made volumes for scoring."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

Labels = NDArray[np.uint64]


@pytest.fixture
def blobs() -> tuple[Labels, Labels]:
    """A truth of blocky labels with some unannotated voxels, and a perturbed segmentation of it; (12, 20, 24)."""
    generator = np.random.default_rng(7)
    coarse = generator.integers(1, 9, (3, 4, 4), dtype=np.uint64)
    truth = np.kron(coarse, np.ones((4, 5, 6), np.uint64)).astype(np.uint64)
    segmentation = np.roll(truth, 1, axis=2) * np.uint64(2**40)
    segmentation[segmentation == 3 * 2**40] = 5 * 2**40
    segmentation[:6][truth[:6] == 4] = 77
    segmentation[generator.random(truth.shape) < 0.05] = 0
    truth[generator.random(truth.shape) < 0.05] = 0
    return segmentation, truth
