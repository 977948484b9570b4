"""The multicut against all partitions there are, and what its scores say of thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from neuroloom.agglomeration.multicut import costs, multicut_scores, partition
from neuroloom.fragments.contacts import Contacts, FarPairs, find_contacts, find_far_pairs

OFFSETS = ((0, 0, -2), (0, -2, 0), (0, -1, 1))


def partitions(count: int) -> Iterator[list[int]]:
    """All partitions of so many things, as the part of each."""
    if count == 0:
        yield []
        return
    for parts in partitions(count - 1):
        for part in range(1 + max(parts, default=-1) + 1):
            yield [*parts, part]


def energy(parts: NDArray[np.int64], u: NDArray[np.uint32], v: NDArray[np.uint32], cost: NDArray[np.float64]) -> float:
    return float(cost[parts[u] != parts[v]].sum())


def whole(parts: NDArray[np.int64], touching: Contacts) -> NDArray[np.int64]:
    """The pieces of parts that hang together by contacts."""
    inside = parts[touching.u] == parts[touching.v]
    ends = touching.u[inside], touching.v[inside]
    graph = coo_matrix((np.ones(inside.sum()), ends), (len(parts), len(parts)))
    return connected_components(graph, directed=False)[1]


def problem(seed: int) -> tuple[Contacts, FarPairs]:
    random = np.random.default_rng(seed)
    numbers = random.integers(1, 8, (1, 4, 5)).astype(np.uint32)
    values = random.integers(0, 256, (6, 1, 4, 5)).astype(np.uint8)
    return find_contacts(values[:3], numbers), find_far_pairs(values[3:], numbers, OFFSETS)


@pytest.mark.parametrize("lifted", [False, True])
def test_hardly_any_partition_is_cheaper(lifted: bool) -> None:
    best = 0
    for seed in range(20):
        touching, far = problem(seed)
        cost, far_cost = costs(touching.total, touching.area, 0.5), costs(far.total, far.count, 0.5)
        if not lifted:
            far_cost[:] = 0
        u, v = np.concatenate([touching.u, far.u]), np.concatenate([touching.v, far.v])
        both = np.concatenate([cost, far_cost])
        found = partition(touching, cost, far if lifted else None, far_cost if lifted else None).astype(np.int64)
        assert np.array_equal(whole(found, touching)[u] == whole(found, touching)[v], found[u] == found[v])
        least = math.inf
        for parts in partitions(int(touching.v.max())):
            every = whole(np.array([-1, *parts]), touching)
            least = min(least, energy(every, u, v, both))
        assert energy(found, u, v, both) >= least - 1e-6
        best += energy(found, u, v, both) < least + 1e-6
    assert best >= 18


def test_costs_are_log_odds_of_faces() -> None:
    # logit(0.8) - logit(0.5) = ln 4, for each of three faces
    np.testing.assert_allclose(costs(np.array([612]), np.array([3]), 0.5), [3 * math.log(4)])
    np.testing.assert_allclose(costs(np.array([204 * 2, 0]), np.array([2, 1]), 0.8), [0, math.log(0.001 / 0.999 / 4)])


def test_a_threshold_from_one_minus_the_bias_on_gives_the_partition() -> None:
    cut = 0
    for seed in range(20):
        touching, far = problem(seed)
        for bias in (0.2, 0.4, 0.5):
            scores = multicut_scores(touching, far, bias, 0.5)
            found = partition(
                touching, costs(touching.total, touching.area, bias), far, costs(far.total, far.count, 0.5)
            )
            together = found[touching.u] == found[touching.v]
            np.testing.assert_array_equal(scores.astype(np.float64) <= 1 - bias, together)
            np.testing.assert_array_equal(np.isnan(scores), ~together)
            cut += np.count_nonzero(~together)
    assert cut > 100


def test_within_a_part_the_surest_join_first() -> None:
    numbers = np.array([[[1, 2, 3, 4]]], dtype=np.uint32)
    affinities = np.zeros((3, 1, 1, 4), dtype=np.uint8)
    affinities[2, 0, 0] = [0, 204, 230, 26]
    scores = multicut_scores(find_contacts(affinities, numbers), None, 0.5, 0.5)
    np.testing.assert_allclose(scores, [0.2, 25 / 255, np.nan], atol=1e-6)


def test_nothing_to_cut() -> None:
    touching = find_contacts(np.zeros((3, 2, 2, 2), np.uint8), np.zeros((2, 2, 2), np.uint32))
    far = find_far_pairs(np.zeros((1, 2, 2, 2), np.uint8), np.zeros((2, 2, 2), np.uint32), [(0, 0, -1)])
    assert multicut_scores(touching, None, 0.5, 0.5).shape == (0,)
    assert multicut_scores(touching, far, 0.5, 0.5).shape == (0,)
