"""Looking up and numbering labels against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloom.fragments.labels import compact, occurring, relabel

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
@given(values=st.lists(ids, max_size=60), more=st.lists(ids, max_size=10))
def test_relabel_follows_the_table(values: list[int], more: list[int]) -> None:
    labels = np.array(values, dtype=np.uint64).reshape(-1, 1)
    table = {key: (key * 31 + 7) % 2**64 for key in sorted({*values, *more} - {0})}
    columns = (np.array(list(column), dtype=np.uint64) for column in (table.keys(), table.values()))
    result = relabel(labels, *columns)
    assert result.shape == labels.shape
    assert result[:, 0].tolist() == [table.get(value, 0) for value in values]


@settings(deadline=None)
@given(
    count=st.integers(1, 40), first=st.integers(1, 2**64 - 200), stranger=st.integers(0, 99), seed=st.integers(0, 99)
)
def test_ids_of_a_block_are_found_by_subtraction(count: int, first: int, stranger: int, seed: int) -> None:
    keys = np.uint64(first) + np.arange(count, dtype=np.uint64)
    keys = np.append(keys, keys[-1] + np.arange(2, 2 + count, dtype=np.uint64))
    random = np.random.default_rng(seed)
    values, rows = random.integers(1, 2**63, len(keys)).astype(np.uint64), random.integers(0, len(keys), 100)
    np.testing.assert_array_equal(relabel(keys[rows], keys, values), values[rows])
    labels = keys[rows]
    labels[stranger] = keys[count - 1] + np.uint64(1)  # in the gap
    with pytest.raises(KeyError, match=str(labels[stranger])):
        relabel(labels, keys, values)


def test_many_labels() -> None:
    labels = np.random.default_rng(0).integers(0, 2**63, 30000).astype(np.uint64)
    found, numbers = compact(np.repeat(labels, 2))
    np.testing.assert_array_equal(found, np.unique(labels))
    np.testing.assert_array_equal(found[numbers - 1], np.repeat(labels, 2))


def test_a_label_outside_the_table_is_named() -> None:
    with pytest.raises(KeyError, match="7"):
        relabel(np.array([0, 3, 7], np.uint64), np.array([3], np.uint64), np.array([1], np.uint64))


def test_an_empty_table_knows_nothing_but_zero() -> None:
    none = np.empty(0, np.uint64)
    assert relabel(np.zeros(3, np.uint64), none, none).tolist() == [0, 0, 0]
    with pytest.raises(KeyError, match="3"):
        relabel(np.array([3], np.uint64), none, none)


@given(shape=st.tuples(*[st.integers(0, 4)] * 3), count=st.integers(0, 9), seed=st.integers(0, 99))
@settings(deadline=None)
def test_numbers_occur_that_are_in_the_array(shape: tuple[int, int, int], count: int, seed: int) -> None:
    numbers = np.random.default_rng(seed).integers(0, count + 1, shape).astype(np.uint32)
    assert occurring(numbers, count).tolist() == [number in numbers for number in range(1, count + 1)]
