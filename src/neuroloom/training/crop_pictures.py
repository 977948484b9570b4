"""A picture of training crops as the network sees them: did augmentation, labels and mask do what was meant?

one row per crop    raw y x | raw z x | raw z y | labels on raw | descriptors | affinities | what counts
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from neuroloom.files import write_bytes
from neuroloom.networks.unet import crop
from neuroloom.pictures import (
    Picture,
    channels_to_rgb,
    draw_scale_bar,
    encode_png,
    font,
    gray,
    overlay_labels,
    scale_picture,
)
from neuroloom.training.batches import Batch, BatchMaker, input_shapes
from neuroloom.training.crops import Crops
from neuroloom.training.job import TrainingJob
from neuroloom.volume.array import Nanometres
from neuroloom.volume.units import are_serial_sections

PANEL, GAP, RIM, HEADER, CAPTION = 220, 6, 14, 30, 22
"""Width of a panel along x, and distances, in pixels."""
BACKGROUND, TEXT, FAINT = (24, 26, 30), (235, 235, 235), (160, 164, 170)
DOES_NOT_COUNT = (150, 40, 40)
TITLES = ("raw: y x", "raw: z x", "raw: z y", "labels on raw", "descriptors", "affinities", "what counts")


@dataclass(frozen=True)
class PicturedCrops:
    """What was drawn.

    Attributes:
        path: The picture.
        absent: By name of the volume: ids that the project names and that occur nowhere in it.
    """

    path: Path
    absent: dict[str, list[int]]


def write_crop_pictures(job: TrainingJob, number: int, path: Path) -> PicturedCrops:
    """Draw the first crops of a training.

    Args:
        job: A training straight from raw; descriptors and affinities are both drawn, whichever it learns.
        number: How many crops.
        path: The PNG to write.

    Raises:
        UserError: A volume does not fit, or the file cannot be written.
    """
    both = job.model_copy(update={"setup": "mtlsd", "batch_size": 1})
    crops = Crops(job.volumes, job.seed, job.crop)
    maker = BatchMaker(both, crops, input_shapes(both, None)[0], torch.device("cpu"), job.augmentation, 1)
    batches = [maker.make(n) for n in range(number)]
    captions = [f"{batch.crops[0]}: {float(batch.counts.float().mean()):.0%} counts" for batch in batches]
    write_bytes(path, encode_png(_sheet([_panels(batch, job.voxel_size) for batch in batches], captions)))
    return PicturedCrops(path, {arrays.name: arrays.absent for arrays in crops.arrays if arrays.absent})


def _panels(batch: Batch, voxel_size: Nanometres) -> list[Picture]:
    """The pictures of one crop."""
    labels = batch.labels[0].numpy()
    raw = ((crop(batch.raw[0, 0], labels.shape) + 1) / 2).numpy()
    counts = batch.counts[0, 0].numpy()
    z, y, x = (n // 2 for n in labels.shape)
    lsd, affinities = (batch.targets[name][0, :3, z].numpy() for name in ("lsd", "affinities"))
    size = labels.shape[2] * voxel_size[2] / PANEL  # nm per pixel
    across = not are_serial_sections(voxel_size)  # sections are not blended into each other

    def scaled(picture: Picture, vertical: int, horizontal: int, smooth: bool) -> Picture:
        height, width = (
            max(1, round(n * voxel_size[axis] / size))
            for n, axis in zip(picture.shape, (vertical, horizontal), strict=False)
        )
        return scale_picture(picture, height, width, smooth=smooth)

    dark = gray(raw[z]).astype(np.float32) * 0.4 + np.array(DOES_NOT_COUNT, np.float32) * 0.4
    counted = np.where(counts[z][..., None], gray(raw[z]), np.rint(dark).astype(np.uint8))
    return [
        draw_scale_bar(scaled(gray(raw[z]), 1, 2, True), size),
        scaled(gray(raw[:, y]), 0, 2, across),
        scaled(gray(raw[:, :, x]), 0, 1, across),
        scaled(overlay_labels(raw[z], labels[z], 0.5), 1, 2, False),
        scaled(channels_to_rgb(lsd), 1, 2, False),
        scaled(channels_to_rgb(affinities), 1, 2, False),
        scaled(counted, 1, 2, False),
    ]


def _sheet(rows: list[list[Picture]], captions: list[str]) -> NDArray[np.uint8]:
    """All pictures on one sheet, with titles above and where each crop comes from below it."""
    widths = [max(panel.shape[1] for panel in column) for column in zip(*rows, strict=True)]
    heights = [max(panel.shape[0] for panel in row) for row in rows]
    width = 2 * RIM + sum(widths) + GAP * (len(widths) - 1)
    sheet = Image.new("RGB", (width, HEADER + sum(heights) + (CAPTION + GAP) * len(rows) + RIM), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for title, left, extent in zip(TITLES, _begins(widths), widths, strict=True):
        draw.text((left + extent // 2, HEADER // 2 + 1), title, font=font(14), fill=TEXT, anchor="mm")
    top = HEADER
    for row, height, caption in zip(rows, heights, captions, strict=True):
        for panel, left, extent in zip(row, _begins(widths), widths, strict=True):
            place = (left + (extent - panel.shape[1]) // 2, top + (height - panel.shape[0]) // 2)
            sheet.paste(Image.fromarray(panel), place)
        draw.text((RIM, top + height + CAPTION // 2), caption, font=font(12), fill=FAINT, anchor="lm")
        top += height + CAPTION + GAP
    return np.asarray(sheet)


def _begins(widths: list[int]) -> Iterator[int]:
    left = RIM
    for width in widths:
        yield left
        left += width + GAP
