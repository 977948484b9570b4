"""Made rows for tests of graph stores."""

from __future__ import annotations

import numpy as np

from neuroloom.graph import Edges, Nodes, Outside


def some_nodes(count: int, seed: int) -> Nodes:
    random = np.random.default_rng(seed)
    begin = random.integers(0, 100, (count, 3))
    end = begin + random.integers(1, 10, (count, 3))
    return Nodes(
        id=random.permutation(count).astype(np.uint64) + np.uint64(1000 * seed + 1),
        centre=(begin + end) / 2,
        size=random.integers(1, 500, count),
        mean_affinity=random.random(count, dtype=np.float32),
        begin=begin,
        end=end,
    )


def some_edges(count: int, seed: int) -> Edges:
    random = np.random.default_rng(seed)
    u = random.integers(1, 50, count).astype(np.uint64)
    score = random.random(count, dtype=np.float32)
    score[::3] = np.nan
    return Edges(
        u=u,
        v=u + random.permutation(count).astype(np.uint64) + np.uint64(1),
        merge_score=score,
        contact_area=random.integers(1, 99, count),
        mean_affinity=random.random(count, dtype=np.float32),
        position=random.uniform(0, 10_000, (count, 3)).astype(np.float32),
    )


def some_outside(count: int, seed: int) -> Outside:
    random = np.random.default_rng(seed)
    return Outside(random.permutation(count).astype(np.uint64) + np.uint64(1), random.integers(1, 99, count))


def equal(a: Nodes | Edges | Outside, b: Nodes | Edges | Outside) -> bool:
    return all(
        getattr(a, name).dtype == getattr(b, name).dtype
        and np.array_equal(getattr(a, name), getattr(b, name), equal_nan=name == "merge_score")
        for name in a.__dataclass_fields__
    )
