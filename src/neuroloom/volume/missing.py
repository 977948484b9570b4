"""Which chunks of a region were never written, or got lost: by the names of files, without decoding any.

    region  +-----------+        a chunk is missing when its file is: zarr and N5 by file, sharded zarr by shard,
            |  [] [] []  |       precomputed by file, HDF5 by the index in the file
            |  []  .  [] |  <-   missing: reads as 0
            +-----------+

Programs leave out the files of chunks that are 0 everywhere, so a missing chunk is no proof of damage.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import zarr
from zarr.storage import LocalStore

from neuroloom.volume.formats.file_array import DirectArray, Index
from neuroloom.volume.formats.place import Place
from neuroloom.volume.remote import RemoteStore


def find_missing(
    array: zarr.Array | DirectArray, begin: Sequence[int], shape: Sequence[int]
) -> list[tuple[int, int, int]]:
    """First voxels of the missing chunks that intersect a region; see `Volume.missing_chunks`.

    Args:
        array: `(z, y, x)` or `(c, z, y, x)`.
        begin: First voxel, z y x.
        shape: Extent in voxels, z y x.
    """
    are_stored = _teller(array)
    if are_stored is None:
        return []
    grid = stored_grid(array)
    first = (*(0 for _ in array.shape[:-3]), *begin)
    extent = (*array.shape[:-3], *shape)
    spans = [range(b // g, -(-(b + e) // g)) for b, e, g in zip(first, extent, grid, strict=True)]
    indices = list(itertools.product(*spans))
    lost = sorted({index[-3:] for index, stored in zip(indices, are_stored(indices), strict=True) if not stored})
    z, y, x = grid[-3:]
    return [(i * z, j * y, k * x) for i, j, k in lost]


def stored_grid(array: zarr.Array | DirectArray) -> Index:
    """Extents of what is missing or there as one: a shard where there are shards, else a chunk; axes of the array."""
    return array.chunks if isinstance(array, DirectArray) else array.shards or array.chunks


def _teller(array: zarr.Array | DirectArray) -> Callable[[Sequence[Index]], list[bool]] | None:
    """What tells which chunks, by their indices, are stored; None where nothing does."""
    if isinstance(array, DirectArray):
        return array.are_stored if array.file.stored is not None else None
    store = array.store_path.store
    root = store.url if isinstance(store, RemoteStore) else str(store.root) if isinstance(store, LocalStore) else None
    if root is None:
        return None
    prefix = f"{array.path}/" if array.path else ""
    return lambda indices: Place(root).exist([prefix + array.metadata.encode_chunk_key(index) for index in indices])
