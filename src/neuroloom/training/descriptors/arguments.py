"""What may be asked of descriptors; anything else is refused in words."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLAT_CHANNELS = (1, 2, 4, 5, 8, 9)
"""The channels of the three-dimensional descriptor that a two-dimensional one has."""


def check(
    dimensions: int,
    sigma_nm: float | tuple[float, ...],
    voxel_size: Sequence[float],
    downsample: int,
    window: str = "gaussian",
) -> tuple[float, ...]:
    """Sigma per axis in nm, after a look at all parameters.

    Raises:
        ValueError: they make no sense, or do not fit `dimensions` axes.
    """
    if dimensions not in (2, 3):
        raise ValueError(f"labels must have 2 or 3 axes, not {dimensions}")
    sigma = _positive((sigma_nm,) * dimensions if isinstance(sigma_nm, Real) else sigma_nm)
    if len(sigma) != dimensions:
        raise ValueError(f"sigma_nm must be one positive number or {dimensions}, not {sigma_nm}")
    if len(_positive(voxel_size)) != dimensions:
        raise ValueError(f"voxel_size must have {dimensions} positive numbers, not {voxel_size}")
    if not _is_integer(downsample) or downsample < 1:
        raise ValueError(f"downsample must be a whole number, 1 or more, not {downsample}")
    if window not in ("gaussian", "sphere"):
        raise ValueError(f'window must be "gaussian" or "sphere", not {window!r}')
    return sigma


def check_components(dimensions: int, components: Sequence[int] | None) -> NDArray[np.int64]:
    """The channels wanted, by their numbers in three dimensions.

    Raises:
        ValueError: there is no such channel, or they are not in ascending order.
    """
    channels = np.arange(10) if dimensions == 3 else np.array(FLAT_CHANNELS)
    if components is None:
        return channels
    wanted = list(components) if isinstance(components, Iterable) else []
    if (
        not wanted
        or not all(_is_integer(channel) and 0 <= channel < len(channels) for channel in wanted)
        or any(a >= b for a, b in itertools.pairwise(wanted))
    ):
        raise ValueError(
            f"components must be whole numbers from 0 to {len(channels) - 1} in ascending order "
            f"(labels have {dimensions} axes), not {components}"
        )
    return channels[wanted]


def check_roi(shape: Sequence[int], roi: tuple[slice, ...] | None) -> NDArray[np.int64]:
    """First and last + 1 of a region along each axis, (axes, 2); of the whole array for None.

    Raises:
        ValueError: the roi has another number of axes, or a step.
    """
    roi = tuple(slice(None) for _ in shape) if roi is None else roi
    if len(roi) != len(shape) or any(part.step not in (None, 1) for part in roi):
        raise ValueError(f"roi must have one slice without step per axis, not {roi}")
    window = np.array([part.indices(size)[:2] for part, size in zip(roi, shape, strict=True)], dtype=np.int64).reshape(
        len(shape), 2
    )
    window[:, 1] = np.maximum(window[:, 0], window[:, 1])
    return window


def _positive(values: Any) -> tuple[float, ...]:
    """The values, or none if one of them is not a positive number."""
    try:
        numbers = tuple(map(float, values))
    except (TypeError, ValueError):
        return ()
    return numbers if all(math.isfinite(value) and value > 0 for value in numbers) else ()


def _is_integer(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return True
