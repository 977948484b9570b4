"""Maxima in cubes: those of scipy."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from neuroloom.fragments.maxima import maximum_filter


@settings(deadline=None, max_examples=30)
@given(shape=st.tuples(*[st.integers(1, 7)] * 3), size=st.integers(1, 12), seed=st.integers(0, 999))
def test_maximum_filter_is_scipy_s(shape: tuple[int, int, int], size: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 100, shape).astype(np.uint16)
    expected = ndimage.maximum_filter(values, size, mode="constant", cval=0)
    np.testing.assert_array_equal(maximum_filter(values, size), expected)
