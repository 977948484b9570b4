r"""Augmentation: every crop is turned, mirrored, bent and shaken before the network sees it.

One map leads from each voxel of the result back to a place in the crop that was read, so that raw is interpolated once
(trilinear) and labels and mask are looked up once (nearest):

    place = R P (v + jitter(v) + misalignment(z))        all relative to the centres of result and crop

    jitter          elastic: random displacements of control points, linear between them
    misalignment    slip (one section) or shift (all that follow) by whole voxels in y and x
    P               mirrors and a transposition of axes of equal voxel size
    R               rotation in a plane of equal voxel size

Everything but the misalignment is linear between control points: the map is made on those few points and interpolated.
Afterwards raw changes its contrast and brightness, and, if asked, gets noise, defocused and missing sections.

    crop read                        result
    +---------------+                +-------+      The result may be turned by any angle, so that the crop has to
    |      / \      |                |       |      be up to sqrt(2) times larger, and a margin for the displacements
    |    /  .  \    |      ->        |   .   |      more: `input_shape` says how large. Where the crop is smaller, or
    |    \     /    |                |       |      ends at the border of its volume, raw is reflected and the mask
    +------\-/------+                +-------+      is False.

Values: Sheridan et al. 2022, doi:10.1038/s41592-022-01711-z. There, two elastic steps follow one another, the first of
them with jitter 0, which is a rotation; both rotate about the same axis. Here it is one step with one rotation, about
any axis that the voxel size permits.
"""

from __future__ import annotations

import itertools
import math
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

Shape = tuple[int, int, int]
Probability = Annotated[float, Field(ge=0, le=1)]

LARGEST_JITTER = 3.0
"""Displacements of control points are cut off here, in standard deviations."""


