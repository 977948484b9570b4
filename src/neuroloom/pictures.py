"""Pictures of volumes: labels, descriptors and affinities as colours, scale bars, contact sheets.

A picture is an array `(y, x, 3) uint8` until it is written as PNG. Colours are a function of the id alone, so a
neuron keeps its colour from one picture, run and machine to the next.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]


def label_colors(labels: NDArray[Any]) -> Picture:
    """Colour labels: a bright, well mixed colour for each id, black for 0.

    Args:
        labels: Integer labels of any shape.

    Returns:
        The shape of `labels` with a last axis of red, green, blue, uint8.
    """
    unique, inverse = np.unique(labels.astype(np.uint64), return_inverse=True)
    mixed = _mix(unique)
    # Hue from the lowest bits; three saturations and three brightnesses keep neighbours of equal hue apart.
    hue = (mixed & np.uint64(0xFFFF)).astype(np.float64) / 0x10000
    saturation = np.array([0.50, 0.68, 0.86])[((mixed >> np.uint64(16)) % np.uint64(3)).astype(np.int64)]
    brightness = np.array([0.72, 0.86, 1.00])[((mixed >> np.uint64(32)) % np.uint64(3)).astype(np.int64)]
    colors = _hsv_to_rgb(hue, saturation, brightness)
    colors[unique == 0] = 0
    return colors[inverse.reshape(labels.shape)]


def gray(values: NDArray[Any]) -> Picture:
    """Grey picture of an intensity: uint8 as it is, float from [0, 1], bool as black and white.

    Args:
        values: `(y, x)` uint8, bool or float.

    Returns:
        `(y, x, 3) uint8`.
    """
    return np.repeat(_to_bytes(values)[..., None], 3, axis=-1)


def channels_to_rgb(channels: NDArray[Any]) -> Picture:
    """The first three channels as red, green and blue; missing ones are black.

    For descriptors these are the mean offsets in z, y, x; for affinities the nearest neighbours in z, y, x (white
    inside a neuron, coloured by orientation on its borders).

    Args:
        channels: `(c, y, x)` uint8, or float in [0, 1].

    Returns:
        `(y, x, 3) uint8`.
    """
    picture = np.zeros((*channels.shape[1:], 3), np.uint8)
    for index, channel in enumerate(channels[:3]):
        picture[..., index] = _to_bytes(channel)
    return picture


def label_borders(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels that differ from the neighbour above or to the left.

    Args:
        labels: `(y, x)` integer labels.

    Returns:
        `(y, x) bool`.
    """
    border = np.zeros(labels.shape, bool)
    border[1:] |= labels[1:] != labels[:-1]
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    return border


def overlay_labels(raw: NDArray[Any], labels: NDArray[Any], opacity: float = 0.4) -> Picture:
    """Colour a grey picture by its labels; where the label is 0 it stays grey.

    Args:
        raw: `(y, x)` uint8, or float in [0, 1].
        labels: `(y, x)` integer labels.
        opacity: 0 shows only raw, 1 only labels.

    Returns:
        `(y, x, 3) uint8`.
    """
    base = gray(raw).astype(np.float32)
    share = np.where(labels[..., None] == 0, 0.0, opacity).astype(np.float32)
    return np.asarray(np.rint(base * (1 - share) + label_colors(labels) * share), dtype=np.uint8)


def overlay_borders(picture: Picture, labels: NDArray[Any], color: tuple[int, int, int] = (255, 190, 60)) -> Picture:
    """Draw the borders between labels over a picture.

    Args:
        picture: `(y, x, 3) uint8`.
        labels: `(y, x)` integer labels.
        color: Red, green, blue of the lines.

    Returns:
        `(y, x, 3) uint8`.
    """
    drawn = picture.copy()
    drawn[label_borders(labels)] = color
    return drawn


def pick_sections(size: int, number: int) -> list[int]:
    """Indices of `number` sections spread evenly over an axis, away from both ends.

    Args:
        size: Number of sections there are.
        number: Number wanted; at most `size` are returned.
    """
    number = min(number, size)
    return [(2 * index + 1) * size // (2 * number) for index in range(number)]


def nice_length(largest: float) -> float:
    """The largest of 1, 2, 5, 10, 20, 50, … (times any power of ten) that is not above `largest`."""
    power = 10.0 ** np.floor(np.log10(largest))
    return float(max(step * power for step in (1, 2, 5) if step * power <= largest * (1 + 1e-9)))


def format_length(nm: float) -> str:
    """A length in words: nm below a micrometre, µm from there."""
    return f"{nm:g} nm" if nm < 1000 else f"{nm / 1000:g} µm"


def draw_scale_bar(picture: Picture, nm_per_pixel: float) -> Picture:
    """Draw a white scale bar with its length, at most a third of the picture wide, in the lower left corner.

    Args:
        picture: `(y, x, 3) uint8`.
        nm_per_pixel: nm along x.

    Returns:
        `(y, x, 3) uint8`.
    """
    height, width = picture.shape[:2]
    length = nice_length(width * nm_per_pixel / 3)
    pixels = max(1, round(length / nm_per_pixel))
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    size = max(10, round(width / 15))
    margin, thickness = max(4, width // 40), max(2, width // 100)
    bottom = height - margin
    # A dark rim keeps the bar readable on bright tissue.
    draw.rectangle((margin - 1, bottom - thickness - 1, margin + pixels, bottom), fill=(0, 0, 0))
    draw.rectangle((margin, bottom - thickness, margin + pixels - 1, bottom - 1), fill=(255, 255, 255))
    draw.text(
        (margin, bottom - thickness - 3),
        format_length(length),
        font=font(size),
        fill=(255, 255, 255),
        anchor="ls",
        stroke_width=2,
        stroke_fill=(0, 0, 0),
    )
    return np.asarray(image)


def scale_picture(picture: Picture, height: int, width: int, *, smooth: bool) -> Picture:
    """Resize a picture.

    Args:
        picture: `(y, x, 3) uint8`.
        height: Pixels.
        width: Pixels.
        smooth: Interpolate (intensities); otherwise repeat pixels (labels).
    """
    method = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), method))


