"""Disjoint sets as trees, for kernels that unite: every member knows one above it, the root knows itself."""

from __future__ import annotations

from typing import Any

import numba


@numba.njit(cache=True)
def find_root(parent: Any, node: int) -> int:
    """The root of a node; halves the path on the way."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node
