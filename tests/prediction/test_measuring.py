"""Spans of time, and what is said of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from neuroloom.prediction.measuring import Measured, union


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=12))
def test_union_counts_every_second_once(spans: list[tuple[int, int]]) -> None:
    seconds = np.zeros(100, bool)
    for begin, length in spans:
        seconds[begin : begin + length] = True
    assert union([(begin, begin + length) for begin, length in spans]) == seconds.sum()


def test_rate_is_of_the_time_it_took() -> None:
    steps = {"reading": 2.0, "computing": 16.0, "writing": 2.0}
    measured = Measured(voxels=10**7, predicted=10**7, missing=[], took=10.0, seconds=steps, memory=10**9)
    assert str(measured) == "1 Mvoxel/s (reading 2 s, computing 16 s, writing 2 s), 1 GB of memory"
