"""Which blocks of one stage the blocks of another read.

    source   |  0  |  1  |  2  |  3  |  4  |     blocks of the stage that is read, along one axis
    reader   |    0    |     1     |   2   |     its block 1 reads, with its context, the source's blocks 1, 2 and 3:
                   <------------->               a range on each axis, and together a box

Flags are arrays of bool with one element for each block, in the shape of the stage's grid, z y x.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neuroloom.blockwise.stage import Stage

Flags = NDArray[np.bool_]
Ranges = list[tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Along z, y, x: the first and one after the last block, for each block."""


def reads(reader: Stage, source: Stage) -> bool:
    """Whether one of a stage's inputs is what another makes.

    Args:
        reader: That may read.
        source: That may be read.
    """
    made = source.fingerprint()
    values = (getattr(reader, name) for name in type(reader).model_fields)
    return any(getattr(value, "fingerprint", None) == made for value in values)


def blocks_read(reader: Stage, source: Stage) -> Ranges:
    """The source's blocks that each block of the reader reads.

    Args:
        reader: A stage.
        source: One of the same volume.
    """
    ranges = []
    axes = zip(reader.grid, reader.block_shape, reader.context, source.block_shape, source.shape, strict=True)
    for count, block, context, theirs, extent in axes:
        begin = np.arange(count, dtype=np.int64) * block
        first = np.maximum(begin - context, 0) // theirs
        last = np.minimum(begin + block + context, extent) - 1
        ranges.append((first, last // theirs + 1))
    return ranges


def readers_of(reader: Stage, source: Stage) -> Ranges:
    """The reader's blocks that read each block of the source; see `blocks_read`."""
    return [
        (
            np.searchsorted(end, np.arange(count), side="right"),
            np.searchsorted(first, np.arange(count), side="right"),
        )
        for count, (first, end) in zip(source.grid, blocks_read(reader, source), strict=True)
    ]


def any_in(ranges: Ranges, flags: Flags) -> Flags:
    """For each block, whether any is set in its box.

    Args:
        ranges: Its box among the blocks that have flags.
        flags: Theirs.
    """
    found: NDArray[np.bool_] = flags
    for axis, (first, end) in enumerate(ranges):
        before = np.zeros([n + (k == axis) for k, n in enumerate(found.shape)], dtype=np.int32)
        np.cumsum(found, axis=axis, out=before[tuple(slice(int(k == axis), None) for k in range(3))], dtype=np.int32)
        found = np.take(before, end, axis=axis) > np.take(before, first, axis=axis)
    return found


def still_read(source: Stage, readers: Sequence[tuple[Stage, Flags]]) -> Flags:
    """Which blocks of a stage somebody is still to read.

    Args:
        source: The stage.
        readers: Those that read it, each with what it has finished.
    """
    needed = np.zeros(source.grid, dtype=bool)
    for reader, finished in readers:
        needed |= any_in(readers_of(reader, source), ~finished)
    return needed


def inputs_there(reader: Stage, sources: Sequence[tuple[Stage, Flags]]) -> Flags:
    """Which blocks of a stage have all that they read.

    Args:
        reader: The stage.
        sources: What it reads, each with what is finished of it.
    """
    there = np.ones(reader.grid, dtype=bool)
    for source, finished in sources:
        there &= ~any_in(blocks_read(reader, source), ~finished)
    return there
