"""What raw is like, section by section: range, contrast, blank, saturated and repeated sections, a hash of all."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RawStatistics:
    """Numbers of an image; arrays have one element per section looked at.

    Attributes:
        section: Index along z.
        mean: Grey value, NaN left out.
        deviation: Standard deviation of the grey values.
        low: Fraction of voxels at the darkest value the type allows (0).
        high: Fraction of voxels at the brightest value (255, or 1.0).
        repeats: Whether the section is the same as the one before.
        minimum: Of all.
        maximum: Of all.
        span: Grey values, of 255, between the 1 and the 99 percentile.
        not_finite: Voxels that are NaN or infinite.
        content: Hash of all values looked at and of the volume's shape.
    """

    section: NDArray[np.int64]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    repeats: NDArray[np.bool_]
    minimum: float
    maximum: float
    span: float
    not_finite: int
    content: str


def measure_raw(slabs: Iterable[tuple[int, NDArray[Any]]], shape: tuple[int, ...]) -> RawStatistics:
    """Measure an image.

    Args:
        slabs: First section and `(z, y, x)` of each slab, one below the other within a region.
        shape: Of the volume, for the hash.
    """
    digest = hashlib.blake2b(repr(shape).encode(), digest_size=16)
    rows: list[tuple[float, ...]] = []
    histogram = np.zeros(256, np.int64)
    minimum, maximum, not_finite = np.inf, -np.inf, 0
    before: tuple[int, int] | None = None
    for first, slab in slabs:
        digest.update(np.ascontiguousarray(slab).data)
        top = 1.0 if slab.dtype.kind == "f" else float(np.iinfo(slab.dtype).max)
        for number, section in enumerate(slab, first):
            finite = section
            if section.dtype.kind == "f":
                finite = section[np.isfinite(section)]
                not_finite += section.size - finite.size
            if finite.size == 0:
                rows.append((number, 0.0, 0.0, 0.0, 0.0, 0.0))
                before = None
                continue
            minimum, maximum = min(minimum, float(finite.min())), max(maximum, float(finite.max()))
            if section.dtype == np.uint8:
                counts = np.bincount(section.ravel(), minlength=256)
            else:
                grey = np.clip(finite.astype(np.float64) / top * 255, 0, 255).astype(np.uint8)
                counts = np.bincount(grey.ravel(), minlength=256)
            histogram += counts
            values = finite.astype(np.float32)
            checksum = zlib.crc32(np.ascontiguousarray(section).data)
            repeats = before == (number - 1, checksum)
            before = number, checksum
            rows.append(
                (
                    number,
                    float(values.mean(dtype=np.float64)),
                    float(values.std(dtype=np.float64)),
                    float(np.mean(finite == 0)),
                    float(np.mean(finite == top)),
                    float(repeats),
                )
            )
    table = np.array(rows, np.float64).reshape(-1, 6)
    share = np.cumsum(histogram) / max(1, histogram.sum())
    span = float(np.searchsorted(share, 0.99) - np.searchsorted(share, 0.01))
    return RawStatistics(
        table[:, 0].astype(np.int64),
        table[:, 1],
        table[:, 2],
        table[:, 3],
        table[:, 4],
        table[:, 5] > 0,
        minimum,
        maximum,
        span,
        not_finite,
        digest.hexdigest(),
    )
