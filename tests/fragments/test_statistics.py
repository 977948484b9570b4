"""What is known of fragments against numpy, fragment by fragment."""

from __future__ import annotations

import numpy as np

from neuroloom.fragments.runs import Runs
from neuroloom.fragments.statistics import statistics


def test_is_the_definition() -> None:
    random = np.random.default_rng(0)
    numbers = random.integers(0, 6, (5, 6, 7)).astype(np.uint32)
    numbers[numbers == 4] = 0
    around = random.integers(0, 256, (3, 9, 9, 12)).astype(np.uint8)
    affinities = around[:, 2:7, 1:7, 3:10]
    measured = statistics(around, Runs.of(numbers), (2, 1, 3))
    assert measured.size[3] == 0
    for i in (1, 2, 3, 5):
        places = np.argwhere(numbers == i)
        row = i - 1
        assert measured.size[row] == len(places)
        np.testing.assert_allclose(measured.centre[row], places.mean(axis=0) + 0.5)
        np.testing.assert_array_equal(measured.begin[row], places.min(axis=0))
        np.testing.assert_array_equal(measured.end[row], places.max(axis=0) + 1)
        np.testing.assert_allclose(measured.mean_affinity[row], affinities[:, numbers == i].mean() / 255, rtol=1e-6)
