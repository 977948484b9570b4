"""Runs, and rows of them, against loops over voxels; ids of all kinds."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloom.training.descriptors.compute import _slabs
from neuroloom.training.descriptors.runs import find_rows, find_runs, sort_runs

IDS = st.sampled_from([0, 1, 2, -1, 2**32, 2**63 - 1, -(2**63)])


def volumes(seed: int, ids: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.choice(np.array(ids, np.int64), tuple(random.integers(1, 7, 3)))
    repeats = random.integers(1, 4, 3)
    window = np.array([sorted(random.choice(size + 1, 2, replace=False)) for size in labels.shape])
    return labels, repeats, window


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.lists(IDS, min_size=1, max_size=4))
def test_runs_are_those_one_sees(seed: int, ids: list[int]) -> None:
    labels, repeats, window = volumes(seed, ids)
    expected = []
    for z, y in itertools.product(*(range(*along) for along in window[:2])):
        x = window[2, 0]
        for label, equal in itertools.groupby(labels[z, y, slice(*window[2])].tolist()):
            length = len(list(equal))
            if label != 0:
                expected.append((z // repeats[0], y // repeats[1], z, y, x, x + length, label))
            x += length
    expected.sort(key=lambda run: run[:5])
    parts = [find_runs(labels, repeats, slab) for slab in _slabs(window, int(repeats[0]), 3)]
    found_labels = np.concatenate([found for found, _ in parts]).tolist()
    found = np.concatenate([runs for _, runs in parts]).tolist()
    assert [(*run, label) for run, label in zip(found, found_labels, strict=True)] == [run[2:] for run in expected]


@settings(deadline=None, max_examples=60)
@given(st.lists(IDS.filter(bool), max_size=30), st.lists(IDS.filter(bool), max_size=30))
def test_runs_are_sorted_by_label(wanted: list[int], seen: list[int]) -> None:
    labels = [np.array(values, np.int64) for values in (wanted, seen)]
    runs = [np.arange(4 * len(values), dtype=np.int32).reshape(-1, 4) for values in labels]
    sorted_wanted, first, sorted_seen, first_seen = sort_runs(labels[0], runs[0], labels[1], runs[1])
    ids = list(dict.fromkeys(wanted))
    assert len(first) == len(first_seen) == len(ids) + 1
    for number, label in enumerate(ids):
        for known, values, begins, found in (
            (labels[0], runs[0], first, sorted_wanted),
            (labels[1], runs[1], first_seen, sorted_seen),
        ):
            assert found[begins[number] : begins[number + 1]].tolist() == values[known == label].tolist()


def test_rows_gather_the_runs_of_blocks() -> None:
    # of one label: two runs in one row of blocks of 2 x 2 x 3 voxels, one in the next; then another label
    runs = np.array([[0, 0, 1, 2], [1, 1, 5, 8], [0, 2, 4, 5], [0, 0, 0, 9]], np.int32)
    rows, first = find_rows(np.array([0, 3, 4]), runs, np.array([2, 2, 3]))
    assert rows.tolist() == [[0, 0, 0, 3, 0, 2], [0, 1, 1, 2, 2, 3], [0, 0, 0, 3, 3, 4]]
    assert first.tolist() == [0, 2, 3]
