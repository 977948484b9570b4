"""Contacts between regions against voxel-by-voxel Python."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloom.agglomeration.region_graph import outside_faces, region_graph


@settings(deadline=None, max_examples=50)
@given(shape=st.tuples(*[st.integers(1, 6)] * 3), regions=st.integers(1, 40), seed=st.integers(0, 999))
def test_is_the_definition(shape: tuple[int, int, int], regions: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    numbers = random.integers(0, regions + 1, shape).astype(np.uint32)
    affinities = random.integers(0, 256, (3, *shape)).astype(np.uint8)
    contacts: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place in np.ndindex(shape):
        for axis in range(3):
            before = tuple(p - (i == axis) for i, p in enumerate(place))
            if before[axis] >= 0:
                u, v = sorted((int(numbers[place]), int(numbers[before])))
                if u not in (0, v):
                    contacts[u, v].append(int(affinities[axis][place]))
    graph = region_graph(affinities, numbers)
    assert list(zip(graph.u.tolist(), graph.v.tolist(), strict=True)) == sorted(contacts)
    assert graph.contact_area.tolist() == [len(contacts[pair]) for pair in sorted(contacts)]
    np.testing.assert_allclose(
        graph.mean_affinity, [np.mean(contacts[pair]) / 255 for pair in sorted(contacts)], rtol=1e-6
    )


def test_more_pairs_than_the_table_starts_with() -> None:
    numbers = np.arange(1, 18 * 18 * 18 + 1, dtype=np.uint32).reshape(18, 18, 18)
    graph = region_graph(np.full((3, 18, 18, 18), 51, np.uint8), numbers)
    assert len(graph.u) == 3 * 17 * 18 * 18
    assert set(graph.contact_area) == {1}
    np.testing.assert_allclose(graph.mean_affinity, 0.2)


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
    outside = outside_faces(ids, borders)
    assert dict(zip(outside.id.tolist(), outside.faces.tolist(), strict=True)) == expected
    assert outside.id.tolist() == list(expected)
