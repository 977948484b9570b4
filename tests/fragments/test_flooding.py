"""Seeded watershed against an obvious one with a heap, and against mahotas."""

from __future__ import annotations

import heapq
from typing import Any

import mahotas
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from neuroloom.fragments.flooding import flood


def flood_with_a_heap(levels: NDArray[Any], seeds: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The definition: highest level first, among equals first come first served."""
    labels = seeds.copy()
    heap = [(-int(levels[tuple(p)]), i, tuple(p)) for i, p in enumerate(np.argwhere(seeds))]
    heapq.heapify(heap)
    arrived = len(heap)
    while heap:
        _, _, (z, y, x) = heapq.heappop(heap)
        for place in [(z - 1, y, x), (z, y - 1, x), (z, y, x - 1), (z, y, x + 1), (z, y + 1, x), (z + 1, y, x)]:
            if all(0 <= p < size for p, size in zip(place, labels.shape, strict=True)) and labels[place] == 0:
                labels[place] = labels[z, y, x]
                heapq.heappush(heap, (-int(levels[place]), arrived, place))
                arrived += 1
    return labels


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    heights=st.sampled_from([1, 3, 1000, 70000]),
    seeds=st.integers(0, 6),
    seed=st.integers(0, 2**16),
)
def test_is_the_definition(shape: tuple[int, int, int], heights: int, seeds: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    levels = random.integers(0, heights, shape).astype(np.uint32)
    markers = np.zeros(shape, dtype=np.uint32)
    markers.flat[random.integers(0, markers.size, seeds)] = np.arange(1, seeds + 1)
    np.testing.assert_array_equal(flood(levels, markers), flood_with_a_heap(levels, markers))


def test_agrees_with_mahotas_voxel_by_voxel() -> None:
    random = np.random.default_rng(3)
    levels = ndimage.gaussian_filter(random.random((30, 40, 50)) * 20000, 2).astype(np.uint16)
    markers, count = ndimage.label(ndimage.maximum_filter(levels, 5) == levels)
    assert count > 50
    expected = mahotas.cwatershed(levels.max() - levels, markers)
    np.testing.assert_array_equal(flood(levels, markers.astype(np.uint32)), expected)


def test_every_label_hangs_together() -> None:
    random = np.random.default_rng(4)
    levels = random.integers(0, 50, (12, 13, 14)).astype(np.uint16)
    markers = np.zeros(levels.shape, dtype=np.uint32)
    markers[2, 3, 4], markers[9, 9, 9] = 1, 2
    labels = flood(levels, markers)
    assert [ndimage.label(labels == i)[1] for i in (1, 2)] == [1, 1]
    assert labels.min() == 1
