"""Is the image whole: no NaN, a sensible range, no blank, saturated or repeated sections, no missing chunks?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.volume.array import Volume
from neuroloom.volume.checking.patient import Patient, commas, times
from neuroloom.volume.checking.raw_statistics import RawStatistics, measure_raw
from neuroloom.volume.missing import stored_grid
from neuroloom.volume.regions import Box, regions_of, slabs_of
from neuroloom.volume.remote import is_url


def check_raw(patient: Patient, advance: Callable[[int], None]) -> None:
    """Look at the image.

    Args:
        patient: The volume; findings are added to it.
        advance: Called with the number of voxels looked at.
    """
    volume = patient.raw
    if volume is None or volume.channels is not None:
        return
    whole: Box = ((0, 0, 0), volume.shape)
    regions = regions_of(whole)
    if len(regions) > 1:
        share = sum(math.prod(shape) for _, shape in regions) / math.prod(volume.shape)
        patient.say(
            "ok",
            "sample",
            f"too large to read as a whole: {len(regions)} regions of {times(regions[0][1])} voxels were looked at, "
            f"{share:.2g} of the volume; what lies between them was not",
        )

    def slabs() -> Iterator[tuple[int, NDArray[Any]]]:
        for region in regions:
            for begin, shape in slabs_of(region, volume.array.chunks[-3]):
                yield begin[0], volume.read(begin, shape)
                advance(math.prod(shape))

    found = measure_raw(slabs(), volume.shape)
    patient.content = f"{volume.dtype} {found.content}"
    _judge_range(patient, volume, found)
    _judge_sections(patient, found)
    # behind a URL every chunk is a question: only those that were looked at anyway
    _judge_chunks(patient, volume, regions if is_url(volume.location) else [whole])


def _judge_range(patient: Patient, volume: Volume, found: RawStatistics) -> None:
    if found.not_finite:
        patient.say(
            "error",
            "nan",
            f"raw holds {found.not_finite} voxels that are NaN or infinite",
            "One of them makes every weight of a network NaN within one step.",
            "Replace them, by 0 or by neighbouring sections, and import the volume again.",
        )
    if volume.dtype.kind == "f" and (found.minimum < 0 or found.maximum > 1):
        patient.say(
            "error",
            "range",
            f"raw holds values from {found.minimum:g} to {found.maximum:g}",
            "float raw must be in [0, 1]; a network sees values it was never trained on.",
            "Import it again with --rescale MIN,MAX or --rescale percentiles.",
        )
        return
    if found.minimum == found.maximum:
        patient.say(
            "error",
            "range",
            f"raw is {found.minimum:g} everywhere",
            "There is no image in it.",
            "Check which file and dataset was imported.",
        )
        return
    clipped = float(np.mean(found.low) + np.mean(found.high))
    if found.span < 40:
        patient.say(
            "warning",
            "range",
            f"98 % of raw lie within {found.span:.0f} of 255 grey values",
            "Noise of rounding becomes visible, and augmentation of the intensity drowns the contrast there is.",
            "Import the original again with --rescale percentiles.",
        )
    if clipped > 0.05:
        patient.say(
            "warning",
            "saturation",
            f"{clipped:.1%} of raw is black or white ({np.mean(found.low):.1%} at the lowest value, "
            f"{np.mean(found.high):.1%} at the highest)",
            "What was cut off at either end cannot be told apart any more; or it is padding around the tissue.",
            "Import the original with wider --rescale limits; mask out padding.",
        )
    elif found.span >= 40:
        patient.say(
            "ok",
            "range",
            f"raw from {found.minimum:g} to {found.maximum:g}, 98 % within {found.span:.0f} of 255 grey values, "
            f"{clipped:.1%} black or white",
        )


def _judge_sections(patient: Patient, found: RawStatistics) -> None:
    usual = float(np.median(found.deviation))
    blank = found.section[found.deviation <= 0.1 * usual]
    clipped = (found.low + found.high > 0.3) & (found.deviation > 0.1 * usual)
    # sections that are all alike in this are told by the volume as a whole
    saturated = found.section[clipped] if np.mean(clipped) < 0.5 else np.zeros(0, np.int64)
    repeated = found.section[found.repeats & (found.deviation > 0.1 * usual)]
    for sections, name, why in (
        (blank, "blank", "Neurites break there, and a network trained on it learns that nothing can be a border."),
        (saturated, "saturated", "More than 30 % of their voxels are cut off: membranes cannot be seen there."),
        (repeated, "the same as the section before", "A lost section was filled with its neighbour: membranes jump."),
    ):
        if len(sections) and usual > 0:
            patient.say(
                "warning",
                "sections",
                f"{len(np.unique(sections))} of {len(np.unique(found.section))} sections are {name}: "
                f"z = {_ranges(sections)}",
                why,
                "Set the mask to 0 there, or replace them from the original images.",
                sections=[int(s) for s in np.unique(sections)[:1000]],
            )
    if usual > 0 and not len(blank) and not len(saturated) and not len(repeated):
        patient.say(
            "ok", "sections", f"no blank, saturated or repeated one in {len(np.unique(found.section))} sections"
        )


def _judge_chunks(patient: Patient, volume: Volume, regions: Sequence[Box]) -> None:
    lost = sorted({begin for region in regions for begin in volume.missing_chunks(*region)})
    if not lost:
        return
    grid = stored_grid(volume.array)[-3:]
    spans = [[-(-(b + s) // g) - b // g for b, s, g in zip(*region, grid, strict=True)] for region in regions]
    shown = "; ".join(commas(begin) for begin in lost[:8]) + ("; …" if len(lost) > 8 else "")
    patient.say(
        "warning",
        "chunks",
        f"{len(lost)} of {sum(map(math.prod, spans))} chunks of raw are missing and read as 0; they begin at voxel "
        f"(z,y,x) {shown}",
        "A copy that was interrupted looks like this; so does black padding.",
        "Copy or import the volume again if it should not be black there.",
        chunks=[list(begin) for begin in lost[:1000]],
    )


def _ranges(numbers: NDArray[np.int64]) -> str:
    """Sorted numbers in few characters: "3-7, 12, 40-44, …"."""
    unique = np.unique(numbers)
    runs = np.split(unique, np.flatnonzero(np.diff(unique) != 1) + 1)
    texts = [f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ", ".join(texts[:8]) + (", …" if len(texts) > 8 else "")
