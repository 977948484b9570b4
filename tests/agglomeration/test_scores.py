"""Merge scores against agglomeration run once per threshold, and the merge tree against plain sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from neuroloom.agglomeration import merge_scores
from neuroloom.agglomeration.scores import as_edges, join_times
from neuroloom.fragments import fragments
from neuroloom.fragments.contacts import find_contacts
from neuroloom.fragments.hierarchy import agglomerate
from neuroloom.fragments.labels import compact


def noise(seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((3, 16, 40, 40)), (0, 1.5, 1.5, 1.5))
    affinities = np.clip(127.5 * (1.2 + field / field.std()), 0, 255).astype(np.uint8)
    return affinities, fragments(affinities, min_seed_distance=4).astype(np.uint64)


@pytest.mark.parametrize("function", ["hist_quant_75", "hist_quant_25_initmax", "mean"])
def test_score_is_the_threshold_above_which_two_fragments_are_one(function: str) -> None:
    affinities, labels = noise()
    edges = merge_scores(affinities, labels, function)
    assert len(edges) > 50
    places = {int(i): tuple(np.argwhere(labels == i)[0]) for i in np.unique(labels)}
    for threshold in (0.2, 0.4, 0.6):
        # scores that are sorted into the threshold's own bin are left out
        decided = np.abs(edges.merge_score - threshold) > 1 / 128
        merged = agglomerate(affinities, labels.astype(np.uint32), function, threshold)
        together = [merged[places[int(u)]] == merged[places[int(v)]] for u, v in zip(edges.u, edges.v, strict=True)]
        np.testing.assert_array_equal(np.array(together)[decided], (edges.merge_score < threshold)[decided])
        assert 0 < sum(together) < len(together)


def test_one_row_per_touching_pair_sorted() -> None:
    affinities, labels = noise(1)
    edges = merge_scores(affinities, labels, "hist_quant_50")
    found = find_contacts(affinities, labels.astype(np.uint32))
    np.testing.assert_array_equal(edges.u, found.u)
    np.testing.assert_array_equal(edges.v, found.v)
    np.testing.assert_array_equal(edges.contact_area, found.area)
    assert edges.u.dtype == np.uint64


def test_an_edge_lies_amid_its_faces() -> None:
    labels = np.array([[[4, 4, 9], [9, 9, 9]]], dtype=np.uint64)
    edges = merge_scores(np.full((3, *labels.shape), 128, np.uint8), labels, "mean")
    # one face along x, at (0.5, 0.5, 2), and two along y, at (0.5, 1, 0.5) and (0.5, 1, 1.5)
    np.testing.assert_array_equal(edges.position, np.array([[0.5, 2.5 / 3, 4 / 3]], np.float32))
    assert edges.position.dtype == np.float32
    ids, numbers = compact(labels)
    moved = as_edges(
        find_contacts(np.full((3, *labels.shape), 128, np.uint8), numbers),
        np.zeros(1, np.float32),
        ids,
        (7, 0, 100_000),
    )
    np.testing.assert_array_equal(moved.position, np.array([[7.5, 2.5 / 3, 100_000 + 4 / 3]], np.float32))


def test_names_of_fragments_do_not_matter() -> None:
    affinities, labels = noise(2)
    far = np.where(labels > 0, labels * np.uint64(2**40) + np.uint64(5), np.uint64(0))
    near, moved = (merge_scores(affinities, ids, "hist_quant_75") for ids in (labels, far))
    np.testing.assert_array_equal(near.u * np.uint64(2**40) + np.uint64(5), moved.u)
    np.testing.assert_array_equal(near.merge_score, moved.merge_score)


def test_what_has_no_affinity_at_all_never_merges() -> None:
    labels = np.array([[[7, 7, 9, 9]]], dtype=np.uint64)
    affinities = np.array([255, 255, 0, 255] * 3, dtype=np.uint8).reshape(3, 1, 1, 4)
    edges = merge_scores(affinities, labels, "mean")
    assert (edges.u.tolist(), edges.v.tolist()) == ([7], [9])
    assert np.isnan(edges.merge_score).all()


def test_nothing_to_score() -> None:
    assert len(merge_scores(np.zeros((3, 2, 2, 2), np.uint8), np.zeros((2, 2, 2), np.uint64), "mean")) == 0


@settings(deadline=None)
@given(count=st.integers(1, 30), merges=st.integers(0, 40), seed=st.integers(0, 999))
def test_join_times_are_those_of_plain_sets(count: int, merges: int, seed: int) -> None:
    pairs = np.random.default_rng(seed).integers(0, count, (merges, 2))
    sets = [{i} for i in range(count)]
    expected = np.full((count, count), -1)
    for time, (a, b) in enumerate(pairs):
        if sets[a] is not sets[b]:
            for i in sets[a]:
                for j in sets[b]:
                    expected[i, j] = expected[j, i] = time
            together = sets[a] | sets[b]
            for i in together:
                sets[i] = together
    u, v = (index.reshape(-1) for index in np.indices((count, count)))
    different = u != v
    found = join_times(count, pairs, u[different], v[different])
    np.testing.assert_array_equal(found, expected.reshape(-1)[different])
