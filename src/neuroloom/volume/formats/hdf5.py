"""HDF5 by h5py. The file is opened for each read: nothing is open when a process forks, and it takes less than 1 ms.

Sources of the attributes: CREMI (`resolution`, `offset`, nm z y x), Fiji and BigDataViewer (`element_size_um`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.volume.formats.file_array import (
    FileArray,
    Index,
    default_axes,
    first,
    in_nanometres,
    readable,
    units_of,
)

SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")


def is_hdf5(path: str | Path) -> bool:
    """Whether a file's name or content is HDF5's."""
    if Path(path).suffix.lower() in SUFFIXES:
        return True
    if not Path(path).is_file():
        return False
    import h5py  # most volumes are folders: it is loaded for files only

    return bool(h5py.is_hdf5(path))


def hdf5_datasets(path: Path) -> list[str]:
    """Names of all arrays of numbers in a file, sorted.

    Raises:
        UserError: The file is damaged.
    """
    import h5py

    found: list[str] = []
    with readable(str(path)), h5py.File(path, "r") as file:
        file.visititems(lambda name, node: found.append(name) if _is_image(node) else None)
    return sorted(found)


def read_hdf5(path: Path, name: str, location: str) -> FileArray:
    """One array of a file.

    Args:
        path: The file.
        name: The array's name in it.
        location: What to call it in messages.

    Raises:
        UserError: The file is damaged, or there is no array of that name.
    """
    import h5py

    with readable(location), h5py.File(path, "r") as file:
        node = file.get(name)
        if not _is_image(node):
            known = ", ".join(hdf5_datasets(path)) or "no arrays"
            raise UserError(f"{path} holds no dataset {name!r}; it holds {known}. Name one of them.")
        axes = default_axes(node.ndim)
        attributes = {key: node.attrs[key] for key in node.attrs}
        units = units_of(attributes)
        if "element_size_um" in attributes:
            voxel_size = in_nanometres(attributes["element_size_um"], "um", axes, location)
        else:
            voxel_size = in_nanometres(first(attributes, "resolution", "voxel_size"), units, axes, location)
        return FileArray(
            location,
            node.shape,
            node.dtype,
            axes,
            node.chunks or (1,) * node.ndim,
            partial(_read, path, name),
            voxel_size,
            in_nanometres(attributes.get("offset"), units, axes, location),
            stored=partial(_stored, path, name) if node.chunks else None,
        )


def _is_image(node: Any) -> bool:
    import h5py

    return isinstance(node, h5py.Dataset) and node.ndim >= 2 and node.dtype.kind in "buif"


def _read(path: Path, name: str, at: tuple[slice, ...]) -> NDArray[Any]:
    import h5py

    with h5py.File(path, "r") as file:
        return np.asarray(file[name][at])


def _stored(path: Path, name: str, chunks: Sequence[Index]) -> list[bool]:
    import h5py

    with h5py.File(path, "r") as file:
        node = file[name]
        begins = [tuple(i * c for i, c in zip(index, node.chunks, strict=True)) for index in chunks]
        return [node.id.get_chunk_info_by_coord(begin).byte_offset is not None for begin in begins]