def encode_png(picture: Picture) -> bytes:
    """PNG file of a picture `(y, x, 3)` or `(y, x) uint8`; the same bytes for the same pixels."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="PNG")
    return buffer.getvalue()


def contact_sheet(
    columns: Mapping[str, NDArray[Any]],
    *,
    voxel_size: Sequence[float] | None = None,
    sections: int = 3,
    panel: int = 260,
) -> bytes:
    """Sections of several volumes of the same place, side by side, as one PNG.

    Volumes of different extent (raw is larger than what a valid network returns) are cropped about their common
    centre to the smallest. Types are told apart by dtype and axes:

        `(z, y, x)` uint8, float or bool          grey
        `(z, y, x)` any other integer             labels, coloured
        `(c, z, y, x)` uint8 or float             first three channels as red, green, blue

    Args:
        columns: Title and volume of each column, left to right.
        voxel_size: nm z y x, for a scale bar and true proportions; None leaves both out.
        sections: Number of rows, sections in z spread evenly.
        panel: Width of a panel in pixels.

    Returns:
        A PNG file.

    Raises:
        ValueError: No columns, or an array of other than three or four axes.
    """
    if not columns:
        raise ValueError("a contact sheet needs at least one column")
    for title, volume in columns.items():
        if volume.ndim not in (3, 4):
            raise ValueError(f"column {title!r} has {volume.ndim} axes; expected (z, y, x) or (c, z, y, x)")
    extent = [min(volume.shape[axis - 3] for volume in columns.values()) for axis in range(3)]
    proportion = 1.0 if voxel_size is None else voxel_size[1] / voxel_size[2]
    height = max(1, round(panel * extent[1] / extent[2] * proportion))
    gap, header, rim = 6, 30, 12
    picked = pick_sections(extent[0], sections)
    left = rim + 22
    sheet_width = left + len(columns) * (panel + gap) - gap + rim
    sheet_height = header + len(picked) * (height + gap) - gap + rim
    sheet = Image.new("RGB", (sheet_width, sheet_height), (24, 26, 30))
    draw = ImageDraw.Draw(sheet)
    for column, (title, volume) in enumerate(columns.items()):
        x = left + column * (panel + gap)
        draw.text((x + panel // 2, header // 2 + 1), title, font=font(15), fill=(235, 235, 235), anchor="mm")
        cropped = _crop_centre(volume, extent)
        for row, section in enumerate(picked):
            picture, smooth = _section_picture(cropped, section)
            picture = scale_picture(picture, height, panel, smooth=smooth)
            if voxel_size is not None and column == 0 and row == 0:
                picture = draw_scale_bar(picture, voxel_size[2] * extent[2] / panel)
            sheet.paste(Image.fromarray(picture), (x, header + row * (height + gap)))
    for row, section in enumerate(picked):
        # The section's index, written upwards beside its row.
        text = Image.new("RGB", (height, 20), (24, 26, 30))
        ImageDraw.Draw(text).text((height // 2, 10), f"z = {section}", font=font(13), fill=(170, 170, 170), anchor="mm")
        sheet.paste(text.rotate(90, expand=True), (rim - 2, header + row * (height + gap)))
    return encode_png(np.asarray(sheet))


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The sans-serif font that matplotlib brings along, so that pictures do not depend on the machine's fonts."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _section_picture(volume: NDArray[Any], section: int) -> tuple[Picture, bool]:
    """Picture of one section, and whether it may be interpolated."""
    if volume.ndim == 4:
        return channels_to_rgb(volume[:, section]), True
    if volume.dtype.kind in "ui" and volume.dtype != np.uint8:
        return label_colors(volume[section]), False
    return gray(volume[section]), True


def _crop_centre(volume: NDArray[Any], extent: Sequence[int]) -> NDArray[Any]:
    z, y, x = ((size - wanted) // 2 for size, wanted in zip(volume.shape[-3:], extent, strict=True))
    return volume[..., z : z + extent[0], y : y + extent[1], x : x + extent[2]]


def _to_bytes(values: NDArray[Any]) -> Picture:
    if values.dtype == np.uint8:
        return values
    clipped = np.clip(np.nan_to_num(values.astype(np.float32)), 0, 1)
    return np.asarray(np.rint(clipped * 255), dtype=np.uint8)


def _mix(ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finaliser of splitmix64: neighbouring ids become unrelated numbers."""
    mixed = ids + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _hsv_to_rgb(hue: NDArray[np.float64], saturation: NDArray[np.float64], brightness: NDArray[np.float64]) -> Picture:
    """Colours from hue, saturation and brightness in [0, 1]; `(n, 3) uint8`."""
    channels = []
    for shift in (5.0, 3.0, 1.0):
        k = (shift + hue * 6) % 6
        channels.append(brightness * (1 - saturation * np.clip(np.minimum(k, 4 - k), 0, 1)))
    return np.asarray(np.rint(np.stack(channels, axis=-1) * 255), dtype=np.uint8)
