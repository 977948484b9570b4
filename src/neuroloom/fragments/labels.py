"""Label arrays of arbitrary 64-bit ids: look every id up in a table, or number them 1 … n.

Ids of fragments are unique in a volume and therefore huge; kernels want them small. Neighbouring voxels mostly share
an id, so the last answer is asked first. Where it is another id:

    relabel    the row is as far from the last row as the id from the last id, since a block's ids have no gaps; if
               that row holds another id, it is searched for
    compact    a hash table with open addressing
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray


def relabel(labels: NDArray[np.uint64], keys: NDArray[np.uint64], values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Replace every label by what a table says; 0 stays 0.

    Args:
        labels: Any shape.
        keys: `(n,)`, ascending, distinct, without 0; may be a view of a file, of which only rows that are needed are
            read.
        values: `(n,)`, likewise.

    Returns:
        The new labels, of the shape of `labels`.

    Raises:
        KeyError: A label is not among the keys; its value is the argument.
    """
    flat = np.ascontiguousarray(labels, dtype=np.uint64).reshape(-1)
    result = np.empty_like(flat)
    missing = int(_replace(flat, keys, values, result))
    if missing:
        raise KeyError(missing)
    return result.reshape(labels.shape)


def compact(labels: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """Number labels 1 … n in ascending order; 0 stays 0.

    Args:
        labels: Any shape.

    Returns:
        The distinct labels without 0, ascending, `(n,)`; and the numbers, of the shape of `labels`: number k stands
        for the label at k - 1.
    """
    flat = np.ascontiguousarray(labels, dtype=np.uint64).reshape(-1)
    numbers = np.empty(flat.shape, dtype=np.uint32)
    met = _in_order(flat, numbers)
    order = np.argsort(met)
    ascending = np.zeros(len(met) + 1, dtype=np.uint32)
    ascending[1 + order] = np.arange(1, len(met) + 1)
    _renumber(numbers, ascending)
    return met[order], numbers.reshape(labels.shape)


def _in_order(labels: NDArray[np.uint64], numbers: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Number labels in the order in which they are met; the distinct ones without 0, in that order."""
    met = np.empty(512, dtype=np.uint64)
    done = count = 0
    while True:
        slots, number_in = np.zeros(2 * len(met), dtype=np.uint64), np.zeros(2 * len(met), dtype=np.uint32)
        _fill(slots, number_in, met[:count])
        done, count = _count_up(labels, numbers, slots, number_in, met, count, done)
        if done == len(labels):
            return met[:count]
        met = np.concatenate([met, np.empty_like(met)])


def occurring(numbers: NDArray[np.uint32], count: int) -> NDArray[np.bool_]:
    """Whether each of the numbers 1 … count occurs.

    Args:
        numbers: `(z, y, x)`, 0 … count.
        count: The largest that may.

    Returns:
        `(count,)`.
    """
    found = np.zeros(count + 1, dtype=np.bool_)
    _mark(numbers, found)
    return found[1:]


@numba.njit(cache=True)
def _mark(numbers: Any, found: Any) -> None:
    for z in range(numbers.shape[0]):
        for y in range(numbers.shape[1]):
            for x in range(numbers.shape[2]):
                found[numbers[z, y, x]] = True


@numba.njit(cache=True, nogil=True)
def _replace(labels: Any, keys: Any, values: Any, result: Any) -> Any:
    """Fill `result`; return the first label that is not among the keys, or 0."""
    last, answer, row = np.uint64(0), np.uint64(0), 0
    for i in range(len(labels)):
        label = labels[i]
        if label != last and label != 0:
            guess = row + int(np.int64(label - last))
            if 0 <= guess < len(keys) and keys[guess] == label:
                row = guess
            else:
                row = _search(keys, label)
                if row == len(keys) or keys[row] != label:
                    return label
            last, answer = label, values[row]
        result[i] = np.uint64(0) if label == 0 else answer
    return np.uint64(0)


@numba.njit(cache=True, nogil=True)
def _search(keys: Any, label: Any) -> int:
    """The first row that holds no less."""
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < label:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(cache=True)
def _hash(key: Any) -> Any:
    """Spread ids that differ in few bits (finalizer of MurmurHash3)."""
    key = np.uint64(key)
    key ^= key >> np.uint64(33)
    key *= np.uint64(0xFF51AFD7ED558CCD)
    key ^= key >> np.uint64(33)
    return key


@numba.njit(cache=True)
def _count_up(labels: Any, numbers: Any, slots: Any, number_in: Any, met: Any, count: int, begin: int) -> Any:
    """Number labels in the order in which they are met; from where on, and how many there were before.

    Args:
        labels: `(n,)`.
        numbers: `(n,)`, filled.
        slots: Hash table of labels, 0 = empty.
        number_in: The number of what lies in each slot.
        met: The distinct labels without 0, filled; half as long as the table.
        count: How many of them there are.
        begin: The first label to number.

    Returns:
        How many labels have been numbered, all or as many as the table holds; and how many distinct ones there are.
    """
    wrap = np.uint64(len(slots) - 1)
    last, number = np.uint64(0), np.uint32(0)
    for i in range(begin, len(labels)):
        label = labels[i]
        if label != last:
            last = label
            number = np.uint32(0)
            if label != 0:
                slot = _slot(slots, label, wrap)
                if slots[slot] == 0:
                    if count == len(met):
                        return i, count
                    met[count] = label
                    count += 1
                    slots[slot], number_in[slot] = label, count
                number = number_in[slot]
        numbers[i] = number
    return len(labels), count


@numba.njit(cache=True)
def _fill(slots: Any, number_in: Any, met: Any) -> None:
    """Put labels into an empty table."""
    for i in range(len(met)):
        slot = _slot(slots, met[i], np.uint64(len(slots) - 1))
        slots[slot], number_in[slot] = met[i], i + 1


@numba.njit(cache=True)
def _slot(slots: Any, label: Any, wrap: Any) -> Any:
    """Where a label lies in a table, or the empty slot where it would."""
    slot = _hash(label) & wrap
    while slots[slot] != 0 and slots[slot] != label:
        slot = (slot + np.uint64(1)) & wrap
    return slot


@numba.njit(cache=True)
def _renumber(numbers: Any, names: Any) -> None:
    for i in range(len(numbers)):
        numbers[i] = names[numbers[i]]
