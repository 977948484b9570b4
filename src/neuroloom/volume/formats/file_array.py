"""An array as its file describes it, axes in the file's own order, read region by region.

    file (x, y, z, channel)  --FileArray-->  DirectArray (channel, z, y, x)      to compute with where it lies
                                        -->  importing's Source (z, y, x)        to be copied

Readers make a `FileArray`; everything after them sees z, y, x only.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.volume.units import nanometres_per

Lengths = tuple[float | None, ...]
Index = tuple[int, ...]


@dataclass(frozen=True)
class FileArray:
    """An array as its file describes it, axes in the file's own order.

    Attributes:
        location: File and dataset, for messages.
        shape: Extent of each axis.
        dtype: Element type.
        axes: One letter per axis: z, y, x, c (channel), t (time).
        chunks: What the file decodes at once, along each axis.
        read: Takes one slice per axis, returns the region.
        voxel_size: nm along each axis, None where the file does not say.
        offset: nm of the first voxel along each axis, None where the file does not say.
        notes: What the user should know about this file.
        stored: Tells which chunks of a list, given by their index along each axis, the file holds; None where it
            cannot tell.
    """

    location: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: str
    chunks: tuple[int, ...]
    read: Callable[[tuple[slice, ...]], NDArray[Any]]
    voxel_size: Lengths
    offset: Lengths
    notes: tuple[str, ...] = ()
    stored: Callable[[Sequence[Index]], list[bool]] | None = None


@dataclass(frozen=True)
class DirectArray:
    """A file's array seen as `(z, y, x)` or `(c, z, y, x)`, read only; what `Volume` needs of a zarr array.

    No file stays open between reads, and it can be sent to other processes. N5 and precomputed have threads of their
    own: after reading one, start processes by "spawn", not by "fork".

    Attributes:
        file: The array in its own order.
        order: The file's axis for each axis here.
        attrs: Empty: voxel size and offset are those of the volume.
    """

    file: FileArray
    order: Index
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents here."""
        return tuple(int(self.file.shape[axis]) for axis in self.order)

    @property
    def chunks(self) -> tuple[int, ...]:
        """What the file decodes at once, along each axis here."""
        return tuple(int(self.file.chunks[axis]) for axis in self.order)

    @property
    def ndim(self) -> int:
        """3, or 4 with channels."""
        return len(self.order)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type."""
        return self.file.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, selection: tuple[Any, ...]) -> NDArray[Any]:
        """Read a region: `(..., z, y, x)` with three slices."""
        at = [slice(0, extent) for extent in self.file.shape]
        for axis, part in zip(self.order[-3:], selection[-3:], strict=True):
            at[axis] = part
        data = self.file.read(tuple(at))
        rest = [axis for axis in range(data.ndim) if axis not in self.order]
        return data.transpose(*rest, *self.order)[(0,) * len(rest)]

    def are_stored(self, chunks: Sequence[Index]) -> list[bool]:
        """Which chunks, by their indices along the axes here, the file holds; of a file that can tell."""
        assert self.file.stored is not None
        places = [dict(zip(self.order, index, strict=True)) for index in chunks]
        return self.file.stored([tuple(p.get(axis, 0) for axis in range(len(self.file.shape))) for p in places])


def as_direct(array: FileArray) -> DirectArray:
    """See a file's array as `(z, y, x)` or `(c, z, y, x)`; other axes of one element are dropped.

    Raises:
        UserError: It has other axes.
    """
    extents = dict(zip(array.axes, array.shape, strict=True))
    wanted = "czyx" if extents.get("c", 1) > 1 else "zyx"
    more = [name for name in extents if name not in wanted and extents[name] > 1]
    if more or not {*"zyx"} <= extents.keys():
        raise UserError(
            f"{array.location} has {len(array.shape)} axes; expected z, y, x with an optional channel axis in front."
        )
    return DirectArray(array, tuple(array.axes.index(name) for name in wanted))


def default_axes(dimensions: int) -> str:
    """The order taken for an array that does not name its axes: z, y, x last."""
    return "tczyx"[-dimensions:] if dimensions <= 5 else "?" * (dimensions - 3) + "zyx"


def along_axes(values: Sequence[float | None], axes: str) -> Lengths:
    """Spread values given for the spatial axes only over all axes, None for the others."""
    if len(values) == len(axes):
        return tuple(value if name in "zyx" else None for value, name in zip(values, axes, strict=True))
    spatial = [name for name in axes if name in "zyx"]
    if len(values) != len(spatial):
        return (None,) * len(axes)
    rest = iter(values)
    return tuple(next(rest) if name in "zyx" else None for name in axes)


def numbers(values: Any) -> list[float] | None:
    """A sequence of numbers, None where an attribute is something else."""
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError):
        return None


def in_nanometres(values: Any, units: Any, axes: str, location: str) -> Lengths:
    """Values per spatial axis, in the file's order, with one unit for all or one for each."""
    given = numbers(values)
    if given is None:
        return (None,) * len(axes)
    names = [units] * len(given) if isinstance(units, str) else [str(unit) for unit in units]
    lengths: list[float | None] = []
    for number, name in zip(given, names, strict=False):
        factor = nanometres_per(name, location)
        lengths.append(None if factor is None else number * factor)
    return along_axes(lengths, axes)


def first(attributes: Mapping[str, Any], *names: str) -> Any:
    """The first of some attributes that is there."""
    return next((attributes[name] for name in names if name in attributes), None)


def units_of(attributes: Mapping[str, Any]) -> Any:
    """The unit beside `resolution`; nm, as the field writes it, when there is none."""
    units = first(attributes, "units", "unit")
    if units is None:
        return "nm"
    if isinstance(units, bytes):
        return units.decode()
    if isinstance(units, str):
        return units
    return [unit.decode() if isinstance(unit, bytes) else str(unit) for unit in units]


@contextlib.contextmanager
def readable(location: str) -> Iterator[None]:
    """Turn whatever a reader raises for a damaged file into a `UserError` that names it."""
    try:
        yield
    except UserError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # readers and codecs raise many types; all mean a file that cannot be decoded
        reason = " ".join(str(error).split())
        raise UserError(
            f"{location} cannot be read ({type(error).__name__}: {reason}). The file is truncated, damaged or not what "
            "its name says: copy or write it again."
        ) from error
