"""Tiles cover a region once, and grey values stand for what they should."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuroloom.prediction.tiles import round_up, tiles_of, to_uint8

extent = st.integers(1, 12)


@given(shape=st.tuples(extent, extent, extent), tile=st.tuples(extent, extent, extent))
def test_tiles_cover_a_region_once(shape: tuple[int, int, int], tile: tuple[int, int, int]) -> None:
    seen = np.zeros(shape, int)
    for begin, size in tiles_of(shape, tile):
        assert all(b % t == 0 and 0 < s <= t for b, s, t in zip(begin, size, tile, strict=True))
        seen[tuple(slice(b, b + s) for b, s in zip(begin, size, strict=True))] += 1
    assert (seen == 1).all()


def test_uint8_is_the_nearest_grey_value() -> None:
    values = torch.linspace(0, 1, 1001)
    assert (to_uint8(values).float() / 255 - values).abs().max() <= 0.5 / 255 + 1e-6
    grey = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(grey.float().div(255)), grey)
    assert to_uint8(torch.tensor([-0.1, 1.1])).tolist() == [0, 255]


def test_round_up() -> None:
    assert round_up((5, 8, 9), (4, 4, 4)) == (8, 8, 12)
