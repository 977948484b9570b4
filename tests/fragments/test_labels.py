"""Looking up and numbering labels against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloom.fragments.labels import compact, relabel, unique

ids = st.integers(0, 2**64 - 1) | st.integers(0, 5)


@settings(deadline=None)
@given(st.lists(ids, max_size=60))
def test_numbering_is_that_of_numpy(values: list[int]) -> None:
    labels = np.array(values, dtype=np.uint64)
    expected = np.unique(labels[labels > 0])
    found, numbers = compact(labels)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.concatenate([np.zeros(1, np.uint64), expected])[numbers], labels)


@settings(deadline=None)
@given(st.lists(ids, max_size=60))
def test_relabel_follows_the_table(values: list[int]) -> None:
    labels = np.array(values, dtype=np.uint64).reshape(-1, 1)
    table = {key: (key * 31 + 7) % 2**63 for key in set(values) - {0}}
    keys = np.array(list(table), dtype=np.uint64)
    result = relabel(labels, keys, np.array(list(table.values()), dtype=np.uint64))
    assert result.shape == labels.shape
    assert result[:, 0].tolist() == [table.get(value, 0) for value in values]


def test_many_labels() -> None:
    labels = np.random.default_rng(0).integers(0, 2**63, 30000).astype(np.uint64)
    np.testing.assert_array_equal(unique(np.repeat(labels, 2)), np.unique(labels))


def test_a_label_outside_the_table_is_named() -> None:
    with pytest.raises(KeyError, match="7"):
        relabel(np.array([0, 3, 7], np.uint64), np.array([3], np.uint64), np.array([1], np.uint64))
