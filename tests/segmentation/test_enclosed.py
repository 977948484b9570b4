"""What another segment encloses becomes part of it, against a slow definition on voxels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuroloom.agglomeration import merge_scores, spanning_forest
from neuroloom.agglomeration.outside import outside_faces
from neuroloom.fragments.labels import compact
from neuroloom.segmentation import Contacts, SizeRules, absorb_enclosed, contacts, lookup_table, lookup_tables, relabel
from slow_contacts import all_contacts

OUTSIDE = 0


def touching(fragments: NDArray[np.uint64]) -> Contacts:
    edges = merge_scores(np.full((3, *fragments.shape), 128, np.uint8), fragments, "mean")
    return all_contacts(fragments, edges)


def each_its_own(fragments: NDArray[np.uint64]) -> NDArray[np.uint64]:
    ids = np.unique(fragments[fragments > 0])
    return np.stack([ids, ids])


def surface(segments: NDArray[np.uint64], segment: int) -> dict[int, int]:
    """Voxel faces that a segment has in common with each other one; 0 stands for no segment and for the outside."""
    faces: dict[int, int] = {}
    around = np.pad(segments, 1)
    for place in np.argwhere(around == segment):
        for axis in range(3):
            for step in (-1, 1):
                beside = place.copy()
                beside[axis] += step
                other = int(around[tuple(beside)])
                if other != segment:
                    faces[other] = faces.get(other, 0) + 1
    return faces


def enclosing(segments: NDArray[np.uint64], share: float) -> dict[int, int]:
    """For every enclosed segment the one that encloses it, all looked at before any is absorbed."""
    surfaces = {int(s): surface(segments, int(s)) for s in np.unique(segments) if s}
    total = {s: sum(count for other, count in faces.items() if other) for s, faces in surfaces.items()}
    result = {
        segment: other
        for segment, faces in surfaces.items()
        for other, count in faces.items()
        if other and OUTSIDE not in faces and count >= share * total[segment]
    }
    for segment, other in sorted(result.items()):
        if (
            result.get(segment) == other and result.get(other) == segment
        ):  # of two that enclose each other, the smaller goes
            del result[segment if total[other] < total[segment] else other]
    return result


def slowly(segments: NDArray[np.uint64], share: float) -> NDArray[np.uint64]:
    """The definition on voxels; segments keep the ids of what enclosed them."""
    segments = segments.copy()
    while goes_to := enclosing(segments, share):
        before = segments.copy()
        for segment in goes_to:
            last = segment
            while last in goes_to:
                last = goes_to[last]
            segments[before == segment] = last
    return segments


def same_partition(a: NDArray[Any], b: NDArray[Any]) -> bool:
    pairs = np.unique(np.stack([a.reshape(-1), b.reshape(-1)]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


@settings(deadline=None, max_examples=150)
@given(
    shape=st.tuples(*[st.integers(3, 7)] * 3),
    regions=st.integers(2, 12),
    background=st.sampled_from([0.0, 0.02, 0.3]),
    share=st.sampled_from([0.51, 0.6, 0.8, 1.0]),
    seed=st.integers(0, 9999),
)
def test_is_the_definition(
    shape: tuple[int, int, int], regions: int, background: float, share: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    points = random.random((regions, 3)) * shape
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    weights = random.random(regions) * 2  # so that some cells lie within others
    nearest = (((places[..., None, :] - points) ** 2).sum(-1) * (0.3 + weights)).argmin(-1)
    fragments = random.permutation(regions).astype(np.uint64)[nearest] + np.uint64(1)
    fragments[random.random(shape) < background] = 0
    if not fragments.any():
        return
    table = absorb_enclosed(each_its_own(fragments), touching(fragments), share)
    result = relabel(fragments, table)
    assert same_partition(result, slowly(fragments, share))
    for segment in np.unique(result[result > 0]):
        assert segment == fragments[result == segment].min()


def shell(inner: NDArray[Any] | int, outer: int = 1) -> NDArray[np.uint64]:
    fragments = np.full((9, 9, 9), outer, np.uint64)
    fragments[3:6, 3:6, 3:6] = inner
    return fragments


def absorbed(fragments: NDArray[np.uint64], share: float = 0.8) -> NDArray[np.uint64]:
    return relabel(fragments, absorb_enclosed(each_its_own(fragments), touching(fragments), share))


def test_an_organelle_joins_its_neurite() -> None:
    assert set(absorbed(shell(7)).flat) == {1}


def test_a_segment_is_called_by_its_smallest_fragment_even_if_that_was_enclosed() -> None:
    assert set(absorbed(shell(3, outer=9)).flat) == {3}


def test_a_nest_joins_from_whichever_side() -> None:
    fragments = shell(5)
    fragments[4, 4, 4] = 8
    assert set(absorbed(fragments).flat) == {1}


def test_two_halves_that_hide_each_other_go_one_after_the_other() -> None:
    fragments = shell(5)
    fragments[3, 3:6, 3:6] = 8  # a third of the organelle: 9 of its 30 faces, and 9 of the rest's 42, are between them
    assert enclosing(fragments, 0.75).keys() == {5}
    assert set(absorbed(fragments, 0.75).flat) == {1}


def test_what_reaches_the_border_stays() -> None:
    fragments = shell(7)
    fragments[4, 4, 3:] = 7
    np.testing.assert_array_equal(absorbed(fragments, 0.51), fragments)


def test_what_touches_a_voxel_without_fragment_stays() -> None:
    fragments = shell(7)
    fragments[4, 4, 6] = 0
    np.testing.assert_array_equal(absorbed(fragments, 0.51), fragments)


def test_between_two_the_share_decides() -> None:
    fragments = shell(7)
    fragments[6:] = 2  # 9 of 54 faces
    np.testing.assert_array_equal(absorbed(fragments, 0.9), fragments)
    assert set(absorbed(fragments, 0.8).flat) == {1, 2}


def test_zero_changes_nothing() -> None:
    fragments = shell(7)
    np.testing.assert_array_equal(absorbed(fragments, 0), fragments)


@pytest.mark.parametrize("share", [0.5, 0.1, 1.1, -1])
def test_a_share_that_two_could_have_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="could belong to two"):
        absorbed(shell(7), share)


def test_no_contacts_and_no_fragments() -> None:
    one = np.full((2, 2, 2), 5, np.uint64)
    np.testing.assert_array_equal(absorbed(one), one)
    nothing = np.zeros((2, 2, 2), np.uint64)
    assert absorb_enclosed(each_its_own(nothing), touching(nothing), 0.8).shape == (2, 0)


def test_tables_of_thresholds_are_each_cut_and_then_absorbed() -> None:
    fragments = np.random.default_rng(0).integers(1, 40, (6, 7, 8)).astype(np.uint64)
    affinities = np.random.default_rng(1).integers(0, 256, (3, *fragments.shape)).astype(np.uint8)
    edges = merge_scores(affinities, fragments, "mean")
    forest = spanning_forest(*np.unique(fragments, return_counts=True), edges.u, edges.v, edges.merge_score)
    around = touching(fragments)
    for rules in (SizeRules(), SizeRules(orphans=12), SizeRules(large=20, large_threshold=0.2)):
        tables = lookup_tables(forest, (0.3, 0.5), around, 0.8, rules)
        for threshold in (0.3, 0.5):
            cut = lookup_table(forest, threshold, rules)
            np.testing.assert_array_equal(tables[threshold], absorb_enclosed(cut, around, 0.8))


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    regions=st.integers(1, 60),
    blocks=st.integers(1, 5),
    at_once=st.sampled_from([1, 20, 10**6]),
    rules=st.builds(SizeRules, st.sampled_from([0, 12]), st.sampled_from([0, 12, 40]), st.sampled_from([0.1, 0.4])),
    seed=st.integers(0, 999),
)
def test_contacts_between_segments_give_the_same_tables(
    shape: tuple[int, int, int], regions: int, blocks: int, at_once: int, rules: SizeRules, seed: int
) -> None:
    random = np.random.default_rng(seed)
    fragments = random.integers(0, regions + 1, shape).astype(np.uint64) * np.uint64(10**10)
    edges = merge_scores(random.integers(0, 256, (3, *shape)).astype(np.uint8), fragments, "hist_quant_50")
    outside = outside_faces(*compact(fragments))
    ids, sizes = np.unique(fragments[fragments > 0], return_counts=True)
    forest = spanning_forest(ids, sizes, edges.u, edges.v, edges.merge_score)
    parts = [edges.select(chosen) for chosen in np.array_split(random.permutation(len(edges)), blocks)]
    found = contacts(forest, 0.3, iter(parts), outside, rules, at_once)
    assert len(found.u) <= len(edges)
    thresholds = (0.3, 0.5, 0.9)
    expected = lookup_tables(forest, thresholds, all_contacts(fragments, edges), 0.6, rules)
    tables = lookup_tables(forest, thresholds, found, 0.6, rules)
    for threshold in thresholds:
        np.testing.assert_array_equal(tables[threshold], expected[threshold])
