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


def unique(labels: NDArray[Any]) -> NDArray[np.uint64]:
    """The distinct labels without 0, ascending.

    Args:
        labels: Any shape, unsigned integers.
    """
    flat = np.ascontiguousarray(labels, dtype=np.uint64).reshape(-1)
    return np.sort(_distinct(flat))


def compact(labels: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """Number labels 1 … n in ascending order; 0 stays 0.

    Args:
        labels: Any shape.

    Returns:
        The distinct labels without 0, ascending, `(n,)`; and the numbers, of the shape of `labels`: number k stands
        for the label at k - 1.
    """
    ids = unique(labels)
    flat = np.ascontiguousarray(labels, dtype=np.uint64).reshape(-1)
    numbers = np.empty(flat.shape, dtype=np.uint32)
    slots, places = _table(ids)
    _look_up(flat, slots, places, np.arange(1, len(ids) + 1, dtype=np.uint32), numbers)
    return ids, numbers.reshape(labels.shape)


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


def shifted(numbers: NDArray[np.uint32], by: np.uint64) -> NDArray[np.uint64]:
    """Add the same to all labels; 0 stays 0.

    Args:
        numbers: Any shape.
        by: What is added.
    """
    flat = np.ascontiguousarray(numbers).reshape(-1)
    result = np.empty(flat.shape, dtype=np.uint64)
    _shift(flat, by, result)
    return result.reshape(numbers.shape)


@numba.njit(cache=True)
def _mark(numbers: Any, found: Any) -> None:
    for z in range(numbers.shape[0]):
        for y in range(numbers.shape[1]):
            for x in range(numbers.shape[2]):
                found[numbers[z, y, x]] = True


@numba.njit(cache=True)
def _shift(numbers: Any, by: Any, result: Any) -> None:
    for i in range(len(numbers)):
        result[i] = np.uint64(numbers[i]) + by if numbers[i] else np.uint64(0)


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
def _table(keys: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Slots (0 = empty) and the place among `keys` of what lies in each."""
    capacity = 16
    while capacity < 2 * len(keys):
        capacity *= 2
    slots = np.zeros(capacity, dtype=np.uint64)
    places = np.zeros(capacity, dtype=np.int64)
    wrap = np.uint64(capacity - 1)
    for i in range(len(keys)):
        slot = _hash(keys[i]) & wrap
        while slots[slot] != 0 and slots[slot] != keys[i]:
            slot = (slot + np.uint64(1)) & wrap
        slots[slot] = keys[i]
        places[slot] = i
    return slots, places


@numba.njit(cache=True)
def _look_up(labels: Any, slots: Any, places: Any, values: Any, result: Any) -> Any:
    """Fill `result`; return the first label that is not in the table, or 0."""
    wrap = np.uint64(len(slots) - 1)
    last = np.uint64(0)
    answer = values.dtype.type(0)
    for i in range(len(labels)):
        label = labels[i]
        if label != last:
            last = label
            if label == 0:
                answer = values.dtype.type(0)
            else:
                slot = _hash(label) & wrap
                while slots[slot] != label:
                    if slots[slot] == 0:
                        return label
                    slot = (slot + np.uint64(1)) & wrap
                answer = values[places[slot]]
        result[i] = answer
    return np.uint64(0)


@numba.njit(cache=True)
def _distinct(labels: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The distinct labels without 0, in no particular order."""
    slots = np.zeros(1024, dtype=np.uint64)
    wrap = np.uint64(1023)
    count = 0
    last = np.uint64(0)
    for i in range(len(labels)):
        label = labels[i]
        if label == last or label == 0:
            continue
        last = label
        slot = _hash(label) & wrap
        while slots[slot] != 0 and slots[slot] != label:
            slot = (slot + np.uint64(1)) & wrap
        if slots[slot] == label:
            continue
        slots[slot] = label
        count += 1
        if 2 * count > len(slots):
            old = slots
            slots = np.zeros(2 * len(old), dtype=np.uint64)
            wrap = np.uint64(len(slots) - 1)
            for key in old:
                if key != 0:
                    slot = _hash(key) & wrap
                    while slots[slot] != 0:
                        slot = (slot + np.uint64(1)) & wrap
                    slots[slot] = key
    return slots[slots != 0]
