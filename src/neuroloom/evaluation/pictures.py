"""Picture of one segmentation error: raw, truth and segmentation around it, the labels concerned in strong colours.

The label that is split, or the segment that merges, is green; its largest part is blue and its second orange.

+---------+---------+--------------+
|  raw    |  truth  | segmentation |     one section through the error, perpendicular to the axis that shows
|    +    |    +    |      +       |     both parts best; a cross marks the position
+---------+---------+--------------+
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from neuroloom.evaluation.positions import SegmentationError
from neuroloom.pictures import (
    Picture,
    draw_scale_bar,
    encode_png,
    font,
    gray,
    overlay_borders,
    overlay_labels,
    scale_picture,
)

_BACKGROUND = (24, 26, 30)
_WHOLE = (52, 199, 110)
_HALVES = ((64, 132, 255), (255, 150, 20))
_AXES = "zyx"


def error_picture(
    raw: NDArray[Any],
    segmentation: NDArray[Any],
    truth: NDArray[Any],
    error: SegmentationError,
    voxel_size: Sequence[float],
    *,
    field_nm: float | None = None,
    panel: int = 260,
) -> bytes:
    """Draw a segmentation error.

    Args:
        raw: `(z, y, x)` uint8, or float in [0, 1].
        segmentation: `(z, y, x)` integer labels.
        truth: `(z, y, x)` integer labels.
        error: The error; its position is in voxels of these arrays.
        voxel_size: nm, z y x.
        field_nm: Side of the square field of view in nm; 120 of the smallest voxels if None.
        panel: Side of a panel in pixels.

    Returns:
        A PNG file, three panels wide.
    """
    field = 120 * min(voxel_size) if field_nm is None else field_nm
    inside, parts = (truth, segmentation) if error.kind == "split" else (segmentation, truth)
    involved_parts = error.parts[:2]
    whole, halves = {error.label: _WHOLE}, dict(zip(involved_parts, _HALVES, strict=False))
    axis = _best_axis(inside, error.label, parts, involved_parts, error.position, voxel_size, field)
    window = _window(raw.shape, error.position, voxel_size, field, axis)
    views = {
        "raw": gray(raw[window]),
        "truth": _highlight(raw[window], truth[window], whole if error.kind == "split" else halves),
        "segmentation": _highlight(raw[window], segmentation[window], halves if error.kind == "split" else whole),
    }
    rows, columns = (a for a in range(3) if a != axis)
    nm_high = views["raw"].shape[0] * voxel_size[rows]
    nm_wide = views["raw"].shape[1] * voxel_size[columns]
    scale = panel / max(nm_high, nm_wide)
    height, width = max(1, round(nm_high * scale)), max(1, round(nm_wide * scale))
    across = (error.position[rows] - window[rows].start + 0.5) * voxel_size[rows] * scale
    along = (error.position[columns] - window[columns].start + 0.5) * voxel_size[columns] * scale
    gap, header = 6, 30
    sheet = Image.new("RGB", (3 * width + 2 * gap, header + height), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    section = f"{_AXES[axis]} = {error.position[axis]}"
    for index, (title, view) in enumerate(views.items()):
        picture = scale_picture(view, height, width, smooth=title == "raw")
        if title == "raw":
            picture = draw_scale_bar(picture, 1 / scale)
        left = index * (width + gap)
        sheet.paste(Image.fromarray(picture), (left, header))
        text = f"{title}, {section}" if index == 0 else title
        draw.text((left + width // 2, header // 2), text, font=font(16), fill=(235, 235, 235), anchor="mm")
        _draw_cross(draw, left + along, header + across)
    return encode_png(np.asarray(sheet))


def _best_axis(
    inside: NDArray[Any],
    label: int,
    parts: NDArray[Any],
    involved: Sequence[int],
    position: Sequence[int],
    voxel_size: Sequence[float],
    field: float,
) -> int:
    """The axis whose section through the position shows most of the smaller of the two parts; z if equal."""
    shown = []
    for axis in range(3):
        window = _window(inside.shape, position, voxel_size, field, axis)
        within = inside[window] == inside.dtype.type(label)
        counts = [np.count_nonzero(within & (parts[window] == parts.dtype.type(part))) for part in involved]
        pixel = np.prod([voxel_size[a] for a in range(3) if a != axis])
        shown.append(float(min(counts) * pixel))
    # Sections across coarse voxels look poor: they must show clearly more to be chosen.
    if max(voxel_size) > 1.5 * min(voxel_size):
        return 0 if shown[0] > 0 else int(np.argmax(shown))
    return int(np.argmax(shown))


def _window(
    shape: Sequence[int], position: Sequence[int], voxel_size: Sequence[float], field: float, axis: int
) -> tuple[Any, ...]:
    """Index of the section across `axis` and of the field of view in the other two, moved to lie in the volume."""
    index: list[Any] = []
    for a in range(3):
        if a == axis:
            index.append(position[a])
            continue
        extent = min(shape[a], max(1, round(field / voxel_size[a])))
        begin = min(max(0, position[a] - extent // 2), shape[a] - extent)
        index.append(slice(begin, begin + extent))
    return tuple(index)


def _highlight(raw: NDArray[Any], labels: NDArray[Any], colors: Mapping[int, tuple[int, int, int]]) -> Picture:
    """Raw with all labels faint and those concerned in strong colours, borders drawn."""
    picture = overlay_labels(raw, labels, 0.14)
    base = gray(raw).astype(np.float64)
    for label, color in colors.items():
        region = labels == labels.dtype.type(label)
        picture[region] = np.rint(base[region] * 0.45 + np.asarray(color) * 0.55)
    return overlay_borders(picture, labels, (40, 42, 48))


def _draw_cross(draw: ImageDraw.ImageDraw, x: float, y: float) -> None:
    """A cross that leaves its middle open, dark under light."""
    for width, color in ((4, (0, 0, 0)), (2, (255, 255, 255))):
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            draw.line((x + 4 * dx, y + 4 * dy, x + 11 * dx, y + 11 * dy), fill=color, width=width)
