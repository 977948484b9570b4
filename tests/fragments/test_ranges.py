"""Ranges of ids: places as a search would give them, whatever the gaps."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloom.fragments.ranges import Ranges

id_sets = st.lists(st.tuples(st.integers(0, 2**64 - 100), st.integers(1, 20)), max_size=8).map(
    lambda runs: np.array(sorted({first + i for first, length in runs for i in range(length)}), dtype=np.uint64)
)


@settings(deadline=None)
@given(ids=id_sets, strangers=st.lists(st.integers(0, 2**64 - 1), max_size=10), seed=st.integers(0, 999))
def test_places_are_those_of_a_search(ids: np.ndarray, strangers: list[int], seed: int) -> None:
    around = np.concatenate([ids, ids + np.uint64(1), ids - np.uint64(1), np.array(strangers, np.uint64)])
    wanted = np.random.default_rng(seed).permutation(around)
    place = {int(i): k for k, i in enumerate(ids)}
    assert Ranges.of(ids).find(wanted).tolist() == [place.get(int(i), -1) for i in wanted]


def test_blocks_are_ranges() -> None:
    ids = np.array([7, 8, 9, 1007, 1008, 5003], dtype=np.uint64)
    ranges = Ranges.of(ids)
    assert ranges.first.tolist() == [7, 1007, 5003]
    assert ranges.length.tolist() == [3, 2, 1]
    assert ranges.place.tolist() == [0, 3, 5]
