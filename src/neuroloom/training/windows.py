"""A region of an array in memory that may leave it: kernels read it where it lies, so that nothing is copied.

    begin
      |<------ shape ------>|
+-----+---------------------+           values: the whole array, or the part of it that was read
|  -  |  a  b  c  d  e  f   |           outside: mirrored (an image), or 0 (labels)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.volume.array import Triple, reflect_indices


@dataclass(frozen=True)
class Window:
    """A region of an array.

    Attributes:
        values: `(z, y, x)`, or `(z, y, x, channels)`; contiguous.
        begin: First voxel of the region, z y x; may be negative.
        shape: Extent of the region in voxels.
    """

    values: NDArray[Any]
    begin: Triple
    shape: Triple

    def read_mirrored(self) -> NDArray[Any]:
        """A copy of the region; outside, the array is mirrored about its border voxels."""
        edges = list(zip(self.begin, self.shape, self.values.shape[:3], strict=True))
        if all(b >= 0 and b + extent <= size for b, extent, size in edges):
            return self.read()
        return self.values[np.ix_(*(reflect_indices(b, extent, size) for b, extent, size in edges))]

    def mirrored(self, axis: int) -> NDArray[np.bool_]:
        """Where along an axis `read_mirrored` shows what lies behind a mirror, and another behind that."""
        size = self.values.shape[axis]
        index = np.arange(self.begin[axis], self.begin[axis] + self.shape[axis])
        return (index % max(1, 2 * size - 2) >= size) & (size > 1)

    def read(self) -> NDArray[Any]:
        """A copy of the region, 0 outside the array."""
        result = np.zeros((*self.shape, *self.values.shape[3:]), self.values.dtype)
        edges = list(zip(self.begin, self.shape, self.values.shape[:3], strict=True))
        # an empty slice where the two do not meet
        there = tuple(slice(min(max(0, b), size), max(0, min(b + extent, size))) for b, extent, size in edges)
        here = tuple(slice(s.start - b, s.stop - b) for s, (b, _, _) in zip(there, edges, strict=True))
        if all(s.stop > s.start for s in there):
            result[here] = self.values[there]
        return result


def whole(values: NDArray[Any]) -> Window:
    """All of an array `(z, y, x)`."""
    z, y, x = values.shape
    return Window(np.ascontiguousarray(values), (0, 0, 0), (z, y, x))
