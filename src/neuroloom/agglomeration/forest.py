"""The merge forest: of all edges the few that decide, at every threshold at once, what belongs together.

    a --0.1-- b --0.4-- c        a minimum spanning forest (Kruskal 1956): for every threshold t, the edges with
     \\                 /         score <= t connect the same fragments before and after dropping the others. Here
      ------ 0.7 ------          a-c goes: whenever it would merge, a-b and b-c have merged already.

Every threshold's segmentation is a cut of this forest, and so is one that treats small segments otherwise than large
ones, since the first edge by which a segment would merge is always in it. NaN never merges, so it is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.fragments.sets import find_root
from neuroloom.graph.files import AGAIN, read_table, write_table


@dataclass(frozen=True)
class Forest:
    """A minimum spanning forest.

    Attributes:
        nodes: `(n,)`, all fragment ids, ascending, also those without any edge.
        size: `(n,)`, their voxels.
        u: `(m,)`, places among the nodes, of the smaller id.
        v: `(m,)`, of the larger id.
        score: `(m,)`, merge scores, ascending; ties ordered by u, then v.
    """

    nodes: NDArray[np.uint64]
    size: NDArray[np.int64]
    u: NDArray[np.int64]
    v: NDArray[np.int64]
    score: NDArray[np.float32]


def spanning_forest(
    nodes: NDArray[np.uint64],
    size: NDArray[np.int64],
    u: NDArray[np.uint64],
    v: NDArray[np.uint64],
    score: NDArray[np.float32],
) -> Forest:
    """Reduce scored edges to a minimum spanning forest, the same whatever the order of nodes and edges.

    All edges are sorted in memory; `stream_forest` gives the same of volumes for which this is too much.

    Args:
        nodes: `(n,)`, all fragment ids, in any order.
        size: `(n,)`, their voxels.
        u: `(m,)`, ids.
        v: `(m,)`, ids.
        score: `(m,)`, NaN = never merges.

    Raises:
        ValueError: An edge's end is not among the nodes.
    """
    nodes, place = np.unique(nodes, return_index=True)
    size = size[place]
    merging = ~np.isnan(score)
    score = score[merging] + np.float32(0)  # -0 becomes 0
    first, second = np.searchsorted(nodes, u[merging]), np.searchsorted(nodes, v[merging])
    for place, ids in ((first, u[merging]), (second, v[merging])):
        if np.any(place == len(nodes)) or not np.array_equal(nodes[place], ids):
            raise ValueError("an edge joins a fragment that is not among the nodes")
    low, high = np.minimum(first, second), np.maximum(first, second)
    order = np.lexsort((high, low, score))
    low, high, score = low[order], high[order], score[order]
    kept = _kruskal(len(nodes), low, high)
    return Forest(nodes, size, low[kept], high[kept], score[kept])


def save_forest(forest: Forest, path: Path) -> None:
    """Write a forest to an Arrow file, atomically: equal forests give equal bytes.

    Args:
        forest: The forest.
        path: The file.

    Raises:
        UserError: The disk is full or the folder cannot be written.
    """
    # a forest has fewer edges than nodes: row k holds node k and edge k, and the last rows have no edge
    rest = len(forest.nodes) - len(forest.u)

    def padded(values: NDArray[Any]) -> pa.Array:
        absent = np.arange(len(forest.nodes)) >= len(values)
        return pa.array(np.concatenate([values, np.zeros(rest, values.dtype)]), mask=absent)

    columns = {name: padded(getattr(forest, name)) for name in ("u", "v", "score")}
    write_table(path, pa.table({"node": pa.array(forest.nodes), "size": pa.array(forest.size), **columns}))


def load_forest(path: Path) -> Forest:
    """Read a forest.

    Args:
        path: The file.

    Raises:
        UserError: It is missing or damaged.
    """
    table = read_table(path)
    if table.column_names != ["node", "size", "u", "v", "score"]:
        raise UserError(f"{path} is no merge forest: its columns are {table.column_names}. {AGAIN}")
    u, v, score = (table[name].drop_null().to_numpy() for name in ("u", "v", "score"))
    return Forest(table["node"].to_numpy(), table["size"].to_numpy(), u, v, score)


@numba.njit(cache=True)
def _kruskal(count: int, u: Any, v: Any) -> Any:
    """Which edges, taken in their order, join two trees."""
    parent = np.arange(count)
    size = np.ones(count, dtype=np.int64)
    kept = np.zeros(len(u), dtype=np.bool_)
    for i in range(len(u)):
        a, b = find_root(parent, u[i]), find_root(parent, v[i])
        if a == b:
            continue
        if size[a] < size[b]:
            a, b = b, a
        parent[b] = a
        size[a] += size[b]
        kept[i] = True
    return kept
