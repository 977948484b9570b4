"""Label arrays as runs: stretches of voxels along x that share a label.

    a a a a b b 0 0 c      begin  0  4  6  8        A fragment is some fifteen voxels long along x, so there are fifteen
    a a a b b b b c c             0  3  7           times fewer runs than voxels: what is done per run costs little.

Used for everything that treats all voxels of a run alike: what hangs together, sizes and boxes, painting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numba
import numpy as np
from numpy.typing import NDArray

from neuroloom.fragments.sets import find_root


@dataclass(frozen=True)
class Runs:
    """A label array, row by row in z-major order; a row's runs cover it.

    Attributes:
        shape: Of the array, z y x.
        first: `(z * y + 1,)`, the first run of each row, and the end of the last.
        begin: `(n,)`, first voxel of each run along x.
        label: `(n,)`, 0 = none.
    """

    shape: tuple[int, int, int]
    first: NDArray[np.int64]
    begin: NDArray[np.int32]
    label: NDArray[np.uint32]

    @classmethod
    def of(cls, labels: NDArray[Any], begin: Sequence[int] = (0, 0, 0), shape: Sequence[int] | None = None) -> Self:
        """The runs of an array, or of a part of it.

        Args:
            labels: `(z, y, x)`, up to 32 bits.
            begin: First voxel of the part.
            shape: Of the part; None for all.
        """
        z, y, x = labels.shape if shape is None else shape
        flat = np.ascontiguousarray(labels).reshape(-1)
        place = np.array([labels.shape[1], labels.shape[2], *begin], dtype=np.int64)
        first = np.zeros(z * y + 1, dtype=np.int64)
        if x:
            _count(flat, place, y, x, first)
        starts, label = np.empty(first[-1], dtype=np.int32), np.empty(first[-1], dtype=np.uint32)
        if x:
            _find(flat, place, y, x, first, starts, label)
        return cls((z, y, x), first, starts, label)

    def connected(self) -> Self:
        """Every piece of a label that hangs together across faces has a number of its own, 1 … n in z-major order."""
        parent = np.arange(len(self.begin), dtype=np.uint32 if len(self.begin) < 2**32 else np.int64)
        _connect(self.first, self.begin, self.label, parent, self.shape[1], self.shape[2])
        return replace(self, label=_number(self.label, parent))

    def painted(self, values: NDArray[Any] | None = None) -> NDArray[Any]:
        """The array.

        Args:
            values: What stands for label k is values[k]; None for the label itself.

        Returns:
            `(z, y, x)`, of the type of `values`, else uint32.
        """
        values = np.arange(int(self.label.max(initial=0)) + 1, dtype=np.uint32) if values is None else values
        result = np.empty(self.shape, dtype=values.dtype)
        _paint(self.first, self.begin, self.label, values, result.reshape(len(self.first) - 1, self.shape[2]))
        return result


@numba.njit(cache=True)
def _row(flat: Any, place: Any, height: int, length: int, row: int) -> Any:
    """A row of a part of an array that is `place[0]` rows high and `place[1]` voxels long."""
    z, y = place[2] + row // height, place[3] + row % height
    begin = (z * place[0] + y) * place[1] + place[4]
    return flat[begin : begin + length]


@numba.njit(cache=True)
def _count(flat: Any, place: Any, height: int, length: int, first: Any) -> None:
    for row in range(len(first) - 1):
        labels = _row(flat, place, height, length, row)
        count = np.int32(1)
        for x in range(1, length):
            count += labels[x] != labels[x - 1]
        first[row + 1] = first[row] + count


@numba.njit(cache=True)
def _find(flat: Any, place: Any, height: int, length: int, first: Any, begin: Any, label: Any) -> None:
    for row in range(len(first) - 1):
        labels = _row(flat, place, height, length, row)
        run = first[row]
        begin[run], label[run] = 0, labels[0]
        for x in range(1, length):
            if labels[x] != labels[x - 1]:
                run += 1
                begin[run], label[run] = x, labels[x]


@numba.njit(cache=True)
def _connect(first: Any, begin: Any, label: Any, parent: Any, height: int, length: int) -> None:
    """Unite runs with those of the rows before along y and z; the first run of a piece stands for it."""
    for row in range(len(first) - 1):
        for before in (row - 1 if row % height else -1, row - height):
            if before < 0:
                continue
            ours, ours_end = first[row], first[row + 1]
            theirs, theirs_end = first[before], first[before + 1]
            while ours < ours_end and theirs < theirs_end:
                if label[ours] == label[theirs] and label[ours] != 0:
                    one, other = find_root(parent, ours), find_root(parent, theirs)
                    if one < other:
                        parent[other] = one
                    else:
                        parent[one] = other
                end = begin[ours + 1] if ours + 1 < ours_end else length
                their_end = begin[theirs + 1] if theirs + 1 < theirs_end else length
                if end <= their_end:
                    ours += 1
                if their_end <= end:
                    theirs += 1


@numba.njit(cache=True)
def _number(label: Any, parent: Any) -> Any:
    """Number pieces in the order of their first runs."""
    number = np.zeros(len(label), dtype=np.uint32)
    count = np.uint32(0)
    for run in range(len(label)):
        if label[run] == 0:
            continue
        if parent[run] == run:
            count += np.uint32(1)
            number[run] = count
        else:
            number[run] = number[parent[run]]  # which comes before
    return number


@numba.njit(cache=True)
def _paint(first: Any, begin: Any, label: Any, values: Any, result: Any) -> None:
    for row in range(len(result)):
        for run in range(first[row], first[row + 1]):
            end = begin[run + 1] if run + 1 < first[row + 1] else result.shape[1]
            result[row, begin[run] : end] = values[label[run]]
