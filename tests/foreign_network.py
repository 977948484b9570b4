"""Networks of somebody else, small enough for tests: TorchScript with its declaration."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from neuroloom.files import write_text
from neuroloom.models.bioimageio.fused import extents, fuse
from neuroloom.networks.checkpoint import load_checkpoint
from neuroloom.project.template import to_toml

NEAREST = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
TURNED = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
EDGES: dict[str, Any] = {
    "file": "edges.pt",
    "voxel_size": [8.0, 8.0, 8.0],
    "neighborhood": NEAREST,
    "input": [14, 13, 12],
    "output": [10, 9, 8],
    "raw_range": [0.0, 1.0],
}
"""The declaration of `Edges`."""


class Edges(nn.Module):
    """Of each voxel and offset, the smaller value of both ends; two voxels of the border are lost."""

    def __init__(self, offsets: list[list[int]]) -> None:
        super().__init__()
        self.offsets = offsets

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        z, y, x = raw.size(2) - 4, raw.size(3) - 4, raw.size(4) - 4
        here = raw[:, 0, 2 : 2 + z, 2 : 2 + y, 2 : 2 + x]
        found = []
        for o in self.offsets:
            a, b, c = 2 + o[0], 2 + o[1], 2 + o[2]
            found.append(torch.minimum(here, raw[:, 0, a : a + z, b : b + y, c : c + x]))
        return torch.stack(found, 1)


def edges(raw: NDArray[Any], offsets: list[list[int]]) -> NDArray[Any]:
    """What `Edges` is meant to give for all of a volume, reflected at its borders."""
    padded, shape = np.pad(raw, 2, mode="reflect"), raw.shape
    ends = [
        padded[tuple(slice(2 + o, 2 + o + n) for o, n in zip(offset, shape, strict=True))]
        for offset in ([0, 0, 0], *offsets)
    ]
    return np.stack([np.minimum(ends[0], end) for end in ends[1:]])


def save_script(module: nn.Module, path: Path) -> Path:
    """A module as TorchScript."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(module if isinstance(module, torch.jit.ScriptModule) else torch.jit.script(module), path)
    return path


def declare(path: Path, values: dict[str, Any], **changed: Any) -> Path:
    """A declaration; a key that is changed to None is left out."""
    given = {key: value for key, value in {**values, **changed}.items() if value is not None}
    write_text(path, "".join(f"{key} = {to_toml(value)}\n" for key, value in given.items()))
    return path


def declare_edges(path: Path, offsets: list[list[int]] = NEAREST, **changed: Any) -> Path:
    """`Edges` with its declaration, in the folder of `path`."""
    save_script(Edges(offsets), path.parent / "edges.pt")
    return declare(path, EDGES, neighborhood=offsets, **changed)


def declare_checkpoint(path: Path, checkpoint: Path, **changed: Any) -> Path:
    """All networks of a checkpoint as TorchScript, as somebody else would declare it, with the smallest input."""
    loaded = load_checkpoint(checkpoint)
    sizes = extents(loaded.lsd.metadata.network if loaded.lsd else None, loaded.metadata.network)
    save_script(fuse(loaded), path.parent / "their.pt")
    values = {
        "file": "their.pt",
        "voxel_size": list(loaded.metadata.voxel_size),
        "neighborhood": [list(offset) for offset in loaded.metadata.neighborhood],
        "input": list(sizes.smallest),
        "output": [a - b for a, b in zip(sizes.smallest, sizes.context, strict=True)],
        "step": list(sizes.step),
        "raw_range": [0, 1],
    }
    return declare(path, values, **changed)
