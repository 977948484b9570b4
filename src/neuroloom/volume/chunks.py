"""Reading blosc chunks safely: a truncated one is refused instead of being decoded into noise.

    blosc chunk = 16 bytes of header (the last four: its length, little endian) + data

The decoder trusts that length and reads past the end of a chunk that was cut short, without an error; other codecs
notice by themselves. Source: the header's layout in the README of c-blosc 1.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import LocalStore

_HEADER = 16


class BloscCheckedStore(LocalStore):
    """A folder that compares the length of every chunk with the one its blosc header promises."""

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """As `LocalStore.get`; raises ValueError for a truncated chunk."""
        return _whole(await super().get(key, prototype, byte_range), key, byte_range)

    def get_sync(self, key: str, *, prototype: Any = None, byte_range: Any = None) -> Any:
        """As `LocalStore.get_sync`; raises ValueError for a truncated chunk."""
        return _whole(super().get_sync(key, prototype=prototype, byte_range=byte_range), key, byte_range)


def _whole(value: Any, key: str, byte_range: Any) -> Any:
    """What was read, if it is not a chunk that was cut short."""
    if value is not None and byte_range is None and key.rsplit("/", 1)[-1] not in _METADATA:
        promised = struct.unpack_from("<I", value[:_HEADER].to_bytes(), 12)[0] if len(value) >= _HEADER else None
        if promised != len(value):
            raise ValueError(f"{key} has {len(value)} bytes, its header promises {promised or 'more'}")
    return value


_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")


def checked(array: zarr.Array, container: Path, dataset: str) -> zarr.Array:
    """The same array with its chunks checked, if they are blosc's."""
    compressors = [type(c).__name__ for c in getattr(array, "compressors", ())]
    if not any(name.startswith("Blosc") for name in compressors) or array.shards is not None:
        return array
    read_only = bool(array.read_only)
    store = BloscCheckedStore(container, read_only=read_only)
    return zarr.open_array(store, path=dataset, mode="r" if read_only else "r+")
