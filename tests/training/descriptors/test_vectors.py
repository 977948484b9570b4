"""Weighted sums in registers against the same sums written down."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from neuroloom.training.descriptors.vectors import LANES, weighted_sums

OUTPUTS = [(0, 1), (2, 0), (1, 1), (0, 0)]
SUMS = weighted_sums(OUTPUTS)


@njit
def sums(weights, centre, places, rows, width, x, out, out_width, out_x):  # type: ignore[no-untyped-def]
    SUMS(weights, centre, places, rows, width, x, out, out_width, out_x)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(0, 9), st.integers(1, 3))
def test_each_sum_is_what_it_says(seed: int, used: int, blocks: int) -> None:
    random = np.random.default_rng(seed)
    width, centre = blocks * LANES, 2
    weights = random.normal(size=(3, 7)).astype(np.float32)
    rows = random.normal(size=(12, 2 * width)).astype(np.float32)
    places = centre + np.sort(random.permutation(7)[:used])
    x = int(random.integers(blocks)) * LANES
    out = np.full(len(OUTPUTS) * 2 * LANES, 7, np.float32)
    sums(weights, centre, places, rows, width, x, out, 2 * LANES, LANES)
    found = out.reshape(len(OUTPUTS), 2, LANES)
    assert (found[:, 0] == 7).all()  # nothing else is written
    for (power, channel), values in zip(OUTPUTS, found[:, 1], strict=True):
        terms = [weights[power, n - centre] * rows[n, channel * width + x :][:LANES].astype(np.float64) for n in places]
        np.testing.assert_allclose(values, np.sum(terms, axis=0) if terms else 0.0, atol=1e-5)
