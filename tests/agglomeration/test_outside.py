"""Faces to where no region is, against voxel-by-voxel Python."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloom.agglomeration.outside import outside_faces
from neuroloom.fragments.labels import compact


@settings(deadline=None, max_examples=50)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    borders=st.tuples(*[st.tuples(st.booleans(), st.booleans())] * 3),
    regions=st.integers(0, 9),
    seed=st.integers(0, 999),
)
def test_outside_faces_are_the_definition(
    shape: tuple[int, int, int], borders: tuple[tuple[bool, bool], ...], regions: int, seed: int
) -> None:
    ids = np.random.default_rng(seed).integers(0, regions + 1, shape).astype(np.uint64) * np.uint64(10**12)
    faces: dict[int, int] = defaultdict(int)
    for place in np.ndindex(shape):
        for axis in range(3):
            for end, step in enumerate((-1, 1)):
                beside = tuple(p + step * (i == axis) for i, p in enumerate(place))
                inside = 0 <= beside[axis] < shape[axis]
                faces[int(ids[place])] += int(ids[beside] == 0) if inside else int(borders[axis][end])
    expected = {id: count for id, count in sorted(faces.items()) if id and count}
    outside = outside_faces(*compact(ids), borders)
    assert dict(zip(outside.id.tolist(), outside.faces.tolist(), strict=True)) == expected
    assert outside.id.tolist() == list(expected)
