"""Tiles that a network of declared extents can predict, along one axis each.

    input    |<------------------- input + k * step ------------------->|
    output         |<------------ output + k * step ------------>|            in the middle of the input
    used             halo |<-- before -->|<-- tile -->|<-- rest -->| halo

A network that pools repeats itself only when it is moved by its step, so tiles begin at multiples of it and are
multiples of it: `rest`, less than a step, is cut off. Where no step is known, the tile is all that is used of the
output, and tiles begin at multiples of that. `before` is a voxel that affinities look back to where they are declared
the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class AxisTiles:
    """Tiles along an axis, in voxels.

    Attributes:
        factor: Tiles begin at multiples of it.
        smallest: The smallest tile.
        margin: Raw seen before a tile.
        context: Raw seen beyond a tile, on both sides together.
        grows: Whether larger tiles, by multiples of the factor, are possible.
    """

    factor: int
    smallest: int
    margin: int
    context: int
    grows: bool

    @classmethod
    def of(cls, extent: int, output: int, step: int, halo: int, before: int, grows: bool = True) -> AxisTiles:
        """The tiles of a network.

        Args:
            extent: Of the input.
            output: Of the output, smaller by an even number.
            step: Moved by it, the network repeats itself; 0 where that is not known.
            halo: At either end of the output, not used.
            before: Voxels of the output before a tile that belong to it.
            grows: Whether input and output may grow by steps.

        Raises:
            ValueError: Nothing, or less than a step, is left of the output.
        """
        used = output - 2 * halo - before
        grows = grows and step > 0
        if not grows and used < max(step, 1):
            raise ValueError("less than a step is left of the output" if step else "nothing is left of the output")
        growth = max(0, -(-(step - used) // step)) * step if grows else 0
        factor = step or used
        smallest = (used + growth) // factor * factor
        margin = (extent - output) // 2 + halo + before
        return cls(factor, smallest, margin, extent + growth - smallest, grows)

    def region(self, size: int) -> int:
        """What tiles cover that hold `size` voxels."""
        return max(self.smallest, -(-size // self.factor) * self.factor)

    def tile(self, region: int, target: int) -> int:
        """The tile that cuts a region into about equal parts of at most `target` voxels, if there is one.

        Args:
            region: From `region`.
            target: At most about this.
        """
        if not self.grows:
            return self.smallest
        parts = -(-region // max(target, self.smallest))
        return max(self.smallest, -(-region // (parts * self.factor)) * self.factor)

    def begins(self, region: int, tile: int) -> Iterator[int]:
        """Where tiles begin that cover a region; the last one goes back as far as it has to."""
        yield from range(0, region - tile, tile)
        yield region - tile
