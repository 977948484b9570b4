"""A three-dimensional array in somebody's file, seen in the order z, y, x whatever the order in the file.

    file (x, y, z, channel = 1)  --as_zyx-->  Source (z, y, x): shape, voxel size, chunks and regions, all in z, y, x

Readers make a `FileArray` in the file's own order; everything after them in this room sees a `Source` only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.volume.formats.file_array import FileArray, readable


@dataclass(frozen=True)
class Source:
    """An array to import, in the order z, y, x; made by `as_zyx`.

    Attributes:
        location: File and dataset, for messages.
        shape: Voxels, z y x.
        dtype: Element type.
        chunks: What the file decodes at once, voxels z y x.
        voxel_size: nm z y x, None where the file does not say.
        offset: nm z y x, None where the file does not say.
        notes: What the user should know about this file.
    """

    location: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    chunks: tuple[int, int, int]
    voxel_size: tuple[float | None, float | None, float | None]
    offset: tuple[float, float, float] | None
    notes: tuple[str, ...]
    _read: Callable[[tuple[slice, slice, slice]], NDArray[Any]]

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    def read(self, begin: Sequence[int], shape: Sequence[int]) -> NDArray[Any]:
        """Read a region.

        Args:
            begin: First voxel, z y x.
            shape: Extent in voxels, z y x.

        Returns:
            `(z, y, x)` of `dtype`.

        Raises:
            UserError: The file is truncated or damaged.
        """
        z, y, x = (slice(b, b + e) for b, e in zip(begin, shape, strict=True))
        with readable(self.location):
            return self._read((z, y, x))


def as_zyx(array: FileArray, axes: str | None = None) -> Source:
    """See a file's array in the order z, y, x; axes of one element are dropped, a single image is one section.

    Args:
        array: As the reader made it.
        axes: The order in the file, when the user names it ("xyz"); None for what the reader found or assumed.

    Raises:
        UserError: The axes named do not fit, there is no voxel, or more than one channel or time point.
    """
    names = array.axes if axes is None else _check_axes(axes.lower(), array)
    array = replace(array, axes=names)
    if 0 in array.shape:
        raise UserError(f"{array.location} has no voxels (shape {array.shape}). Check the file and the dataset.")
    for axis, name in enumerate(names):
        if name not in "zyx" and array.shape[axis] > 1:
            what = {"c": "channels", "t": "time points"}.get(name, f"elements along {name}")
            raise UserError(
                f"{array.location} has {array.shape[axis]} {what} (shape {array.shape}, read as {names}); expected one "
                "image. Save one of them as a file of its own, or name the true order of its axes with --axes."
            )
    places = [names.find(name) for name in "zyx"]
    present = [place for place in places if place >= 0]
    order = np.argsort(np.argsort(present))  # file's spatial axes, already without others, to z y x

    def take(values: Sequence[Any], missing: Any) -> tuple[Any, Any, Any]:
        z, y, x = (values[place] if place >= 0 else missing for place in places)
        return z, y, x

    def read(region: tuple[slice, slice, slice]) -> NDArray[Any]:
        selection = [slice(0, 1)] * len(names)
        for place, part in zip(places, region, strict=True):
            if place >= 0:
                selection[place] = part
        data = array.read(tuple(selection))
        spatial = data[tuple(slice(None) if name in "zyx" else 0 for name in names)].transpose(order)
        return spatial if len(present) == 3 else spatial[(np.newaxis,) * (3 - len(present))]

    offset = take(array.offset, 0.0)
    return Source(
        location=array.location,
        shape=take(array.shape, 1),
        dtype=array.dtype,
        chunks=take(array.chunks, 1),
        voxel_size=take(array.voxel_size, None),
        offset=None if any(value is None for value in offset) else offset,
        notes=array.notes,
        _read=read,
    )


def _check_axes(axes: str, array: FileArray) -> str:
    if len(axes) != len(array.shape):
        raise UserError(
            f"--axes {axes} names {len(axes)} axes, but {array.location} has {len(array.shape)}: {array.shape}. Name "
            "every axis in the file's order, with c for channel and t for time."
        )
    wanted = "zyx" if len(axes) > 2 else "yx"
    if any(axes.count(name) != 1 for name in wanted) or any(name not in "zyxct" for name in axes):
        raise UserError(f"--axes {axes}: expected each of {', '.join(wanted)} once (and c, t), such as zyx or xyz.")
    return axes
