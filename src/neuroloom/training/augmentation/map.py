r"""The map that turns, mirrors and bends a crop: from each voxel of the result back to a place in the crop.

    place = R P (v + jitter(v) + misalignment(z))        all relative to the centres of result and crop

    jitter          elastic: random displacements of control points, linear between them
    misalignment    slip (one section) or shift (all that follow) by whole voxels in y and x
    P               mirrors and a transposition of axes of equal voxel size
    R               rotation in a plane of equal voxel size

Everything but the misalignment is linear between control points: the map is made on those few points only.

    crop read                        result
    +---------------+                +-------+      The result may be turned by any angle, so that the crop has to
    |      / \      |                |       |      be up to sqrt(2) times larger, and a margin for the displacements
    |    /  .  \    |      ->        |   .   |      more: `input_shape` says how large. Where the crop is smaller, or
    |    \     /    |                |       |      ends at the border of its volume, raw is mirrored and no label
    +------\-/------+                +-------+      counts.

Values: Sheridan et al. 2022, doi:10.1038/s41592-022-01711-z. There, two elastic steps follow one another, the first of
them with jitter 0, which is a rotation; both rotate about the same axis. Here it is one step with one rotation, about
any axis that the voxel size permits.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from neuroloom.project import Augmentation
from neuroloom.volume.array import Triple
from neuroloom.volume.units import are_serial_sections

LARGEST_JITTER = 3.0
"""Displacements of control points are cut off here, in standard deviations."""


@dataclass(frozen=True)
class Map:
    """Where the voxels of a result come from, in voxels of the crop relative to its centre.

    Attributes:
        points: `(3, n_z, n_y, n_x)` float64, places of the control points.
        spacing: Voxels of the result between control points, z y x; the first lies on the first voxel.
        moves: `(3, z)` float64, added to the places of each section.
        shape: Extent of the result in voxels.
        matrix: `(3, 3)` float64, R P: turns directions in the result into directions in the crop.
    """

    points: NDArray[np.float64]
    spacing: tuple[float, float, float]
    moves: NDArray[np.float64]
    shape: Triple
    matrix: NDArray[np.float64]


def margin(parameters: Augmentation, voxel_size: tuple[float, ...]) -> Triple:
    """How far the bending and the misalignment of sections reach beyond the result, before it is turned.

    Args:
        parameters: what may happen.
        voxel_size: nm per voxel along z, y, x.

    Returns:
        Voxels on every side along z, y, x of the result.
    """
    misalignment = parameters.largest_misalignment if parameters.slip > 0 or parameters.shift > 0 else 0
    jitter = [math.ceil(LARGEST_JITTER * value) for value in _jitter(parameters, voxel_size)]
    return jitter[0], jitter[1] + misalignment, jitter[2] + misalignment


def input_shape(output_shape: Triple, parameters: Augmentation, voxel_size: tuple[float, ...]) -> Triple:
    """The crop to read so that no voxel of the result can come from outside it.

    Args:
        output_shape: the wanted result in voxels, z, y, x.
        parameters: what may happen.
        voxel_size: nm per voxel along z, y, x.

    Returns:
        Triple of the crop in voxels; along each axis even where the result's is even, and odd where it is odd.
    """
    half = [(n - 1) / 2 + more for n, more in zip(output_shape, margin(parameters, voxel_size), strict=True)]
    needed = [0.0, 0.0, 0.0]
    low, high = (math.radians(angle) for angle in parameters.rotation)
    for order in _orders(parameters, voxel_size):
        turned = [half[axis] for axis in order]
        # half a voxel where an even extent comes to lie on an odd one
        snap = [0.5 * ((output_shape[axis] + output_shape[a]) % 2) for a, axis in enumerate(order)]
        for plane in _planes(parameters, voxel_size):
            extent = list(turned)
            if plane is not None:
                a, b = plane
                extent[a] = _largest(turned[a], turned[b], low, high)
                extent[b] = _largest(turned[b], turned[a], low, high)
                if (output_shape[order[a]] + output_shape[order[b]]) % 2:
                    extent[a], extent[b] = extent[a] + 0.5, extent[b] + 0.5
            needed = [max(n, e + s) for n, e, s in zip(needed, extent, snap, strict=True)]
    shape = []
    for n, size in zip(needed, output_shape, strict=True):
        # rounding errors of right angles are not worth a voxel
        wanted = math.ceil(2 * n + 1 - 1e-6)
        shape.append(wanted + (wanted - size) % 2)
    return shape[0], shape[1], shape[2]


def _equal(voxel_size: tuple[float, ...], a: int, b: int) -> bool:
    return math.isclose(voxel_size[a], voxel_size[b], rel_tol=1e-3)


def _orders(parameters: Augmentation, voxel_size: tuple[float, ...]) -> list[tuple[int, ...]]:
    """Permitted permutations: axis a of the crop is axis order[a] of the result."""
    if not parameters.transpose:
        return [(0, 1, 2)]
    return [
        order
        for order in itertools.permutations(range(3))
        if all(_equal(voxel_size, a, axis) for a, axis in enumerate(order))
    ]


def _planes(parameters: Augmentation, voxel_size: tuple[float, ...]) -> list[tuple[int, int] | None]:
    """Pairs of axes of the crop in whose plane it may be rotated."""
    planes: list[tuple[int, int] | None] = []
    if parameters.rotation != (0.0, 0.0):
        planes.extend(plane for plane in ((1, 2), (0, 2), (0, 1)) if _equal(voxel_size, *plane))
    return planes or [None]


def _largest(a: float, b: float, low: float, high: float) -> float:
    """Maximum of |cos t| a + |sin t| b for low <= t <= high: half the extent of a turned rectangle."""
    best = max(abs(math.cos(t)) * a + abs(math.sin(t)) * b for t in (low, high))
    peak = math.atan2(b, a)
    for turn in range(math.floor(low / math.pi) - 1, math.ceil(high / math.pi) + 2):
        if any(low <= turn * math.pi + side <= high for side in (peak, -peak)):
            return math.hypot(a, b)
    return best


def _spacing(parameters: Augmentation, voxel_size: tuple[float, ...]) -> tuple[float, float, float]:
    """Distance of control points along each axis in its voxels."""
    z, y, x = (max(1.0, parameters.elastic_spacing * min(voxel_size) / size) for size in voxel_size)
    return z, y, x


def _jitter(parameters: Augmentation, voxel_size: tuple[float, ...]) -> list[float]:
    """Standard deviation of control points along each axis in its voxels; nothing is bent across serial sections."""
    jitter = [parameters.elastic_jitter * min(voxel_size) / size for size in voxel_size]
    return [0.0, *jitter[1:]] if are_serial_sections(voxel_size) else jitter


def _choose(generator: torch.Generator, number: int) -> int:
    return int(torch.randint(number, (), generator=generator))


def draw_map(
    generator: torch.Generator,
    parameters: Augmentation,
    voxel_size: tuple[float, ...],
    shape: Triple,
    crop_shape: tuple[int, ...],
) -> Map:
    """Draw a map.

    Args:
        generator: Source of all random numbers, on the CPU.
        parameters: What may happen.
        voxel_size: nm per voxel along z, y, x.
        shape: Extent of the result in voxels.
        crop_shape: Extent of the crop in voxels.
    """
    orders = _orders(parameters, voxel_size)
    order = orders[_choose(generator, len(orders))]
    signs = torch.ones(3, dtype=torch.float64)
    if parameters.mirror:
        signs = 1 - 2.0 * torch.randint(2, (3,), generator=generator).double()
    matrix = torch.eye(3, dtype=torch.float64)[list(order)] * signs[:, None]

    planes = _planes(parameters, voxel_size)
    plane = planes[_choose(generator, len(planes))]
    if plane is not None:
        low, high = parameters.rotation
        cosine, sine = _turn(low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64)))
        a, b = plane
        rotation = torch.eye(3, dtype=torch.float64)
        rotation[a, a] = rotation[b, b] = cosine
        rotation[a, b], rotation[b, a] = -sine, sine
        matrix = rotation @ matrix

    spacing = _spacing(parameters, voxel_size)
    axes = [
        torch.arange(math.ceil((n - 1) / step) + 1, dtype=torch.float64) * step - (n - 1) / 2
        for n, step in zip(shape, spacing, strict=True)
    ]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    if parameters.elastic_jitter > 0:
        draws = torch.randn(points.shape, generator=generator, dtype=torch.float64)
        jitter = torch.tensor(_jitter(parameters, voxel_size), dtype=torch.float64)
        points = points + draws.clamp(-LARGEST_JITTER, LARGEST_JITTER) * jitter[:, None, None, None]
    places = torch.einsum("ij,jzyx->izyx", matrix, points)
    # an even extent that comes to lie on an odd one has its centre between two voxels: move it onto one
    lies_on = matrix.abs().argmax(dim=1).tolist()
    snap = torch.tensor([0.5 * ((crop_shape[a] - shape[axis]) % 2) for a, axis in enumerate(lies_on)])
    places = places + snap[:, None, None, None]
    moves = (matrix[:, 1:] @ _draw_misalignment(generator, parameters, shape[0])).numpy()
    return Map(np.ascontiguousarray(places.numpy()), spacing, np.ascontiguousarray(moves), shape, matrix.numpy())


def _draw_misalignment(generator: torch.Generator, parameters: Augmentation, sections: int) -> torch.Tensor:
    """By how many whole voxels each section is displaced in y and x: (2, z)."""
    largest = parameters.largest_misalignment
    if largest == 0 or (parameters.slip == 0 and parameters.shift == 0):
        return torch.zeros((2, sections), dtype=torch.float64)
    slips, shifts = (
        torch.randint(-largest, largest + 1, (2, sections), generator=generator)
        * (torch.rand(sections, generator=generator) < probability)
        for probability in (parameters.slip, parameters.shift)
    )
    shifts = shifts.cumsum(1)
    # the middle stays where it is, since that is where the loss is computed
    return (slips + shifts - shifts[:, sections // 2, None]).clamp(-largest, largest).double()


def _turn(degrees: float) -> tuple[float, float]:
    """Cosine and sine, exact at right angles."""
    quarters, rest = divmod(degrees, 90)
    if rest == 0:
        return ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[int(quarters) % 4]
    return math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
