"""Sampling a crop at the places that a map names: by kernels on the processor, by tensor operations on other devices.

Both give the same: images to rounding, labels but for places that lie on the border of two voxels to within rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neuroloom.training.augmentation.kernels import ONE, look_up, look_up_descriptors, sample_raw
from neuroloom.training.augmentation.map import Map
from neuroloom.training.windows import Window
from neuroloom.volume.array import Triple

WHITE = 255
"""White of an image of 8 bits."""

PAIRS = ((0, 1), (0, 2), (1, 2))
"""Axes of the Pearson coefficients, in the order of their channels."""


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


def sample_descriptors(descriptors: Window, places: Map, out: torch.Tensor) -> None:
    """Descriptors of the voxels nearest to the middle of a map, as seen from its result.

    They are not interpolated: halfway between those of two neurites lie those of none.

    Args:
        descriptors: `(Z, Y, X, 11)` uint8, 0 … 255 for 0 … 1: descriptors and presence; mirrored outside.
        places: Where voxels come from.
        out: `(10, z, y, x)` float32, no larger than the map; filled with values in [0, 1] on the device where it is.
    """
    z, y, x = out.shape[1:]
    if out.device.type == "cpu":
        points, spacing, moves, begin = _arguments(places, (z, y, x))
        matrix = np.ascontiguousarray(places.matrix)
        centre = _centre(descriptors)
        look_up_descriptors(descriptors.values, centre, matrix, points, spacing, moves, begin, out.numpy())
        return
    found, mirrored = nearest_descriptors(descriptors, places_of(places, (z, y, x), out.device))
    out.copy_(turn_descriptors(found, torch.from_numpy(places.matrix), mirrored))


def turn_descriptors(descriptors: torch.Tensor, matrix: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """Descriptors as they are in an image that is turned or mirrored.

    Offsets turn like vectors and covariances like matrices. Where a network doubts whether there is a neurite at all,
    its descriptors are weaker by the presence p: offsets and Pearson coefficients of 0 are then not 1/2 but p / 2. So
    a membrane has descriptors of 0 from whichever side it is seen.

    Args:
        descriptors: `(11, ...)` in [0, 1]: mean offsets z y x, variances zz yy xx, Pearson coefficients zy zx yx, size
            and presence.
        matrix: `(3, 3)` orthogonal, turns directions in the result into those in the image.
        mirrored: `(3, ...)` bool, along which axes of the image they are seen as in a mirror beforehand.

    Returns:
        `(10, ...)` in [0, 1].
    """
    none = descriptors[10] / 2
    signs = 1 - 2 * mirrored.float()
    offsets = (descriptors[:3] - none) * signs
    deviations = descriptors[3:6].sqrt()
    covariances = torch.diag_embed(descriptors[3:6].movedim(0, -1))
    for channel, (a, b) in zip((6, 7, 8), PAIRS, strict=True):
        pearson = torch.where(none > 0, (descriptors[channel] - none) / none, 0) * signs[a] * signs[b]
        covariances[..., a, b] = covariances[..., b, a] = pearson * deviations[a] * deviations[b]
    matrix = matrix.to(descriptors)
    offsets = torch.einsum("ij,i...->j...", matrix, offsets) + none
    covariances = matrix.T @ covariances @ matrix
    variances = torch.diagonal(covariances, dim1=-2, dim2=-1).movedim(-1, 0).clamp(0, 1)
    pearsons = []
    for a, b in PAIRS:
        both = (variances[a] * variances[b]).sqrt()
        pearsons.append((torch.where(both > 0, covariances[..., a, b] / both, 0) + 1) * none)
    return torch.cat([offsets, variances, torch.stack(pearsons), descriptors[9:10]]).clamp(0, 1)


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
        voxel = _nearest_voxel(places[axis], size)
        inside &= (voxel >= 0) & (voxel < size)
        index = index * size + voxel.clamp(0, size - 1)
    # taken by index: ids may be larger than what a float can tell apart
    return labels.reshape(-1)[index] * inside, roles.reshape(-1)[index] * inside


def nearest_descriptors(descriptors: Window, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Descriptors of the voxels nearest to places.

    Args:
        descriptors: `(Z, Y, X, 11)` uint8; mirrored outside of their array, no place lies outside of the window.
        places: `(3, z, y, x)` float64 relative to the window's centre, in voxels.

    Returns:
        `(11, z, y, x)` float32 in [0, 1], and `(3, z, y, x)` bool: along which axes they are seen as in a mirror.
    """
    index, mirrored = torch.zeros(places.shape[1:], dtype=torch.int64, device=places.device), []
    for axis, size in enumerate(descriptors.shape):
        voxel = _nearest_voxel(places[axis], size).clamp(0, size - 1)
        mirrored.append(torch.from_numpy(descriptors.mirrored(axis)).to(places.device)[voxel])
        index = index * size + voxel
    values = torch.from_numpy(descriptors.read_mirrored()).to(places.device)
    return values.reshape(-1, values.shape[3])[index].movedim(-1, 0).float() / WHITE, torch.stack(mirrored)


def _nearest_voxel(places: torch.Tensor, size: int) -> torch.Tensor:
    """Places along one axis, relative to the centre of `size` voxels, to voxels, which may lie outside."""
    place = ((places + (size - 1) / 2) * ONE).round() / ONE
    return (place + 0.5).floor().long()


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
