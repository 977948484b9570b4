"""Contacts between regions against voxel-by-voxel Python."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloom.fragments.contacts import find_contacts


@settings(deadline=None, max_examples=50)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 20)),
    regions=st.integers(1, 40),
    seed=st.integers(0, 999),
)
def test_is_the_definition(shape: tuple[int, int, int], regions: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    numbers = random.integers(0, regions + 1, shape).astype(np.uint32)
    affinities = random.integers(0, 256, (3, *shape)).astype(np.uint8)
    expected: dict[tuple[int, int], list[int]] = defaultdict(list)
    places: dict[tuple[int, int], list[list[float]]] = defaultdict(list)
    for place in np.ndindex(shape):
        for axis in range(3):
            before = tuple(p - (i == axis) for i, p in enumerate(place))
            if before[axis] >= 0:
                u, v = sorted((int(numbers[place]), int(numbers[before])))
                if u not in (0, v):
                    expected[u, v].append(int(affinities[axis][place]))
                    places[u, v].append([p if i == axis else p + 0.5 for i, p in enumerate(place)])
    found = find_contacts(affinities, numbers)
    assert list(zip(found.u.tolist(), found.v.tolist(), strict=True)) == sorted(expected)
    for faces, pair in zip(found.faces, sorted(expected), strict=True):
        assert faces.tolist() == np.bincount(expected[pair], minlength=256).tolist()
    assert found.area.tolist() == [len(expected[pair]) for pair in sorted(expected)]
    assert found.total.tolist() == [sum(expected[pair]) for pair in sorted(expected)]
    assert (found.place / 2).tolist() == [np.sum(places[pair], axis=0).tolist() for pair in sorted(expected)]


def test_more_pairs_than_the_table_starts_with() -> None:
    numbers = np.arange(1, 18 * 18 * 18 + 1, dtype=np.uint32).reshape(18, 18, 18)
    found = find_contacts(np.full((3, 18, 18, 18), 51, np.uint8), numbers)
    assert len(found.u) == 3 * 17 * 18 * 18
    assert set(found.area) == {1}
    assert set(found.total) == {51}
    first = found.place[(found.u == 1) & (found.v == 2)]
    assert (first / 2).tolist() == [[0.5, 0.5, 1]]