class Augmentation(BaseModel):
    """What may happen to a training crop, and how strongly."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mirror: bool = Field(True, description="Flip each axis with probability one half.")
    transpose: bool = Field(True, description="Permute axes; only those of equal voxel size are exchanged.")
    rotation: tuple[float, float] = Field(
        (0.0, math.pi / 2),
        description="Smallest and largest angle in radians; rotates only in planes of equal voxel size.",
    )
    elastic_spacing: float = Field(
        40.0,
        gt=0,
        description="Distance of the control points in voxels (of the finest axis: it is the same in nm on all).",
    )
    elastic_jitter: float = Field(
        2.0, ge=0, description="Standard deviation of a control point's displacement in voxels (of the finest axis)."
    )
    slip: Probability = Field(0.01, description="Probability that a section is displaced on its own.")
    shift: Probability = Field(0.01, description="Probability that a section and all that follow are displaced.")
    largest_misalignment: int = Field(
        1, ge=0, description="Largest displacement by slip and shift in voxels, in y and x."
    )
    intensity_scale: tuple[float, float] = Field((0.9, 1.1), description="Range of the factor of the contrast.")
    intensity_shift: tuple[float, float] = Field((-0.1, 0.1), description="Range of what is added to the brightness.")
    per_section: bool = Field(
        False, description="Serial sections: each z has its own intensity, and nothing is bent across sections."
    )
    noise: float = Field(0.0, ge=0, description="Largest standard deviation of Gaussian noise (raw is within 0 and 1).")
    defocused_sections: Probability = Field(0.0, description="Probability that a section is out of focus.")
    missing_sections: Probability = Field(0.0, description="Probability that a section is black.")

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Augmentation:
        for name in ("rotation", "intensity_scale", "intensity_shift"):
            low, high = getattr(self, name)
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise ValueError(f"{name} must be (smallest, largest), not ({low}, {high})")
        return self


NO_AUGMENTATION = Augmentation(
    mirror=False,
    transpose=False,
    rotation=(0.0, 0.0),
    elastic_jitter=0.0,
    slip=0.0,
    shift=0.0,
    intensity_scale=(1.0, 1.0),
    intensity_shift=(0.0, 0.0),
)
"""Nothing happens, apart from cutting the result out of the middle of the crop."""


def margin(parameters: Augmentation, voxel_size: tuple[float, ...]) -> Shape:
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


def input_shape(output_shape: Shape, parameters: Augmentation, voxel_size: tuple[float, ...]) -> Shape:
    """The crop to read so that no voxel of the result can come from outside it.

    Args:
        output_shape: the wanted result in voxels, z, y, x.
        parameters: what may happen.
        voxel_size: nm per voxel along z, y, x.

    Returns:
        Shape of the crop in voxels; along each axis even where the result's is even, and odd where it is odd.
    """
    half = [(n - 1) / 2 + more for n, more in zip(output_shape, margin(parameters, voxel_size), strict=True)]
    needed = [0.0, 0.0, 0.0]
    low, high = parameters.rotation
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
            needed = [max(n, e + s) for n, e, s in zip(needed, extent, snap, strict=True)]
    shape = []
    for n, size in zip(needed, output_shape, strict=True):
        # rounding errors of right angles are not worth a voxel
        wanted = math.ceil(2 * n + 1 - 1e-6)
        shape.append(wanted + (wanted - size) % 2)
    return shape[0], shape[1], shape[2]


def augment(
    raw: torch.Tensor,
    labels: torch.Tensor,
    mask: torch.Tensor,
    generator: torch.Generator,
    parameters: Augmentation,
    voxel_size: tuple[float, ...],
    raw_shape: Shape,
    label_shape: Shape,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Augment a batch, on the device where it is, each sample in its own way.

    Raw and labels have the same voxel size and the same centre, in the crop as in the result.

    Args:
        raw: (b, 1, Z, Y, X) float32 in [0, 1], best of the `input_shape` of `raw_shape`.
        labels: (b, z, y, x) int64, best of the `input_shape` of `label_shape`; its extents may differ from those of raw
            by even numbers only, since otherwise the centres are half a voxel apart.
        mask: (b, z, y, x), other than 0 where the labels count.
        generator: source of all random numbers, on the CPU, so that every device sees the same crops.
        parameters: what may happen.
        voxel_size: nm per voxel along z, y, x.
        raw_shape: the wanted extent of raw in voxels, z, y, x.
        label_shape: the wanted extent of the labels; may be smaller or larger than raw's, by even numbers.

    Returns:
        raw (b, 1, *raw_shape) float32 in [0, 1], labels (b, *label_shape) int64, and mask (b, *label_shape) bool,
        False also where a voxel comes from outside the crop (its label is 0 there, and raw is reflected).

    Raises:
        ValueError: the shapes do not fit together.
    """
    _check(raw, labels, mask, raw_shape, label_shape)
    grid_shape = tuple(max(a, b) for a, b in zip(raw_shape, label_shape, strict=True))
    results = []
    with torch.no_grad(), torch.autocast(raw.device.type, enabled=False):
        for sample in range(raw.shape[0]):
            points, sections = _draw_map(
                generator, parameters, voxel_size, (grid_shape[0], grid_shape[1], grid_shape[2]), tuple(raw.shape[2:])
            )
            places = _interpolate(points.to(raw.device), grid_shape, _spacing(parameters, voxel_size))
            if sections is not None:
                places = places + sections.to(raw.device)[:, :, None, None]
            new_raw = _sample_raw(raw[sample], _centre(places, raw_shape))
            new_raw = _change_intensity(new_raw, generator, parameters)
            results.append((new_raw, *_look_up(labels[sample], mask[sample], _centre(places, label_shape))))
    if not results:
        empty = labels.new_zeros((0, *label_shape))
        return raw.new_zeros((0, 1, *raw_shape)), empty, empty.bool()
    return (
        torch.stack([result[0] for result in results]),
        torch.stack([result[1] for result in results]),
        torch.stack([result[2] for result in results]),
    )


def _check(raw: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, raw_shape: Shape, label_shape: Shape) -> None:
    if raw.ndim != 5 or raw.shape[1] != 1 or labels.ndim != 4 or mask.shape != labels.shape:
        raise ValueError(
            "expected raw (b, 1, z, y, x), labels and mask (b, z, y, x), not "
            f"{tuple(raw.shape)}, {tuple(labels.shape)} and {tuple(mask.shape)}"
        )
    if raw.shape[0] != labels.shape[0]:
        raise ValueError(f"{raw.shape[0]} samples of raw, but {labels.shape[0]} of labels")
    for of_raw, of_labels in ((raw.shape[2:], labels.shape[1:]), (raw_shape, label_shape)):
        if any((a - b) % 2 for a, b in zip(of_raw, of_labels, strict=True)):
            raise ValueError(
                f"raw {tuple(of_raw)} and labels {tuple(of_labels)} have no common centre: "
                "their extents must differ by even numbers"
            )


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


