"""Tiles of declared extents: the network takes them, they cover regions, and they begin where its cells do."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from neuroloom.models.foreign.geometry import AxisTiles


@given(
    output=st.integers(1, 40),
    lost=st.integers(0, 20),
    step=st.integers(0, 12),
    halo=st.integers(0, 12),
    before=st.integers(0, 1),
    may_grow=st.booleans(),
    size=st.integers(1, 200),
    target=st.integers(1, 200),
)
def test_tiles_fit_the_network_and_cover_the_region(
    output: int, lost: int, step: int, halo: int, before: int, may_grow: bool, size: int, target: int
) -> None:
    extent = output + 2 * lost
    assume((step > 0 and may_grow) or output - 2 * halo - before >= max(step, 1))
    tiles = AxisTiles.of(extent, output, step, halo, before, may_grow)
    region = tiles.region(size)
    tile = tiles.tile(region, target)
    needed = tile + tiles.context
    # the network takes it: what is declared, or more by a multiple of the step
    grown = needed - extent
    assert grown == 0 if step == 0 or not may_grow else (grown >= 0 and grown % step == 0)
    assert step == 0 or tiles.factor == step
    # from `before` on, all of the tile lies in what is used of the output, and in the middle of the input
    assert halo + before + tile + halo <= output + grown
    assert tiles.margin == lost + halo + before
    begins = list(tiles.begins(region, tile))
    assert all(begin % tiles.factor == 0 for begin in begins)
    assert {voxel for begin in begins for voxel in range(begin, begin + tile)} == set(range(region))
    assert region >= size
    assert region - size < max(tiles.factor, tiles.smallest)
    assert tile >= tiles.smallest
    assert tile <= max(tiles.smallest, target + tiles.factor)


def test_nothing_left() -> None:
    with pytest.raises(ValueError, match="nothing is left"):
        AxisTiles.of(20, 8, 0, 4, 0)
    with pytest.raises(ValueError, match="less than a step is left"):
        AxisTiles.of(20, 8, 4, 2, 1, grows=False)
    assert AxisTiles.of(20, 8, 4, 4, 0).smallest == 4  # a larger input leaves something
