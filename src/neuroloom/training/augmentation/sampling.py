"""Sampling a crop at the places that a map names: by kernels on the processor, by tensor operations on other devices.

Both give the same: images to rounding, labels but for places that lie on the border of two voxels to within rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neuroloom.training.augmentation.kernels import ONE, look_up, sample_raw
from neuroloom.training.augmentation.map import Map
from neuroloom.training.windows import Window
from neuroloom.volume.array import Triple

WHITE = 255
"""White of an image of 8 bits."""


def sample_image(image: Window, places: Map, out: torch.Tensor) -> None:
    """Trilinear interpolation of an image in the middle of a map.

    Args:
        image: uint8, or float32 in [0, 1]; mirrored outside.
        places: Where voxels come from.
        out: `(z, y, x)` float32, no larger than the map; filled with values in [0, 1] on the device where it is.
    """
    scale = np.float32(1 / WHITE if image.values.dtype == np.uint8 else 1)
    if out.device.type == "cpu":
        sample_raw(image.values, _centre(image), *_arguments(places, _shape(out)), scale, out.numpy())
        return
    values = torch.from_numpy(image.read_mirrored()).to(out.device)
    out.copy_(interpolate(values, places_of(places, _shape(out), out.device), float(scale)))


def sample_labels(labels: Window, roles: Window, places: Map, out: torch.Tensor, out_roles: torch.Tensor) -> None:
    """Label and role of the voxels nearest to the middle of a map, both 0 where a place lies outside.

    Args:
        labels: Integers; outside is what lies outside of the region or its array.
        roles: uint8, of the same region.
        places: Where voxels come from.
        out: `(z, y, x)` int64, no larger than the map; filled on the device where it is.
        out_roles: `(z, y, x)` uint8, likewise.
    """
    if out.device.type == "cpu":
        low = np.array([max(0, b) for b in labels.begin])
        edges = zip(labels.begin, labels.shape, labels.values.shape, strict=True)
        high = np.array([min(b + extent, size) for b, extent, size in edges])
        look_up(
            *(labels.values, roles.values, _centre(labels), low, high),
            *_arguments(places, _shape(out)),
            *(out.numpy(), out_roles.numpy()),
        )
        return
    found = nearest(
        torch.from_numpy(labels.read().astype(np.int64, copy=False)).to(out.device),
        torch.from_numpy(roles.read()).to(out.device),
        places_of(places, _shape(out), out.device),
    )
    out.copy_(found[0])
    out_roles.copy_(found[1])


def places_of(places: Map, shape: Triple, device: torch.device) -> torch.Tensor:
    """The middle of a map written out.

    Args:
        places: The map.
        shape: Extent of its middle in voxels.
        device: Where the result shall be.

    Returns:
        `(3, z, y, x)` float64, in voxels of the crop relative to its centre.
    """
    points = torch.from_numpy(places.points).to(device)
    begin = _begin(places, shape)
    for axis in (2, 1, 0):  # x first: the work is in the last step, which then is contiguous
        position = torch.arange(begin[axis], begin[axis] + shape[axis], device=device, dtype=torch.float64)
        position = position / places.spacing[axis]
        before = position.floor().long().clamp(max=max(0, points.shape[axis + 1] - 2))
        after = (before + 1).clamp(max=points.shape[axis + 1] - 1)
        weight = (position - before).reshape([-1 if a == axis + 1 else 1 for a in range(4)])
        points = torch.lerp(points.index_select(axis + 1, before), points.index_select(axis + 1, after), weight)
    return points + torch.from_numpy(places.moves).to(device)[:, begin[0] : begin[0] + shape[0], None, None]


def interpolate(image: torch.Tensor, places: torch.Tensor, scale: float) -> torch.Tensor:
    """Trilinear interpolation, mirrored outside.

    Args:
        image: `(Z, Y, X)` uint8 or float32.
        places: `(3, z, y, x)` float64 relative to its centre, in voxels.
        scale: What values are multiplied with.

    Returns:
        `(z, y, x)` float32.
    """
    low, weights = [], []
    for axis, size in enumerate(image.shape):
        # to the digits of the kernels, so that right angles are exact here, too
        place = ((places[axis] + (size - 1) / 2) * ONE).round() / ONE
        whole = place.floor()
        weights.append((place - whole).float())
        low.append(whole.long())
    flat = image.reshape(-1)

    def values(dz: int, dy: int, dx: int) -> torch.Tensor:
        index = torch.zeros_like(low[0])
        for axis, (size, step) in enumerate(zip(image.shape, (dz, dy, dx), strict=True)):
            index = index * size + _mirrored(low[axis] + step, size)
        return flat[index].float()

    planes = []
    for dz in (0, 1):
        rows = [torch.lerp(values(dz, dy, 0), values(dz, dy, 1), weights[2]) for dy in (0, 1)]
        planes.append(torch.lerp(rows[0], rows[1], weights[1]))
    return torch.lerp(planes[0], planes[1], weights[0]) * scale


def nearest(labels: torch.Tensor, roles: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Label and role of the voxels nearest to places, 0 outside.

    Args:
        labels: `(Z, Y, X)` int64.
        roles: `(Z, Y, X)` uint8.
        places: `(3, z, y, x)` float64 relative to their centre, in voxels.

    Returns:
        `(z, y, x)` int64 and uint8.
    """
    index = torch.zeros(places.shape[1:], dtype=torch.int64, device=labels.device)
    inside = torch.ones(places.shape[1:], dtype=torch.bool, device=labels.device)
    for axis, size in enumerate(labels.shape):
        place = ((places[axis] + (size - 1) / 2) * ONE).round() / ONE
        voxel = (place + 0.5).floor().long()
        inside &= (voxel >= 0) & (voxel < size)
        index = index * size + voxel.clamp(0, size - 1)
    # taken by index: ids may be larger than what a float can tell apart
    return labels.reshape(-1)[index] * inside, roles.reshape(-1)[index] * inside


def _mirrored(index: torch.Tensor, size: int) -> torch.Tensor:
    if size == 1:
        return torch.zeros_like(index)
    index = index.remainder(2 * size - 2)
    return torch.where(index < size, index, 2 * size - 2 - index)


def _shape(out: torch.Tensor) -> Triple:
    z, y, x = out.shape
    return z, y, x


def _centre(window: Window) -> NDArray[np.float64]:
    return np.array([b + (n - 1) / 2 for b, n in zip(window.begin, window.shape, strict=True)])


def _begin(places: Map, shape: Triple) -> list[int]:
    """First voxel of the middle of a map."""
    return [(whole - part) // 2 for whole, part in zip(places.shape, shape, strict=True)]


def _arguments(places: Map, shape: Triple) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """What the kernels want to know of a map."""
    return places.points, np.array(places.spacing), places.moves, np.array(_begin(places, shape))
