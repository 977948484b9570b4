"""What agglomeration takes for one region again, in the obvious way: face by face."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.fragments.borders import Border


def slow_regions(numbers: NDArray[np.uint32], count: int, borders: Iterable[Border]) -> NDArray[np.uint32]:
    """The smallest number among the fragments of each one's region."""
    faces, within = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    for axis in range(3):
        for place in np.argwhere(numbers):
            if place[axis] > 0:
                faces[_pair(numbers, place, axis)] += 1
    for border in borders:
        for place in np.argwhere(border.goes_on):
            place[border.axis] = border.place
            within[_pair(numbers, place, border.axis)] += 1
    region = {number: {number} for number in range(count + 1)}
    for (u, v), yes in within.items():
        if 0 < u < v and 2 * yes >= faces[u, v]:
            together = region[u] | region[v]
            for number in together:
                region[number] = together
    return np.array([min(region[number]) for number in range(count + 1)], np.uint32)


def _pair(numbers: NDArray[np.uint32], place: NDArray[Any], axis: int) -> tuple[int, int]:
    before = place.copy()
    before[axis] -= 1
    u, v = sorted((int(numbers[tuple(place)]), int(numbers[tuple(before)])))
    return u, v
