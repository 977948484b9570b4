"""The overlap table against counting voxel by voxel."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neuroloom.errors import UserError
from neuroloom.evaluation.contingency import OverlapTable, add_tables, overlap_table, relabel_table

SHAPE = (3, 4, 5)
few = st.sampled_from([0, 1, 2, 3, 2**63, 2**64 - 1])
labels = arrays(np.uint64, SHAPE, elements=few)


def as_counter(table: OverlapTable) -> Counter[tuple[int, int]]:
    keys = list(zip(table.segments.tolist(), table.truths.tolist(), strict=True))
    assert keys == sorted(set(keys)), "pairs must be sorted and each there once"
    return Counter(dict(zip(keys, table.counts.tolist(), strict=True)))


def slow_table(segmentation: np.ndarray, truth: np.ndarray) -> Counter[tuple[int, int]]:
    return Counter(zip(segmentation.ravel().tolist(), truth.ravel().tolist(), strict=True))


@given(labels, labels)
@settings(max_examples=60, deadline=None)
def test_counts_every_pair(segmentation: np.ndarray, truth: np.ndarray) -> None:
    assert as_counter(overlap_table(segmentation, truth)) == slow_table(segmentation, truth)


def test_many_pairs_outgrow_the_first_hash_table() -> None:
    generator = np.random.default_rng(0)
    segmentation = generator.integers(0, 2**64, (20, 30, 40), dtype=np.uint64)
    truth = generator.integers(0, 50, (20, 30, 40), dtype=np.uint64)
    assert as_counter(overlap_table(segmentation, truth)) == slow_table(segmentation, truth)


def test_views_and_other_integer_types() -> None:
    generator = np.random.default_rng(1)
    segmentation = generator.integers(0, 9, (6, 8, 10), dtype=np.int32).transpose(2, 0, 1)[::2, :, ::-1]
    truth = generator.integers(0, 9, (5, 6, 8), dtype=np.uint8)
    assert as_counter(overlap_table(segmentation, truth)) == slow_table(segmentation, truth)


def test_blocks_add_up_to_the_whole_in_any_order(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    segmentation, truth = blobs
    pieces = [overlap_table(segmentation[z : z + 5], truth[z : z + 5]) for z in (10, 0, 5)]
    whole = overlap_table(segmentation, truth)
    for table in (add_tables(pieces), add_tables(reversed(pieces))):
        for name in ("segments", "truths", "counts"):
            assert np.array_equal(getattr(table, name), getattr(whole, name))
    assert add_tables([]).counts.size == 0


def test_relabelling_the_table_equals_relabelling_the_volume(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    fragments, truth = blobs
    known = np.unique(fragments[fragments != 0])
    lookup = np.stack([known, known % np.uint64(3) + np.uint64(1)])
    segmentation = np.where(fragments == 0, 0, fragments % np.uint64(3) + np.uint64(1)).astype(np.uint64)
    relabelled = relabel_table(overlap_table(fragments, truth), lookup)
    assert as_counter(relabelled) == slow_table(segmentation, truth)


def test_a_fragment_missing_from_the_lookup_table_is_named(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    fragments, truth = blobs
    with pytest.raises(UserError, match="not in the lookup table"):
        relabel_table(overlap_table(fragments, truth), np.array([[77], [1]], np.uint64))


def test_wrong_arrays_are_refused() -> None:
    zeros = np.zeros((2, 3, 4), np.uint64)
    with pytest.raises(ValueError, match="shape"):
        overlap_table(zeros, zeros[:1])
    with pytest.raises(ValueError, match="float32"):
        overlap_table(zeros.astype(np.float32), zeros)
