"""Blocks and tiles: what they cover, what they cost, what they need."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloom.networks.unet import UNetParameters, flop, input_shape
from neuroloom.prediction import planning
from neuroloom.prediction.planning import balanced_block, block_operations, choose_tile, default_block, tile_bytes
from neuroloom.prediction.stage import chunk_of_block

LSD = UNetParameters(in_channels=1, heads=(("lsd", 10),), feature_maps=16, downsampling=((2, 2, 2), (5, 5, 5)))
AFFINITIES = LSD.model_copy(update={"in_channels": 11, "heads": (("affinities", 3),), "feature_maps": 8})
PAIR = [LSD, AFFINITIES]
extent = st.integers(1, 300)


@settings(max_examples=60)
@given(shape=st.tuples(extent, extent, extent), factor=st.tuples(*[st.integers(1, 12)] * 3), target=st.integers(8, 200))
def test_balanced_blocks(shape: tuple[int, int, int], factor: tuple[int, int, int], target: int) -> None:
    block = balanced_block(shape, factor, target)
    for size, step, extent_ in zip(shape, factor, block, strict=True):
        assert extent_ % step == 0
        assert extent_ < target + step
        assert -(-size // extent_) <= -(-size // target)  # never more blocks than the target would need
    chunk = chunk_of_block(block)
    assert all(b % c == 0 and c <= 64 for b, c in zip(block, chunk, strict=True))


@pytest.mark.parametrize(
    ("shape", "mirrors", "block"),
    [
        ((100, 100, 100), 1, (100, 100, 100)),
        ((250, 250, 250), 8, (250, 250, 250)),
        ((520, 520, 520), 1, (260, 260, 260)),
        ((520, 520, 520), 8, (260, 260, 260)),
        ((520, 520, 520), 16, (180, 180, 180)),  # too much work for one block otherwise
        ((10_000, 10_000, 10_000), 1, (380, 380, 380)),
    ],
)
def test_default_blocks(shape: tuple[int, int, int], mirrors: int, block: tuple[int, int, int]) -> None:
    assert default_block(shape, PAIR, mirrors) == block
    assert mirrors * sum(block_operations(PAIR, block)) <= planning.OPERATIONS


def test_networks_of_any_size_have_a_block() -> None:
    wide = LSD.model_copy(update={"feature_maps": 64, "growth": 6})
    assert 8 <= default_block((1000, 1000, 1000), [wide])[0] < default_block((1000, 1000, 1000), [LSD])[0]


def test_operations_are_those_of_all_tiles() -> None:
    lsd, affinities = block_operations(PAIR, (100, 120, 60), memory=1e9)
    region = input_shape(AFFINITIES, (100, 120, 60))
    region = tuple(-(-r // 10) * 10 for r in region)  # type: ignore[assignment]
    expected = 0
    tile = choose_tile(LSD, region, 1e9)
    assert tile != region
    for begin in itertools.product(*(range(0, r, t) for r, t in zip(region, tile, strict=True))):
        cut = [min(t, r - b) for b, r, t in zip(begin, region, tile, strict=True)]
        expected += flop(LSD, input_shape(LSD, cut))
    assert lsd == expected
    assert affinities == flop(AFFINITIES, input_shape(AFFINITIES, (100, 120, 60)))  # in one piece


@settings(max_examples=40, deadline=None)
@given(shape=st.tuples(*[st.integers(1, 40).map(lambda n: 10 * n)] * 3), memory=st.sampled_from([1e8, 1e9, 6e9]))
def test_the_largest_tile_of_equal_parts_that_fits(shape: tuple[int, int, int], memory: float) -> None:
    tile = choose_tile(LSD, shape, memory)
    assert all(t % 10 == 0 and t <= s for t, s in zip(tile, shape, strict=True))
    assert tile == (10, 10, 10) or tile_bytes(LSD, tile) <= memory
    parts = math.ceil(max(shape) / max(tile))
    if parts > 1:
        fewer = balanced_block(shape, (10, 10, 10), math.ceil(max(shape) / (parts - 1)))
        assert tile_bytes(LSD, fewer) > memory


def test_more_memory_wastes_less() -> None:
    costs = [sum(block_operations(PAIR, (260, 260, 260), memory)) for memory in (1e9, 6e9, 60e9)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > 1.5 * costs[2]
