"""Mutex watershed on the graph of regions: what attracts joins, what repels keeps apart for good, the surest first.

    weight of a pair = mean affinity - bias        > 0 attracts, < 0 repels

     a --(+0.4)-- b           +0.4 joins a and b; -0.3 keeps that region and c apart from now on; +0.2 comes too late,
      \\           |           since b-c would join them. Without c's repulsion, hierarchical agglomeration would join
     -0.3       +0.2          all three sooner or later.
        \\         |
         `------- c

Wolf et al., "The mutex watershed and its objective: efficient, parameter-free graph partitioning", 2021
(doi:10.1109/TPAMI.2020.2980827), as `mwatershed` computes it. Faces of a contact are one edge, affinities of voxels
farther apart another one, with a bias of its own, also between regions that do not touch.

Within a region that comes out, every edge that attracts was taken, or had nothing left to join: so taking them once
more, in their order, tells when any two of its parts became one. The score of a pair is 1 - bias - the weight of that
edge, 1 - its mean affinity if it is of faces: a threshold below 1 - bias stops there, and every higher one
gives the regions as they come out. Pairs that are kept apart have the score NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuroloom.agglomeration.scores import scores_of_merges
from neuroloom.fragments.contacts import Contacts, FarPairs


def mutex_scores(touching: Contacts, far: FarPairs | None, bias: float, long_range_bias: float) -> NDArray[np.float32]:
    """Scores of pairs of regions that touch.

    Args:
        touching: They.
        far: Pairs that affinities of voxels farther apart are of; None if these take no part.
        bias: Mean affinity of a contact above which it attracts.
        long_range_bias: Likewise of pairs of voxels farther apart.

    Returns:
        One for each row of `touching`.
    """
    u, v, weight = weighted_edges(touching, far, bias, long_range_bias)
    joins = (weight > 0) & same_region(u, v, weight)
    scores = np.clip(1 - bias - weight[joins], 0, 1).astype(np.float32)
    return scores_of_merges(np.stack([u, v], axis=1)[joins], scores, touching)


def weighted_edges(
    touching: Contacts, far: FarPairs | None, bias: float, long_range_bias: float
) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.float64]]:
    """Ends and weights of all edges, in the order in which they are taken; see `mutex_scores`.

    The same weight: in the order of u, then v, the edge of faces first. Weights of 0 say nothing and are left out.
    """
    parts = [(touching.u, touching.v, touching.total / (255 * touching.area) - bias)]
    if far is not None:
        parts.append((far.u, far.v, far.total / (255 * far.count) - long_range_bias))
    u, v, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    kind = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    order = np.lexsort((kind, v, u, -np.abs(weight)))
    order = order[weight[order] != 0]
    return u[order], v[order], weight[order]


def same_region(u: NDArray[np.uint32], v: NDArray[np.uint32], weight: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the ends of each edge come out in one region.

    Args:
        u: `(n,)`, ends, in the order in which edges are taken.
        v: `(n,)`, the others.
        weight: `(n,)`, above 0 attracts, below 0 repels.
    """
    import mwatershed  # only those who want it wait for it

    edges = list(zip((weight > 0).tolist(), u.tolist(), v.tolist(), strict=True))
    region = np.arange(1 + max(int(u.max(initial=0)), int(v.max(initial=0))))
    if edges:
        named = np.array(mwatershed.cluster(edges), dtype=np.int64)
        region[named[:, 0]] = len(region) + named[:, 1]
    return region[u] == region[v]
