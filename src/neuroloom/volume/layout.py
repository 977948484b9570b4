"""How an array that blocks write is cut into files and chunks: no two blocks share a file.

block  +---------------+        a shard is a file: a block, or an equal part of a long one
       | +---+---+---+ |        a chunk is what is decoded at once, about 64 voxels along each axis
       | |   |   |   | |
       | +---+---+---+ |
       +---------------+
"""

from __future__ import annotations

import math

from neuroloom.volume.array import Triple


def chunk_of(shape: Triple, block: Triple, wanted: int = 64) -> Triple:
    """A chunk that does not reach into two blocks: of the parts into which a block can be cut, the nearest to `wanted`.

    Args:
        shape: The volume's extent in voxels.
        block: Extent of a block in voxels.
    """
    z, y, x = (
        min(wanted, size)
        if size <= b
        else min((c for c in range(1, b + 1) if b % c == 0), key=lambda c: abs(math.log(c / wanted)))
        for size, b in zip(shape, block, strict=True)
    )
    return z, y, x


def shard_of(shape: Triple, block: Triple, chunk: Triple, most: int = 544) -> Triple:
    """What is kept in one file: a block, or an equal part of it along axes where it is longer than `most` voxels.

    Args:
        shape: The volume's extent in voxels.
        block: Extent of a block in voxels.
        chunk: From `chunk_of`.
    """
    z, y, x = (
        next(n for n in range(max(1, min(most, extent) // c), 0, -1) if (extent // c) % n == 0) * c
        for extent, c in zip(
            (-(-min(s, b) // c) * c for s, b, c in zip(shape, block, chunk, strict=True)), chunk, strict=True
        )
    )
    return z, y, x
