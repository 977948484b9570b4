"""Neuroglancer's precomputed by tensorstore: a folder with a file `info` that lists the scales of one image.

    path = "gs://bucket/image"   dataset = "8_8_8"          the scale of that key
                                 dataset = "."              the finest scale
    path = "gs://bucket"         dataset = "image/8_8_8"    likewise, so that labels can lie beside raw
                                 dataset = "image"

Source: the format's specification in neuroglancer's repository, `datasource/precomputed/volume.md`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from neuroloom.errors import UserError
from neuroloom.volume.formats.file_array import FileArray, Index, readable
from neuroloom.volume.formats.n5 import read_store
from neuroloom.volume.formats.place import Place
from neuroloom.volume.remote import is_url

_AXES = "xyzc"


@dataclass(frozen=True)
class Scale:
    """One scale of an image.

    Attributes:
        folder: The folder of `info` in its place.
        number: The scale's number in `info`.
        entry: What `info` says about it.
    """

    folder: str
    number: int
    entry: dict[str, Any]

    @property
    def info(self) -> str:
        """The file `info` in the place."""
        return _joined(self.folder, "info")

    @property
    def files(self) -> str:
        """The folder of its chunks in the place."""
        return _joined(self.folder, self.entry["key"])


def find_scale(place: Place, dataset: str) -> Scale | None:
    """The scale that a dataset's name means; see the picture above.

    Args:
        place: The container.
        dataset: Its name, "" for the finest scale of the container itself.

    Raises:
        UserError: The URL cannot be reached.
    """
    parent, _, last = dataset.rpartition("/")
    for folder, key in dict.fromkeys((("", dataset), (dataset, ""), (parent, last))):
        scales = _scales(place, folder)
        if not key and scales:
            finest = min(range(len(scales)), key=lambda n: math.prod(scales[n]["resolution"]))
            return Scale(folder, finest, scales[finest])
        for number, entry in enumerate(scales):
            if entry["key"] == key:
                return Scale(folder, number, entry)
    return None


def scale_names(place: Place) -> list[str]:
    """Keys of all scales of an image, none where there is no image.

    Raises:
        UserError: The URL cannot be reached.
    """
    return [scale["key"] for scale in _scales(place, "")]


def read_precomputed(place: Place, scale: Scale, location: str) -> FileArray:
    """One scale of an image.

    Args:
        place: Where it was found.
        scale: The scale.
        location: What to call it in messages.

    Raises:
        UserError: The metadata are damaged, or the chunks are compressed in a way that cannot be read.
    """
    import tensorstore  # most volumes are zarr, which is read without it

    _refuse_packed(place, scale, location)
    with readable(location):
        store = place.open("neuroglancer_precomputed", scale.folder, scale_index=scale.number)
        entry = scale.entry
        size = [float(v) for v in entry["resolution"]]
        begin = [int(v) for v in entry.get("voxel_offset", (0, 0, 0))]
        channels = int(store.shape[3])
        return FileArray(
            location,
            tuple(int(extent) for extent in store.shape),
            np.dtype(store.dtype.numpy_dtype),
            _AXES,
            (*(int(c) for c in store.chunk_layout.read_chunk.shape[:3]), channels),
            partial(read_store, store[tensorstore.d[:].translate_to[0]]),
            (*size, None),
            (*(b * s for b, s in zip(begin, size, strict=True)), None),
            # shards are hashed: a chunk has no file of its own
            stored=None if entry.get("sharding") else partial(_stored, place, scale),
        )


def _stored(place: Place, scale: Scale, chunks: Sequence[Index]) -> list[bool]:
    offset = scale.entry.get("voxel_offset", (0, 0, 0))
    names = []
    for index in chunks:
        spans = []
        for i, chunk, size, begin in zip(
            index[:3], scale.entry["chunk_sizes"][0], scale.entry["size"], offset, strict=True
        ):
            spans.append(f"{begin + i * chunk}-{begin + min((i + 1) * chunk, size)}")
        names.append(_joined(scale.files, "_".join(spans)))
    return place.exist(names)


def _scales(place: Place, folder: str) -> list[dict[str, Any]]:
    """The scales that `info` lists, as far as they say what they are."""
    found = (place.read_json(_joined(folder, "info")) or {}).get("scales")
    needed = {"key", "resolution", "size", "chunk_sizes"}
    return [s for s in found if isinstance(s, dict) and needed <= s.keys()] if isinstance(found, list) else []


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _refuse_packed(place: Place, scale: Scale, location: str) -> None:
    """Some programs compress the files once more on a disk; they would read as if they were missing."""
    folder = Path(place.root) / scale.files
    if is_url(place.root) or not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in islice(entries, 100):
            if entry.name.endswith((".gz", ".br", ".zstd", ".xz")):
                raise UserError(
                    f"{location}: its chunks are compressed files such as {entry.name}, which cannot be read in place. "
                    "Unpack them, or write the volume again without compression of the files."
                )
