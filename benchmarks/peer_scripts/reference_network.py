"""The published U-Net in plain torch, for the scripts beside it: layers and their order are those of ours."""

from __future__ import annotations

import torch


def double_convolution(below: int, maps: int) -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Conv3d(below, maps, 3), torch.nn.ReLU(), torch.nn.Conv3d(maps, maps, 3), torch.nn.ReLU()
    )


def crop(values: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    begins = [(have - want) // 2 for have, want in zip(values.shape[2:], shape, strict=True)]
    z, y, x = (slice(b, b + n) for b, n in zip(begins, shape, strict=True))
    return values[:, :, z, y, x]


class Network(torch.nn.Module):
    """Valid U-Net; gives one output in [0, 1] for each number of channels in `heads`."""

    def __init__(self, inputs: int, feature_maps: int, growth: int, factors: list[list[int]], heads: list[int]) -> None:
        super().__init__()
        maps = [feature_maps * growth**level for level in range(len(factors) + 1)]
        self.down = torch.nn.ModuleList(double_convolution(a, b) for a, b in zip([inputs, *maps], maps, strict=False))
        self.pool = torch.nn.ModuleList(torch.nn.MaxPool3d(factor) for factor in factors)
        self.grow = torch.nn.ModuleList(
            torch.nn.ConvTranspose3d(maps[level + 1], maps[level], factor, factor)
            for level, factor in enumerate(factors)
        )
        self.up = torch.nn.ModuleList(double_convolution(2 * n, n) for n in maps[:-1])
        self.heads = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Conv3d(maps[0], channels, 1), torch.nn.Sigmoid()) for channels in heads
        )

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        skips = []
        values = torch.cat(inputs, dim=1)
        for convolve, pool in zip(self.down, self.pool, strict=False):
            skips.append(convolve(values))
            values = pool(skips[-1])
        values = self.down[-1](values)
        for level in reversed(range(len(self.pool))):
            values = self.grow[level](values)
            values = self.up[level](torch.cat([crop(skips[level], values.shape[2:]), values], dim=1))
        return tuple(head(values) for head in self.heads)
