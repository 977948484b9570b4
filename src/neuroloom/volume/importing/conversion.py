"""From the numbers in a file to those of a volume: raw uint8 or float32 in [0, 1], ids uint64, mask 0 and 1.

    raw     uint8 as it is; float in [0, 1] -> float32; anything else only when asked:
            (value - low) / (high - low) * 255, rounded and cut to 0 … 255
    ids     any integers -> uint64; negative ones are refused, unless named as background
    mask    true/false, or 0 and one other number -> 0 and 1

Nothing is guessed: a range that does not fit is named, with the option that settles it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.volume.importing.source import Source

Convert = Callable[[NDArray[Any], Sequence[int]], NDArray[Any]]
"""Takes a block and where it begins, z y x (for messages); returns the block as the volume keeps it."""
Rescale = tuple[float, float] | Literal["percentiles"]

PERCENTILES = (0.1, 99.9)
_SAMPLE = 1 << 25  # voxels looked at to find a range


def raw_conversion(
    source: Source, rescale: Rescale | None
) -> tuple[np.dtype[Any], Convert, tuple[float, float] | None]:
    """How raw is converted.

    Args:
        source: The image.
        rescale: (low, high) become 0 and 255; "percentiles" takes the 0.1 and 99.9 percentiles; None: as it is.

    Returns:
        The volume's element type, the conversion of a block, and the (low, high) that became 0 and 255, or None.

    Raises:
        UserError: A range or type that needs a decision, or NaN.
    """
    if rescale is not None:
        if source.dtype.kind not in "buif":
            raise UserError(f"{source.location} holds {source.dtype}; expected numbers.")
        low, high = _percentiles(source) if rescale == "percentiles" else rescale
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise UserError(f"--rescale {low:g},{high:g} for {source.location}: expected MIN below MAX.")

        def scale(block: NDArray[Any], begin: Sequence[int]) -> NDArray[Any]:
            _refuse_nan(block, begin, source.location)
            unit = (block.astype(np.float64) - low) / (high - low)
            return np.rint(np.clip(unit, 0.0, 1.0) * 255.0).astype(np.uint8)

        return np.dtype(np.uint8), scale, (low, high)
    if source.dtype == np.uint8:
        return np.dtype(np.uint8), lambda block, begin: block, None
    if source.dtype.kind == "f":

        def check(block: NDArray[Any], begin: Sequence[int]) -> NDArray[Any]:
            _refuse_nan(block, begin, source.location)
            low, high = float(block.min()), float(block.max())
            if low < 0.0 or high > 1.0:
                raise UserError(
                    f"{source.location} holds {source.dtype} with values from {low:g} to {high:g} near voxel "
                    f"{tuple(begin)}; expected [0, 1]. Add --rescale MIN,MAX or --rescale percentiles to make it 8 bit."
                )
            return block.astype(np.float32)

        return np.dtype(np.float32), check, None
    if source.dtype.kind == "b":
        raise UserError(
            f"{source.location} holds true/false; expected an image. Is this the mask? Give it with --mask."
        )
    if source.dtype.kind in "iu":
        values, whole = sample_values(source)
        raise UserError(
            f"{source.location} holds {source.dtype} with values from {values.min()} to {values.max()}"
            f"{'' if whole else ' (in a sample)'}; expected uint8 or float in [0, 1]. Say which values become black "
            f"and white: --rescale {values.min()},{values.max()}, or --rescale percentiles."
        )
    raise UserError(f"{source.location} holds {source.dtype}; expected uint8 or float in [0, 1].")


def labels_conversion(source: Source, background: Sequence[int] = ()) -> Convert:
    """How labels are converted to uint64.

    Args:
        source: The labels.
        background: Ids that become 0, such as -1.

    Raises:
        UserError: Labels are floating point or true/false.
    """
    if source.dtype.kind == "f":
        raise UserError(
            f"{source.location} holds {source.dtype} labels; expected integers: ids above 2**24 are not exact in "
            "float32. Save them as integers and import them again."
        )
    if source.dtype.kind not in "iu":
        what = "true/false" if source.dtype.kind == "b" else str(source.dtype)
        raise UserError(f"{source.location} holds {what}; expected one integer id per neuron. A mask goes to --mask.")
    limits = np.iinfo(source.dtype)
    drop = np.array([b for b in background if limits.min <= b <= limits.max], dtype=source.dtype)

    def widen(block: NDArray[Any], begin: Sequence[int]) -> NDArray[Any]:
        if len(drop):
            block = np.where(np.isin(block, drop), source.dtype.type(0), block)
        if source.dtype.kind == "i" and block.min() < 0:
            lowest = int(block.min())
            raise UserError(
                f"{source.location} holds negative ids (such as {lowest} near voxel {tuple(begin)}); expected 0 or "
                f"more. If {lowest} means background, add --background {lowest}."
            )
        return block.astype(np.uint64)

    return widen


def mask_conversion(source: Source) -> Convert:
    """How a mask is converted to 0 and 1.

    Raises:
        UserError: The mask is floating point; while converting: it has more than one value besides 0.
    """
    if source.dtype.kind not in "biu":
        raise UserError(f"{source.location} holds {source.dtype}; expected a mask of true/false or integers 0 and 1.")
    seen: set[int] = set()

    def binarise(block: NDArray[Any], begin: Sequence[int]) -> NDArray[Any]:
        inside = block != 0
        if inside.any():
            values = block[inside]
            seen.update((int(values.min()), int(values.max())))
        if len(seen) > 1:
            raise UserError(
                f"{source.location} has the values 0 and {', '.join(map(str, sorted(seen)))} …; expected a mask of 0 "
                "and one other. If these are labels, give them with --labels."
            )
        return inside.astype(np.uint8)

    return binarise


def sample_values(source: Source) -> tuple[NDArray[Any], bool]:
    """Values to find a range in: all of a small file, evenly spread sections of a large one.

    Returns:
        The values, flat, and whether they are all of them.

    Raises:
        UserError: The file is damaged.
    """
    if source.size <= _SAMPLE:
        return source.read((0, 0, 0), source.shape).ravel(), True
    # along the axis in which the file's chunks are thinnest a section costs least
    axis = int(np.argmin(source.chunks))
    positions = np.unique(np.linspace(0, source.shape[axis] - 1, 16).astype(int))
    step = max(1, round((source.size / source.shape[axis] * len(positions) / _SAMPLE) ** 0.5))
    values = []
    for position in positions:
        begin, shape = [0, 0, 0], list(source.shape)
        begin[axis], shape[axis] = int(position), 1
        section = np.squeeze(source.read(begin, shape), axis)
        values.append(section[::step, ::step].ravel())
    return np.concatenate(values), False


def _percentiles(source: Source) -> tuple[float, float]:
    values, _ = sample_values(source)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{source.location} holds NaN or infinite values. Replace them before importing.")
    low, high = (float(v) for v in np.percentile(values, PERCENTILES))
    if low >= high:
        raise UserError(
            f"{source.location} is {low:g} nearly everywhere: there is nothing to rescale. Is it the image?"
        )
    return low, high


def _refuse_nan(block: NDArray[Any], begin: Sequence[int], location: str) -> None:
    if block.dtype.kind != "f":
        return
    bad = ~np.isfinite(block)
    if bad.any():
        place = tuple(int(b + i) for b, i in zip(begin, np.argwhere(bad)[0], strict=True))
        raise UserError(
            f"{location} holds NaN or infinite values, first at voxel {place} (z, y, x), {int(bad.sum())} in this "
            "region. Replace them (by 0, or by neighbouring sections) before importing."
        )
