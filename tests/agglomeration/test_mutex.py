"""The mutex watershed against sets, and what its scores say of every threshold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuroloom.agglomeration.mutex import mutex_scores, weighted_edges
from neuroloom.fragments.contacts import FarPairs, find_contacts, find_far_pairs

Triple = tuple[int, int, int]


def by_definition(u: NDArray[np.uint32], v: NDArray[np.uint32], weight: NDArray[np.float64]) -> list[set[int]]:
    """Regions, with sets: what repels each other never merges."""
    regions = [{int(label)} for label in np.union1d(u, v)]
    apart: list[tuple[int, int]] = []
    for a, b, w in zip(u.tolist(), v.tolist(), weight.tolist(), strict=True):
        one, two = (next(region for region in regions if label in region) for label in (a, b))
        if w < 0:
            apart.append((a, b))
        elif one is not two and not any({c, d} & one and {c, d} & two for c, d in apart):
            regions = [region for region in regions if region is not one and region is not two] + [one | two]
    return regions


@settings(deadline=None, max_examples=100)
@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    regions=st.integers(1, 40),
    offsets=st.lists(st.tuples(*[st.integers(-4, 4)] * 3).filter(any), max_size=3),
    grey=st.sampled_from([3, 256]),
    bias=st.sampled_from([0.0, 0.3, 0.5]),
    far_bias=st.sampled_from([0.5, 0.8]),
    seed=st.integers(0, 999),
)
def test_at_every_threshold_pairs_are_together_as_by_definition(
    shape: Triple, regions: int, offsets: list[Triple], grey: int, bias: float, far_bias: float, seed: int
) -> None:
    """Few grey values: many weights are alike, and their order decides."""
    random = np.random.default_rng(seed)
    numbers = random.integers(0, regions + 1, shape).astype(np.uint32)
    values = (random.integers(0, grey, (3 + len(offsets), *shape)) * (255 // (grey - 1))).astype(np.uint8)
    touching = find_contacts(values[:3], numbers)
    far = find_far_pairs(values[3:], numbers, offsets) if offsets else None
    scores = mutex_scores(touching, far, bias, far_bias)
    u, v, weight = weighted_edges(touching, far, bias, far_bias)
    for least in (0.0, 0.15, 0.3):
        # a threshold stops before all that is less sure than some weight; those on the edge are left out
        sure = np.abs(weight) > least
        whole = by_definition(u[sure], v[sure], weight[sure])
        for a, b, score in zip(touching.u.tolist(), touching.v.tolist(), scores.tolist(), strict=True):
            if abs(score - (1 - bias - least)) > 1e-6:
                together = any({a, b} <= region for region in whole)
                assert together == (score < min(1 - bias - least, 1))


@settings(deadline=None, max_examples=50)
@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    offsets=st.lists(st.tuples(*[st.integers(-4, 4)] * 3), min_size=1, max_size=4),
    regions=st.integers(1, 40),
    seed=st.integers(0, 999),
)
def test_far_pairs_are_the_definition(shape: Triple, offsets: list[Triple], regions: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    numbers = random.integers(0, regions + 1, shape).astype(np.uint32)
    affinities = random.integers(0, 256, (len(offsets), *shape)).astype(np.uint8)
    expected: dict[tuple[int, int], list[int]] = {}
    for channel, offset in enumerate(offsets):
        for place in np.ndindex(shape):
            other = tuple(p + o for p, o in zip(place, offset, strict=True))
            if all(0 <= o < size for o, size in zip(other, shape, strict=True)):
                u, v = sorted((int(numbers[place]), int(numbers[other])))
                if u not in (0, v):
                    expected.setdefault((u, v), []).append(int(affinities[channel][place]))
    found = find_far_pairs(affinities, numbers, offsets)
    assert list(zip(found.u.tolist(), found.v.tolist(), strict=True)) == sorted(expected)
    assert found.count.tolist() == [len(expected[pair]) for pair in sorted(expected)]
    assert found.total.tolist() == [sum(expected[pair]) for pair in sorted(expected)]


def test_what_repels_keeps_apart_what_weaker_affinities_would_join() -> None:
    # four regions in a row; 2|3 is hardly an edge, and 1 and 4 are surely two
    numbers = np.array([[[1, 2, 3, 4]]], dtype=np.uint32)
    affinities = np.zeros((3, 1, 1, 4), dtype=np.uint8)
    affinities[2, 0, 0] = [0, 255, 153, 255]
    touching = find_contacts(affinities, numbers)
    np.testing.assert_allclose(mutex_scores(touching, None, 0.5, 0.5), [0, 0.4, 0], atol=1e-6)
    apart = FarPairs(np.array([1], np.uint32), np.array([4], np.uint32), np.array([7]), np.array([0]))
    np.testing.assert_array_equal(mutex_scores(touching, apart, 0.5, 0.5), [0, np.nan, 0])
    # of what a far edge has joined, near edges get its score: 1 - 0.5 - (0.7 - 0.5)
    together = FarPairs(np.array([2], np.uint32), np.array([3], np.uint32), np.array([10]), np.array([1785]))
    np.testing.assert_allclose(mutex_scores(touching, together, 0.5, 0.5), [0, 0.3, 0], atol=1e-6)


def test_nothing_to_merge() -> None:
    touching = find_contacts(np.zeros((3, 2, 2, 2), np.uint8), np.zeros((2, 2, 2), np.uint32))
    assert mutex_scores(touching, None, 0.5, 0.5).shape == (0,)


@pytest.mark.parametrize("value", [0, 127])
def test_what_does_not_attract_never_merges(value: int) -> None:
    numbers = np.arange(1, 28, dtype=np.uint32).reshape(3, 3, 3)
    touching = find_contacts(np.full((3, 3, 3, 3), value, np.uint8), numbers)
    assert np.isnan(mutex_scores(touching, None, 0.5, 0.5)).all()
