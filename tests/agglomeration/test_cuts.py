"""Fragments that borders of blocks have cut: put together as face by face."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.slow_regions import slow_regions

from neuroloom.agglomeration.cuts import regions_of, scores_of_parts, united
from neuroloom.fragments.borders import Border
from neuroloom.fragments.contacts import add_long_range, find_contacts

Triple = tuple[int, int, int]
FAR = ((-2, 0, 0), (0, 1, -2))


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(*[st.integers(2, 7)] * 3),
    count=st.integers(1, 25),
    places=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 6)), unique=True, max_size=4),
    share=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    far=st.booleans(),
    seed=st.integers(0, 999),
)
def test_regions_their_contacts_and_scores_are_those_of_faces_one_by_one(
    shape: Triple, count: int, places: list[tuple[int, int]], share: float, far: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    numbers = random.integers(0, count + 1, shape).astype(np.uint32)
    affinities = random.integers(0, 256, (3 + len(FAR), *shape)).astype(np.uint8)
    borders = []
    for axis, place in places:
        if place < shape[axis]:
            plane = tuple(1 if a == axis else extent for a, extent in enumerate(shape))
            borders.append(Border(axis, place, random.random(plane) < share))
    touching = find_contacts(affinities[:3], numbers)
    region = regions_of(numbers, count, borders)
    np.testing.assert_array_equal(region, slow_regions(numbers, count, borders))

    regions = united(touching, region)
    expected = find_contacts(affinities[:3], region[numbers])
    if far:
        expected = add_long_range(expected, affinities[3:], region[numbers], FAR)
        regions = add_long_range(regions, affinities[3:], region[numbers], FAR)
    for name in ("u", "v", "faces", "area", "total", "place"):
        np.testing.assert_array_equal(getattr(regions, name), getattr(expected, name))

    score = random.random(len(regions.u)).astype(np.float32)
    of_pair = dict(zip(zip(regions.u.tolist(), regions.v.tolist(), strict=True), score, strict=True))
    ends = [sorted((int(region[u]), int(region[v]))) for u, v in zip(touching.u, touching.v, strict=True)]
    assert scores_of_parts(touching, region, regions, score).tolist() == [
        0 if u == v else of_pair[u, v] for u, v in ends
    ]


def test_half_of_the_smaller_section_makes_two_fragments_one() -> None:
    a, b, c, d = 1, 2, 3, 4
    numbers = np.array([[[a, b], [a, b], [a, c], [d, c], [d, c]]], np.uint32)  # as drawn in `cuts.py`
    goes_on = np.ones((1, 5, 1), dtype=np.bool_)
    assert regions_of(numbers, 4, [Border(2, 1, goes_on)]).tolist() == [0, a, a, c, c]
    goes_on[0, 0] = False  # one of b's two faces is left: half
    assert regions_of(numbers, 4, [Border(2, 1, goes_on)]).tolist() == [0, a, a, c, c]
    goes_on[0, 1] = False
    assert regions_of(numbers, 4, [Border(2, 1, goes_on)]).tolist() == [0, a, b, c, c]


def test_rims_that_share_a_few_faces_stay_two() -> None:
    # two neurites that end nowhere near: the block behind has drawn the line between them one row further on
    numbers = np.array([[[1, 3], [1, 3], [1, 3], [1, 4], [2, 4], [2, 4]]], np.uint32)
    goes_on = np.ones((1, 6, 1), dtype=np.bool_)
    assert regions_of(numbers, 4, [Border(2, 1, goes_on)]).tolist() == [0, 1, 2, 1, 2]
