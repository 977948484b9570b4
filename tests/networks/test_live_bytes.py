"""Bytes of tensors are counted as long as they are there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neuroloom.networks.live_bytes import LiveBytes


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_bytes_are_counted_while_anything_uses_them(device: str) -> None:
    with LiveBytes() as live:
        whole = torch.zeros(1000, device=device)
        part = whole[10:]  # shares its memory
        assert live.most == 4000
        del whole
        other = torch.zeros(500, device=device)
        assert live.most == 6000
        del part
        more = torch.zeros(800, device=device)
        assert live.most == 6000  # 2000 + 3200 are less
        more.add_(1)
        largest = torch.zeros(1000, device=device)
        assert live.most == 2000 + 3200 + 4000
    del other, more, largest


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_known_without_running_it_is_what_running_it_gives(dtype: torch.dtype) -> None:
    def results(device: str) -> list[torch.Tensor]:
        values = torch.full((1, 2, 3, 4, 5), 0.5, dtype=dtype, device=device)
        with LiveBytes():
            return [
                values * 2,
                values + 1,
                torch.sigmoid(values),
                values.div_(3),
                values.round_(),
                values.clamp_(0, 1),
                torch.clamp_min(values, 0.1, out=torch.empty_like(values)),
                nn.functional.interpolate(values, scale_factor=(1, 2, 3), mode="trilinear"),
                nn.functional.interpolate(values, scale_factor=(2, 1, 3), mode="nearest"),
                values * torch.ones(7, 1, 2, 3, 4, 1, dtype=torch.float32, device=device),
            ]

    for known, real in zip(results("meta"), results("cpu"), strict=True):
        assert (known.shape, known.dtype, known.is_meta) == (real.shape, real.dtype, True)
