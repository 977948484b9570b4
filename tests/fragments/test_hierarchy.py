"""Merge histories: those of waterz, and of an obvious version."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import waterz
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from neuroloom.errors import UserError
from neuroloom.fragments import fragments
from neuroloom.fragments.contacts import add_long_range, find_contacts
from neuroloom.fragments.hierarchy import MERGE_FUNCTIONS, agglomerate, merge_history
from neuroloom.project import NEAREST

History = tuple[NDArray[np.uint32], NDArray[np.float32]]
Offset = tuple[int, int, int]


def by_waterz(affinities: NDArray[np.uint8], numbers: NDArray[np.uint32], name: str, threshold: float) -> History:
    quantile = name.removeprefix("hist_quant_").removesuffix("_initmax")
    function = (
        "OneMinus<MeanAffinity<RegionGraphType, ScoreValue>>"
        if name == "mean"
        else f"OneMinus<HistogramQuantileAffinity<RegionGraphType, {quantile}, ScoreValue, 256, "
        f"{'true' if name.endswith('_initmax') else 'false'}>>"
    )
    [(_, history)] = waterz.agglomerate(
        affinities.astype(np.float32) / np.float32(255),
        thresholds=[threshold],
        fragments=numbers.astype(np.uint64),
        scoring_function=function,
        discretize_queue=256,
        return_merge_history=True,
    )
    merges = np.array([(merge["a"], merge["b"]) for merge in history], dtype=np.uint32).reshape(-1, 2)
    return merges, np.array([merge["score"] for merge in history], dtype=np.float32)


def by_definition(
    affinities: NDArray[np.uint8],
    numbers: NDArray[np.uint32],
    name: str,
    threshold: float,
    offsets: tuple[Offset, ...] = NEAREST,
) -> History:
    """With dictionaries: edges wait in queues by score, and what two regions have in common becomes one edge.

    An edge that no face has made does not wait, and has no part in the order.
    """
    observed: dict[tuple[int, int], list[int]] = defaultdict(list)
    touching = set()
    for channel, offset in enumerate(offsets):
        for place in np.ndindex(numbers.shape):
            other = tuple(p + o for p, o in zip(place, offset, strict=True))
            if any(not 0 <= o < size for o, size in zip(other, numbers.shape, strict=True)):
                continue
            u, v = sorted((int(numbers[place]), int(numbers[other])))
            if u not in (0, v):
                observed[u, v].append(int(affinities[channel][place]))
                if channel < 3:
                    touching.add((u, v))
    pairs_ = sorted(observed)
    values = [observed[pair] for pair in pairs_]
    quantile = name.removeprefix("hist_quant_").removesuffix("_initmax")
    if name.endswith("_initmax"):
        values = [[max(row)] for row in values]

    def score(row: list[int]) -> np.float32:
        if name == "mean":
            return np.float32(1) - np.float32(sum(row) / (255 * len(row)))
        return np.float32(1 - (sorted(row)[int(quantile) * len(row) // 100] + 0.5) / 256)

    edges = {pair: e for e, pair in enumerate(pairs_)}
    ends = {e: pair for pair, e in edges.items()}
    scores = [score(row) for row in values]
    touch = [pair in touching for pair in pairs_]
    queues: dict[int, list[int]] = defaultdict(list)
    for e, value in enumerate(scores):
        if touch[e]:
            queues[min(255, int(value * 256))].append(e)
    gone, stale, merges = set(), set(), []
    while any(queues.values()):
        lowest = min(q for q, waiting in queues.items() if waiting)
        e = queues[lowest][0]
        if scores[e] >= np.float32(threshold):
            break
        queues[lowest].pop(0)
        if e in gone:
            continue
        if e in stale:
            stale.remove(e)
            scores[e] = score(values[e])
            queues[min(255, int(scores[e] * 256))].append(e)
            continue
        a, b = ends[e]
        merges.append((a, b, scores[e]))
        gone.add(e)
        for pair in [pair for pair in edges if b in pair and pair != (a, b)]:
            other = edges.pop(pair)
            third = pair[0] if pair[1] == b else pair[1]
            new = (min(a, third), max(a, third))
            if new in edges:
                ours = edges[new]
                stays, goes = (ours, other) if scores[other] > scores[ours] else (other, ours)
                if touch[stays] != touch[goes]:
                    stays, goes = (ours, other) if touch[ours] else (other, ours)
                values[stays] += values[goes]
                gone.add(goes)
                stale.add(stays)
                other = stays
            edges[new] = other
            ends[other] = new
        del edges[a, b]
    pairs = np.array([merge[:2] for merge in merges], dtype=np.uint32).reshape(-1, 2)
    return pairs, np.array([merge[2] for merge in merges], dtype=np.float32)


def assert_equal(found: History, expected: History) -> None:
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@settings(deadline=None, max_examples=150)
@given(
    name=st.sampled_from(MERGE_FUNCTIONS),
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    regions=st.integers(1, 60),
    grey=st.sampled_from([3, 256]),
    threshold=st.sampled_from([0.3, 1.0]),
    seed=st.integers(0, 999),
)
def test_histories_are_the_definition(
    name: str, shape: tuple[int, int, int], regions: int, grey: int, threshold: float, seed: int
) -> None:
    """Few grey values: many edges are alike, and the order of queues decides."""
    random = np.random.default_rng(seed)
    numbers = random.integers(0, regions + 1, shape).astype(np.uint32)
    affinities = (random.integers(0, grey, (3, *shape)) * (255 // (grey - 1))).astype(np.uint8)
    found = merge_history(find_contacts(affinities, numbers), name, threshold)
    assert_equal(found, by_definition(affinities, numbers, name, threshold))


@settings(deadline=None, max_examples=100)
@given(
    name=st.sampled_from(MERGE_FUNCTIONS),
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    regions=st.integers(1, 60),
    offsets=st.lists(st.tuples(*[st.integers(-4, 4)] * 3).filter(any), min_size=1, max_size=3),
    grey=st.sampled_from([3, 256]),
    threshold=st.sampled_from([0.3, 1.0]),
    seed=st.integers(0, 999),
)
def test_histories_with_long_range_are_the_definition(
    name: str,
    shape: tuple[int, int, int],
    regions: int,
    offsets: list[Offset],
    grey: int,
    threshold: float,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    numbers = random.integers(0, regions + 1, shape).astype(np.uint32)
    values = (random.integers(0, grey, (3 + len(offsets), *shape)) * (255 // (grey - 1))).astype(np.uint8)
    observed = add_long_range(find_contacts(values[:3], numbers), values[3:], numbers, offsets)
    found = merge_history(observed, name, threshold)
    assert_equal(found, by_definition(values, numbers, name, threshold, (*NEAREST, *offsets)))


def test_what_does_not_touch_merges_only_when_merges_make_it_touch() -> None:
    # 1 and 3 do not touch: their affinity, high or low, counts when 1 and 2 have become one
    numbers = np.array([[[1, 2, 3]]], dtype=np.uint32)
    affinities = np.zeros((4, 1, 1, 3), dtype=np.uint8)
    affinities[2, 0, 0] = [0, 204, 51]
    for far, expected in ((255, [0.2, 1 - (51 + 255) / 2 / 255]), (0, [0.2, 1 - 51 / 2 / 255])):
        affinities[3] = far
        observed = add_long_range(find_contacts(affinities[:3], numbers), affinities[3:], numbers, [(0, 0, -2)])
        merges, scores = merge_history(observed, "mean", 1.0)
        assert merges.tolist() == [[1, 2], [1, 3]]
        np.testing.assert_allclose(scores, expected, atol=1e-6)
    apart = np.where(numbers == 2, 0, numbers).astype(np.uint32)
    observed = add_long_range(find_contacts(affinities[:3], apart), affinities[3:], apart, [(0, 0, -2)])
    assert observed.area.tolist() == [0]
    assert len(merge_history(observed, "mean", 1.0)[0]) == 0


@pytest.mark.parametrize("name", [name for name in MERGE_FUNCTIONS if name != "mean"])
@pytest.mark.parametrize("seed", [0, 1])
def test_histories_are_waterz_s(name: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(random.standard_normal((3, 30, 40, 44)), (0, 1, 1, 1))
    affinities = np.clip(127.5 * (1.2 + field / field.std()), 0, 255).astype(np.uint8)
    numbers = fragments(affinities, min_seed_distance=3)
    assert numbers.max() > 500
    for threshold in (0.4, 1.0):
        found = merge_history(find_contacts(affinities, numbers), name, threshold)
        assert_equal(found, by_waterz(affinities, numbers, name, threshold))


def test_means_are_waterz_s_but_for_rounding() -> None:
    """Where affinities across a contact are alike, a mean of them has nothing to round."""
    random = np.random.default_rng(0)
    numbers = random.permutation(np.arange(1, 9 * 10 * 11 + 1)).reshape(9, 10, 11).astype(np.uint32)
    affinities = random.integers(0, 256, (3, 9, 10, 11)).astype(np.uint8)
    found = merge_history(find_contacts(affinities, numbers), "mean", 0.4)
    expected = by_waterz(affinities, numbers, "mean", 0.4)
    first = slice(0, 100)  # until regions have several faces in common
    np.testing.assert_array_equal(found[0][first], expected[0][first])
    np.testing.assert_allclose(found[1][first], expected[1][first], atol=1e-6)
    assert abs(len(found[0]) - len(expected[0])) < 0.02 * len(found[0])


@pytest.mark.parametrize("name", MERGE_FUNCTIONS)
def test_merges_below_the_threshold_only(name: str) -> None:
    # three regions in a row; 1|2 are joined by affinity 0.8, 2|3 by 0.2
    numbers = np.repeat(np.array([1, 2, 3], dtype=np.uint32), 2).reshape(1, 1, 6)
    affinities = np.zeros((3, 1, 1, 6), dtype=np.uint8)
    affinities[2, 0, 0] = [0, 255, 204, 255, 51, 255]
    regions = agglomerate(affinities, numbers, name, 0.5)
    assert regions.tolist() == [[[1, 1, 1, 1, 3, 3]]]
    assert regions.dtype == np.uint32
    merges, scores = merge_history(find_contacts(affinities, numbers), name, 0.5)
    assert merges.tolist() == [[1, 2]]
    np.testing.assert_allclose(scores, [0.2], atol=1 / 256)


def test_chains_of_merges_end_at_the_smallest_number() -> None:
    numbers = np.array([[[4, 2, 5, 1, 3, 0, 6]]], dtype=np.uint32)
    affinities = np.full((3, 1, 1, 7), 255, dtype=np.uint8)
    affinities[2, 0, 0] = [0, 200, 220, 190, 250, 0, 0]
    assert agglomerate(affinities, numbers, "mean", 0.5).tolist() == [[[1, 1, 1, 1, 1, 0, 6]]]


def test_nothing_to_merge() -> None:
    affinities, numbers = np.zeros((3, 2, 2, 2), np.uint8), np.zeros((2, 2, 2), np.uint32)
    assert not agglomerate(affinities, numbers, "mean", 0.5).any()
    merges, scores = merge_history(find_contacts(affinities, numbers), "hist_quant_75_initmax", 0.5)
    assert merges.shape == (0, 2)
    assert scores.shape == (0,)


def test_unknown_name_is_refused() -> None:
    with pytest.raises(UserError, match="hist_quant_80"):
        agglomerate(np.zeros((3, 1, 1, 2), np.uint8), np.ones((1, 1, 2), np.uint32), "hist_quant_80", 0.5)
