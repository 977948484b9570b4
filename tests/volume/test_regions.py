"""Regions, slabs and stored boxes cover what they should, within bounds."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroloom.volume import create_volume, open_volume, regions
from neuroloom.volume.regions import regions_of, slabs_of, stored_box


@given(st.tuples(*[st.integers(1, 30_000)] * 3), st.tuples(*[st.integers(0, 50)] * 3))
def test_regions_lie_inside_and_apart(shape: tuple[int, int, int], begin: tuple[int, int, int]) -> None:
    found = regions_of((begin, shape))
    if math.prod(shape) <= regions.WHOLE:
        assert found == [(begin, shape)]
    assert sum(math.prod(s) for _, s in found) <= regions.WHOLE
    for at, extent in found:
        assert all(b <= a and a + e <= b + s for a, e, b, s in zip(at, extent, begin, shape, strict=True))
    for axis in range(3):
        spans = sorted({(at[axis], at[axis] + extent[axis]) for at, extent in found})
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))


@given(st.tuples(st.integers(1, 700), st.integers(1, 3000), st.integers(1, 3000)), st.integers(0, 90))
def test_slabs_cover_a_box_once(shape: tuple[int, int, int], first: int) -> None:
    next_section = first
    for begin, extent in slabs_of(((first, 5, 6), shape), 64):
        assert begin == (next_section, 5, 6)
        assert extent[1:] == shape[1:]
        assert math.prod(extent) <= max(1 << 23, math.prod(shape[1:]))
        next_section += extent[0]
    assert next_section == first + shape[0]


@pytest.mark.parametrize("shards", [None, (32, 32, 32)])
def test_a_labelled_block_in_a_large_volume_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: tuple[int, int, int] | None
) -> None:
    volume = create_volume(
        tmp_path / "a.zarr", "m", (100, 200, 300), np.uint8, (8, 8, 8), chunks=(16, 16, 16), shards=shards
    )
    volume.write((50, 60, 70), np.ones((5, 6, 7), np.uint8))
    opened = open_volume(tmp_path / "a.zarr", "m")
    assert stored_box(opened) == ((0, 0, 0), (100, 200, 300))
    monkeypatch.setattr(regions, "WHOLE", 1000)
    (z, y, x), extent = stored_box(opened)
    assert z <= 50 < 55 <= z + extent[0] <= 100
    assert y <= 60 < 66 <= y + extent[1]
    assert x <= 70 < 77 <= x + extent[2]
    assert math.prod(extent) <= 64**3
