"""Where ids lie among all, looked up by subtraction: fragments of a block are numbered without gaps.

    ids       7    8    9  1007 1008 5003          range    7 ...    9  begins at place 0
    places    0    1    2    3    4    5                 1007 ... 1008                  3
                                                         5003                           5

A volume has one range per block, so that searching takes no time. Ids with gaps are found, too: each run of neighbours
is a range then, and in the worst case each id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numba
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ranges:
    """Ascending ids as ranges without gaps.

    Attributes:
        first: `(r,)`, the first id of each range, ascending.
        length: `(r,)`, ids in it.
        place: `(r,)`, place of the first one among all ids.
    """

    first: NDArray[np.uint64]
    length: NDArray[np.uint64]
    place: NDArray[np.int64]

    @classmethod
    def of(cls, ids: NDArray[np.uint64]) -> Self:
        """The ranges of ids.

        Args:
            ids: `(n,)`, ascending, distinct.
        """
        place = np.flatnonzero(_begins(ids))
        length = np.diff(place, append=len(ids)).astype(np.uint64)
        return cls(ids[place], length, place)

    def find(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The places of ids.

        Args:
            ids: `(m,)`, in any order.

        Returns:
            `(m,)`, places among all ids; -1 of those that are not there.
        """
        result = np.empty(len(ids), np.int64)
        _find(np.ascontiguousarray(ids, np.uint64), self.first, self.length, self.place, result)
        return result


@numba.njit(cache=True, nogil=True)
def find_range(wanted: Any, first: Any, length: Any) -> int:
    """Which range holds an id; -1: none."""
    low, high = 0, len(first)
    while low < high:
        middle = (low + high) // 2
        if first[middle] <= wanted:
            low = middle + 1
        else:
            high = middle
    if low == 0 or wanted - first[low - 1] >= length[low - 1]:
        return -1
    return low - 1


@numba.njit(cache=True, nogil=True)
def _begins(ids: Any) -> Any:
    """Which ids are not the next after the one before."""
    begins = np.empty(len(ids), np.bool_)
    for i in range(len(ids)):
        begins[i] = i == 0 or ids[i] != ids[i - 1] + np.uint64(1)
    return begins


@numba.njit(cache=True, nogil=True)
def _find(ids: Any, first: Any, length: Any, place: Any, result: Any) -> None:
    last = -1
    for i in range(len(ids)):
        # mostly in the range of the one before
        if last < 0 or ids[i] < first[last] or ids[i] - first[last] >= length[last]:
            last = find_range(ids[i], first, length)
        result[i] = -1 if last < 0 else place[last] + np.int64(ids[i] - first[last])
