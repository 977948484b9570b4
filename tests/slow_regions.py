"""What agglomeration takes for one region again, in the obvious way: face by face."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from neuroloom.fragments.borders import Border


def slow_regions(numbers: NDArray[np.uint32], count: int, borders: Iterable[Border]) -> NDArray[np.uint32]:
    """The smallest number among the fragments of each one's region."""
    region = {number: {number} for number in range(count + 1)}
    for border in borders:
        goes_on = Counter[tuple[int, int]]()
        section_before, section_here = Counter[int](), Counter[int]()
        for face in np.ndindex(border.goes_on.shape):
            place = list(face)
            place[border.axis] = border.place
            here = int(numbers[tuple(place)])
            place[border.axis] -= 1
            before = int(numbers[tuple(place)])
            section_before[before] += 1
            section_here[here] += 1
            goes_on[before, here] += int(border.goes_on[face])
        for (a, b), faces in goes_on.items():
            if a and b and faces and 2 * faces >= min(section_before[a], section_here[b]):
                together = region[a] | region[b]
                for number in together:
                    region[number] = together
    return np.array([min(region[number]) for number in range(count + 1)], np.uint32)
