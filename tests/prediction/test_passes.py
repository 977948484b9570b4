"""One pass each, against what PyTorch makes in several, or what is obvious."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloom.prediction.passes import copy, look_up, looks_up, pool

extents = st.tuples(*[st.integers(1, 7)] * 3)


def planes(channels: int, shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """`(1, c, z, y, x)`, channels of a voxel side by side, more than half of the values 0."""
    values = torch.rand((1, channels, *shape), generator=torch.Generator().manual_seed(seed)).sub_(0.6).clamp_min_(0)
    return values.to(dtype).contiguous(memory_format=torch.channels_last_3d)


@settings(max_examples=100, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 11)] * 3),
    factor=st.tuples(*[st.integers(1, 5)] * 3),
    channels=st.integers(1, 9),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_pooling_takes_the_largest(
    shape: tuple[int, int, int], factor: tuple[int, int, int], channels: int, dtype: torch.dtype
) -> None:
    values = planes(channels, shape, dtype)
    pooled = [size // along for size, along in zip(shape, factor, strict=True)]
    slab = torch.full((1, channels, pooled[0] + 2, *pooled[1:]), -1.0, dtype=dtype)
    slab = slab.contiguous(memory_format=torch.channels_last_3d)
    pool(values, factor, slab[:, :, 2:])
    assert (slab[:, :, :2] == -1).all()
    for z, y, x in itertools.product(*map(range, pooled)):
        cell = values[0, :, z * factor[0] :, y * factor[1] :, x * factor[2] :]
        cell = cell[:, : factor[0], : factor[1], : factor[2]]
        assert torch.equal(slab[0, :, z + 2, y, x], cell.amax((1, 2, 3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_looked_up(dtype: torch.dtype) -> None:
    """Eight bits into some channels of a place, sixteen bits with their sign."""
    grey = torch.randint(0, 256, (1, 3, 4, 6, 5), dtype=torch.uint8).contiguous(memory_format=torch.channels_last_3d)
    place = planes(5, (4, 4, 5), dtype)
    before = place.clone()
    look_up(grey[:, :, :, 1:5], torch.arange(256.0).div_(-255).to(dtype), place[:, 2:])
    assert torch.equal(place[:, :2], before[:, :2])
    assert torch.equal(place[:, 2:], grey[:, :, :, 1:5].float().div_(-255).to(dtype))

    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    squares = every.float().square().to(dtype)
    found = torch.empty((1, 4, 16, 32, 32), dtype=dtype, memory_format=torch.channels_last_3d)
    look_up(every.view(1, 16, 32, 32, 4).permute(0, 4, 1, 2, 3), squares, found)
    integers = torch.int32 if dtype == torch.float32 else torch.int16  # NaNs too
    assert torch.equal(found.permute(0, 2, 3, 4, 1).reshape(-1).view(integers), squares.view(integers))


def test_what_cannot_be_looked_up() -> None:
    assert looks_up(torch.zeros(1, dtype=torch.uint8))
    assert not looks_up(torch.zeros(1))  # there are too many different numbers


@settings(max_examples=100, deadline=None)
@given(
    shape=extents,
    channels=st.integers(1, 17),
    first=st.integers(0, 9),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.uint8]),
)
def test_a_copy_leaves_what_lies_beside_it(
    shape: tuple[int, int, int], channels: int, first: int, dtype: torch.dtype
) -> None:
    """With channels that fit into larger numbers, and with others."""
    values = torch.randint(0, 99, (1, channels, shape[0], shape[1] + 2, shape[2] + 1)).to(dtype)
    values = values.contiguous(memory_format=torch.channels_last_3d)[:, :, :, 2:, 1:]
    place = planes(channels + 2 * first, shape, dtype)
    expected = place.clone()
    expected[:, first : first + channels] = values
    copy(place[:, first : first + channels], values)
    assert torch.equal(place, expected)
