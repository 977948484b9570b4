"""Roots of trees against following them one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloom.fragments.sets import find_root


@settings(deadline=None)
@given(st.data())
def test_the_root_is_that_of_every_step(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 30))
    parent = np.array([data.draw(st.integers(0, i)) for i in range(count)], dtype=np.int64)
    roots = []
    for node in range(count):
        while parent[node] != node:
            node = int(parent[node])
        roots.append(node)
    for node in data.draw(st.permutations(range(count))):
        assert find_root(parent, node) == roots[node]
    assert all(parent[root] == root for root in roots)
