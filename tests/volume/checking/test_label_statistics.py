"""Pieces of labels found slab by slab are those of the whole."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from neuroloom.volume.checking.label_statistics import combine, measure_pieces


def slow_pieces(labels: NDArray[Any], mask: NDArray[Any] | None) -> list[tuple[int, int, bool]]:
    """The definition, label by label: a piece touches the border, or a voxel that the mask leaves out."""
    cube = np.ones((3, 3, 3), bool)
    inside = np.ones(labels.shape, bool) if mask is None else mask != 0
    rim = ndimage.binary_dilation(~np.pad(inside, 1, constant_values=False), cube)[1:-1, 1:-1, 1:-1]
    found = []
    for label in np.unique(labels[inside & (labels != 0)]):
        pieces, count = ndimage.label((labels == label) & inside, cube)
        for piece in range(1, count + 1):
            here = pieces == piece
            found.append((int(label), int(here.sum()), bool((here & rim).any())))
    return sorted(found)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    cuts=st.sets(st.integers(1, 8)),
    ids=st.integers(1, 4),
    masked=st.booleans(),
)
def test_pieces_of_slabs_are_those_of_the_whole(
    seed: int, shape: tuple[int, int, int], cuts: set[int], ids: int, masked: bool
) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, ids + 1, shape).astype(np.uint64) * np.uint64(2**40 + 1)
    mask = (random.random(shape) < 0.9).astype(np.uint8) if masked else None
    borders = [0, *sorted(c for c in cuts if c < shape[0]), shape[0]]
    slabs = [(labels[a:b], None if mask is None else mask[a:b]) for a, b in pairwise(borders)]
    found = measure_pieces(slabs)
    got = [(int(a), int(b), bool(c)) for a, b, c in zip(found.label, found.size, found.at_border, strict=True)]
    expected = slow_pieces(labels, mask)
    assert sorted(v[:2] for v in got) == [v[:2] for v in expected]
    if mask is None:
        assert sorted(got) == expected
    assert found.labelled == sum(v[1] for v in expected)
    assert found.inside == (labels.size if mask is None else int(mask.sum()))


def test_a_piece_beside_a_masked_voxel_is_at_the_border() -> None:
    labels = np.zeros((7, 7, 7), np.uint64)
    labels[3, 3, 3], labels[1, 1, 1] = 5, 6
    mask = np.ones(labels.shape, np.uint8)
    mask[3, 3, 4] = 0
    found = measure_pieces([(labels, mask)])
    assert dict(zip(found.label.tolist(), found.at_border.tolist(), strict=True)) == {5: True, 6: False}


def test_labels_of_several_regions() -> None:
    labels = np.zeros((5, 5, 5), np.uint64)
    labels[2, 2, 2] = 5
    both = combine([measure_pieces([(labels, None)]), measure_pieces([(labels * np.uint64(2), None)])] * 2)
    ids, sizes, at_border = both.by_label
    assert ids.tolist() == [5, 10]
    assert sizes.tolist() == [2, 2]
    assert not at_border.any()
    assert (both.total, both.labelled) == (500, 4)
