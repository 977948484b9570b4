"""Blocks and tiles: what they cover, what they cost, what they need."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloom.networks.architecture import UNetParameters, flop, input_shape
from neuroloom.prediction import planning
from neuroloom.prediction.planning import (
    balanced_block,
    block_operations,
    choose_tile,
    default_block,
    prediction_workers,
    volume_operations,
)
from neuroloom.prediction.tile_memory import tile_bytes
from neuroloom.prediction.tiles import extents, tiles_of
from neuroloom.volume.array import Triple
from neuroloom.volume.layout import chunk_of, shard_of

LSD = UNetParameters(in_channels=1, heads=(("lsd", 10),), feature_maps=16, downsampling=((2, 2, 2), (5, 5, 5)))
AFFINITIES = LSD.model_copy(update={"in_channels": 11, "heads": (("affinities", 3),), "feature_maps": 8})
PAIR = [LSD, AFFINITIES]
extent = st.integers(1, 300)


target = st.integers(8, 200)


@settings(max_examples=60)
@given(
    shape=st.tuples(extent, extent, extent),
    factor=st.tuples(*[st.integers(1, 12)] * 3),
    largest=st.tuples(target, target, target),
)
def test_balanced_blocks(
    shape: tuple[int, int, int], factor: tuple[int, int, int], largest: tuple[int, int, int]
) -> None:
    block = balanced_block(shape, factor, largest)
    for size, step, extent_, most in zip(shape, factor, block, largest, strict=True):
        assert extent_ % step == 0
        assert extent_ <= max(most, step) or size <= most
        assert extent_ >= step
        assert size <= extent_ or extent_ > max(most, step) / 2 - step  # no more blocks than it takes
    chunk = chunk_of(shape, block)
    shard = shard_of(shape, block, chunk)
    for size, extent_, c, s in zip(shape, block, chunk, shard, strict=True):
        assert s % c == 0
        assert s <= 544
        assert size <= extent_ or (extent_ % c == 0 and extent_ % s == 0)  # only one block writes what is in a file


@pytest.mark.parametrize(
    ("shape", "mirrors", "block"),
    [
        ((100, 100, 100), 1, (100, 100, 100)),
        ((250, 250, 250), 8, (250, 250, 250)),
        ((520, 520, 520), 1, (520, 520, 520)),
        ((1500, 520, 500), 1, (760, 520, 500)),
        ((1500, 520, 500), 100, (520, 200, 200)),  # too much work for one block otherwise
        ((10_000, 10_000, 10_000), 1, (1000, 520, 520)),
    ],
)
def test_default_blocks(shape: tuple[int, int, int], mirrors: int, block: tuple[int, int, int]) -> None:
    assert default_block(shape, PAIR, mirrors) == block
    assert mirrors * sum(block_operations(PAIR, block)) <= planning.OPERATIONS


def test_networks_of_any_size_have_a_block() -> None:
    wide = LSD.model_copy(update={"feature_maps": 64, "growth": 6})
    assert 8 <= default_block((1000, 1000, 1000), [wide])[1] < default_block((1000, 1000, 1000), [LSD])[1]


def _operations(networks: list[UNetParameters], shape: Triple, tile: Triple) -> int:
    return sum(
        flop(network, seen)
        for _, cut in tiles_of(shape, tile)
        for network, seen in zip(networks, extents(networks, cut), strict=True)
    )


def test_operations_are_those_of_all_tiles() -> None:
    shape = (100, 120, 60)
    lsd, affinities = block_operations(PAIR, (97, 115, 60), memory=8e8)
    tile = choose_tile(PAIR, shape, 8e8)
    assert tile != shape
    expected = [0, 0]
    for _, cut in tiles_of(shape, tile):
        descriptors = input_shape(AFFINITIES, cut)
        expected[0] += flop(LSD, input_shape(LSD, descriptors))
        expected[1] += flop(AFFINITIES, descriptors)
    assert [lsd, affinities] == expected


@pytest.mark.parametrize(
    ("block", "chunk"), [(520, 65), (250, 50), (64, 64), (2 * 127, 127), (4 * 67, 67), (509, 509), (20, 20)]
)
def test_chunks_are_neither_tiny_nor_cut_by_blocks(block: int, chunk: int) -> None:
    shape = (10 * block, block, block - 1)
    assert chunk_of(shape, (block, block, block)) == (chunk, min(64, block), min(64, block - 1))


def test_a_volume_has_the_operations_of_all_its_blocks() -> None:
    shape, block = (30, 70, 45), (20, 70, 40)
    expected = [0, 0]
    for cut in ((20, 70, 40), (20, 70, 5), (10, 70, 40), (10, 70, 5)):
        for number, count in enumerate(block_operations(PAIR, cut)):
            expected[number] += count
    assert volume_operations(PAIR, shape, block) == expected


@pytest.mark.parametrize("kernels", [(), ((1, 3, 3), (1, 3, 3), (1, 3, 1))])
@pytest.mark.parametrize(("shape", "memory"), [((40, 100, 150), 6e8), ((10, 140, 70), 2e8), ((40, 50, 50), 1e6)])
def test_of_all_equal_parts_that_fit_those_with_fewest_operations(
    kernels: tuple[Triple, ...], shape: Triple, memory: float
) -> None:
    networks = [LSD, AFFINITIES.model_copy(update={"kernels": kernels})]
    parts = {
        balanced_block(shape, (10, 10, 10), (shape[0], y, x))
        for y, x in itertools.product(range(10, shape[1] + 1, 10), range(10, shape[2] + 1, 10))
    }
    fit = [tile for tile in parts if tile_bytes(tuple(networks), tile) <= memory] or [(shape[0], 10, 10)]
    tile = choose_tile(networks, shape, memory)
    assert tile in fit
    assert len(fit) < len(parts)
    assert _operations(networks, shape, tile) == min(_operations(networks, shape, other) for other in fit)


def test_one_axis_is_cut_where_that_is_enough() -> None:
    whole = tile_bytes(tuple(PAIR), (100, 200, 200))
    assert choose_tile(PAIR, (100, 200, 200), whole) == (100, 200, 200)
    assert choose_tile(PAIR, (100, 200, 200), whole - 1) in [(100, 200, 100), (100, 100, 200)]


def test_more_memory_wastes_less() -> None:
    costs = [sum(block_operations(PAIR, (260, 260, 260), memory)) for memory in (1e9, 2e9, 60e9)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > 1.5 * costs[2]


def test_two_processes_on_each_gpu_one_on_other_devices() -> None:
    assert prediction_workers("cpu") == ["cpu"]
    assert prediction_workers("cpu, cpu") == ["cpu", "cpu"]
    assert prediction_workers("cuda:0,cuda:1") == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
