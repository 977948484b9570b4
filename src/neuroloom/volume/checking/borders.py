"""Do the labels lie on the borders that raw shows?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.volume.checking.alignment import REACH, VISIBLE, measure_alignment
from neuroloom.volume.checking.patient import Patient, commas, times
from neuroloom.volume.regions import Box

_CUBE = 128  # voxels; regions in which alignment is measured
_CUBES = 6


def check_alignment(patient: Patient, advance: Callable[[int], None]) -> None:
    """Compare borders of labels with the image.

    Args:
        patient: The volume; findings are added to it.
        advance: Called with the number of voxels looked at.
    """
    raw, labels, mask = patient.raw, patient.labels, patient.mask
    if raw is None or labels is None or raw.channels is not None or raw.shape != labels.shape:
        return
    places = cubes(patient.labelled_box)
    extent = places[0][1]

    def read() -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]]:
        for begin, shape in places:
            image = raw.read(begin, shape)
            if image.dtype.kind == "f":
                image = np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0)
            yield image, labels.read(begin, shape), None if mask is None else mask.read(begin, shape)
            advance(math.prod(shape))

    found = measure_alignment(read(), raw.voxel_size)
    if found is None:
        return
    numbers: dict[str, Any] = {"shift": list(found.shift), "correlation": found.correlation, "in_place": found.in_place}
    reach = [min(REACH, (n - 1) // 2) for n in extent]
    if found.correlation < VISIBLE:
        patient.say(
            "warning",
            "alignment",
            f"borders of labels do not show in raw at any shift of up to {times(reach)} voxels "
            f"(correlation {found.correlation:.2f})",
            "Labels of another volume, mirrored or with axes in another order look like this, and teach nothing.",
            "Look at raw and labels together (`neuroloom view`); import again with the right --axes.",
            **numbers,
        )
        return
    distance = max(abs(s) for s in found.shift)
    moved = [s * v for s, v in zip(found.shift, raw.voxel_size, strict=True)]
    if distance >= 2 and found.correlation > 1.05 * found.in_place:
        patient.say(
            "error",
            "alignment",
            f"labels are shifted against raw: they fit when moved by {commas(found.shift)} voxels (z, y, x; "
            f"correlation {found.correlation:.2f} there, {found.in_place:.2f} as they are)",
            "A network learns borders beside the membranes, and its scores are worth nothing.",
            f"Import the labels again, moved by {commas(moved)} nm (--label-offset), or look for what cropped "
            "or padded one of them.",
            **numbers,
        )
    elif distance == 1 and found.correlation > 1.1 * found.in_place:
        patient.say(
            "warning",
            "alignment",
            f"labels fit raw better when moved by {commas(found.shift)} voxels (correlation {found.correlation:.2f} "
            f"there, {found.in_place:.2f} as they are)",
            "A step of one voxel comes from resampling or from half a voxel of offset; thin neurites suffer.",
            "Look for it where the labels were exported or downsampled.",
            **numbers,
        )
    else:
        patient.say(
            "ok", "alignment", f"labels lie on the borders that raw shows (correlation {found.in_place:.2f})", **numbers
        )


def cubes(box: Box) -> list[Box]:
    """Evenly spread regions of one shape in which alignment is measured; the whole of a small box."""
    begin, shape = box
    extent = [min(_CUBE, s) for s in shape]
    corners = [(b, b + s - e) for b, s, e in zip(begin, shape, extent, strict=True)]
    places = sorted({(z, y, x) for z in corners[0] for y in corners[1] for x in corners[2]})
    step = max(1, -(-len(places) // _CUBES))
    middle = tuple(b + (s - e) // 2 for b, s, e in zip(begin, shape, extent, strict=True))
    chosen = sorted({*places[::step], (middle[0], middle[1], middle[2])})
    return [(place, (extent[0], extent[1], extent[2])) for place in chosen]