def _spacing(parameters: Augmentation, voxel_size: tuple[float, ...]) -> list[float]:
    """Distance of control points along each axis in its voxels."""
    return [max(1.0, parameters.elastic_spacing * min(voxel_size) / size) for size in voxel_size]


def _jitter(parameters: Augmentation, voxel_size: tuple[float, ...]) -> list[float]:
    """Standard deviation of control points along each axis in its voxels."""
    jitter = [parameters.elastic_jitter * min(voxel_size) / size for size in voxel_size]
    return [0.0, *jitter[1:]] if parameters.per_section else jitter


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> torch.Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def _choose(generator: torch.Generator, number: int) -> int:
    return int(torch.randint(number, (), generator=generator))


def _draw_map(
    generator: torch.Generator,
    parameters: Augmentation,
    voxel_size: tuple[float, ...],
    shape: Shape,
    crop_shape: tuple[int, ...],
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Where the control points come from, (3, n_z, n_y, n_x), and what to add per section, (3, z): float32, in voxels
    of the crop relative to its centre."""
    order = _orders(parameters, voxel_size)
    own_order = order[_choose(generator, len(order))]
    signs = torch.ones(3, dtype=torch.float64)
    if parameters.mirror:
        signs = 1 - 2.0 * torch.randint(2, (3,), generator=generator).double()
    matrix = torch.eye(3, dtype=torch.float64)[list(own_order)] * signs[:, None]

    planes = _planes(parameters, voxel_size)
    plane = planes[_choose(generator, len(planes))]
    if plane is not None:
        angle = float(_uniform(generator, *parameters.rotation))
        a, b = plane
        rotation = torch.eye(3, dtype=torch.float64)
        rotation[a, a] = rotation[b, b] = math.cos(angle)
        rotation[a, b], rotation[b, a] = -math.sin(angle), math.sin(angle)
        matrix = rotation @ matrix

    axes = [
        torch.arange(math.ceil((n - 1) / step) + 1, dtype=torch.float64) * step - (n - 1) / 2
        for n, step in zip(shape, _spacing(parameters, voxel_size), strict=True)
    ]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    if parameters.elastic_jitter > 0:
        draws = torch.randn(points.shape, generator=generator, dtype=torch.float64)
        jitter = torch.tensor(_jitter(parameters, voxel_size), dtype=torch.float64)
        points = points + draws.clamp(-LARGEST_JITTER, LARGEST_JITTER) * jitter[:, None, None, None]
    places = torch.einsum("ij,jzyx->izyx", matrix, points)
    # an even extent that comes to lie on an odd one has its centre between two voxels: move it onto one
    snap = torch.tensor([0.5 * ((crop_shape[a] - shape[axis]) % 2) for a, axis in enumerate(own_order)])
    places = places + snap[:, None, None, None]

    largest = parameters.largest_misalignment
    if largest == 0 or (parameters.slip == 0 and parameters.shift == 0):
        return places.float(), None
    slips, shifts = (
        torch.randint(-largest, largest + 1, (2, shape[0]), generator=generator)
        * (torch.rand(shape[0], generator=generator) < probability)
        for probability in (parameters.slip, parameters.shift)
    )
    shifts = shifts.cumsum(1)
    # the middle stays where it is, since that is where the loss is computed
    misalignment = (slips + shifts - shifts[:, shape[0] // 2, None]).clamp(-largest, largest)
    return places.float(), (matrix[:, 1:] @ misalignment.double()).float()


def _interpolate(points: torch.Tensor, shape: tuple[int, ...], spacing: list[float]) -> torch.Tensor:
    """Control points (3, n_z, n_y, n_x), linear between them -> every voxel (3, z, y, x)."""
    for axis in (2, 1, 0):  # x first: the work is in the last step, which then is contiguous
        position = torch.arange(shape[axis], device=points.device, dtype=torch.float32) / spacing[axis]
        before = position.floor().long().clamp(max=max(0, points.shape[axis + 1] - 2))
        after = (before + 1).clamp(max=points.shape[axis + 1] - 1)
        weight = (position - before).reshape([-1 if a == axis + 1 else 1 for a in range(4)])
        points = torch.lerp(points.index_select(axis + 1, before), points.index_select(axis + 1, after), weight)
    return points


def _centre(places: torch.Tensor, shape: Shape) -> torch.Tensor:
    """The middle (3, *shape) of the map."""
    for axis, size in enumerate(shape):
        places = places.narrow(axis + 1, (places.shape[axis + 1] - size) // 2, size)
    return places


def _sample_raw(raw: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Trilinear interpolation of raw (1, Z, Y, X) at places (3, z, y, x) relative to its centre; reflected outside."""
    # grid_sample counts x, y, z from -1 to 1 between the centres of the outermost voxels
    scale = [2 / max(1, size - 1) for size in raw.shape[1:]]
    grid = torch.stack([places[axis] * scale[axis] for axis in (2, 1, 0)], dim=-1)
    return torch.nn.functional.grid_sample(
        raw[None], grid[None], mode="bilinear", padding_mode="reflection", align_corners=True
    )[0]


def _look_up(labels: torch.Tensor, mask: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Label and mask (z, y, x) of the voxels nearest to places (3, z, y, x) relative to their centre."""
    index = torch.zeros(places.shape[1:], dtype=torch.int64, device=labels.device)
    inside = torch.ones(places.shape[1:], dtype=torch.bool, device=labels.device)
    for axis, size in enumerate(labels.shape):
        nearest = (places[axis] + size / 2).floor().long()  # (size - 1) / 2 is the centre, and 1 / 2 rounds
        inside &= (nearest >= 0) & (nearest < size)
        index = index * size + nearest.clamp(0, size - 1)
    # taken by index: ids may be larger than what a float can tell apart
    found = labels.reshape(-1)[index] * inside
    return found, (mask.reshape(-1)[index] != 0) & inside


def _change_intensity(raw: torch.Tensor, generator: torch.Generator, parameters: Augmentation) -> torch.Tensor:
    """Contrast and brightness, noise, defocused and missing sections of raw (1, z, y, x)."""
    sections = raw.shape[1]
    number = sections if parameters.per_section else 1
    scale = _uniform(generator, *parameters.intensity_scale, number).to(raw)[None, :, None, None]
    shift = _uniform(generator, *parameters.intensity_shift, number).to(raw)[None, :, None, None]
    if parameters.intensity_scale != (1.0, 1.0) or parameters.intensity_shift != (0.0, 0.0):
        mean = raw.mean(dim=(2, 3) if parameters.per_section else (1, 2, 3), keepdim=True)
        raw = (raw - mean) * scale + (mean + shift)
    if parameters.defocused_sections > 0:
        chosen = torch.rand(sections, generator=generator) < parameters.defocused_sections
        widths = _uniform(generator, 0.5, 2.0, sections)
        raw = raw.clone()
        for z in chosen.nonzero()[:, 0].tolist():
            raw[0, z] = _blur(raw[0, z], float(widths[z]))
    if parameters.noise > 0:
        strength = float(_uniform(generator, 0.0, parameters.noise))
        raw = raw + strength * torch.randn(raw.shape, generator=generator).to(raw.device)
    if parameters.missing_sections > 0:
        chosen = torch.rand(sections, generator=generator) < parameters.missing_sections
        raw = raw.masked_fill(chosen.to(raw.device)[None, :, None, None], 0.0)
    return raw.clamp(0, 1)


def _blur(section: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of a section (y, x), sigma in voxels; the border is repeated outwards."""
    radius = math.ceil(3 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=section.device) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = torch.nn.functional.pad(section[None, None], (radius,) * 4, mode="replicate")
    padded = torch.nn.functional.conv2d(padded, kernel[None, None, None, :])
    return torch.nn.functional.conv2d(padded, kernel[None, None, :, None])[0, 0]
