"""Multicut on the graph of regions: the partition that pays least, of all at once rather than the surest first.

    cost of cutting a pair = faces * (logit(mean affinity) - logit(bias))       < 0: it pays to cut

A partition may only cut whole cycles: between parts of one region nothing is cut. Affinities of voxels farther apart
cost likewise; between regions that do not touch they are lifted edges, which count without being a way to connect
(Horňáková, Lange and Andres 2017, "Analysis and optimization of graph decompositions by lifted multicuts").

To find the cheapest partition is too much for any computer; greedy contraction followed by moves of Kernighan and Lin
(Keuper et al. 2015, doi:10.1109/ICCV.2015.204), of `bioimage-cpp`, finds a good one, always the same.

A partition knows no thresholds. Its pairs get the scores with which its parts would join by mean affinity, none above
1 - bias: so a threshold from 1 - bias on gives the partition, and a lower one keeps apart what hardly held together.
Pairs that are cut have the score NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuroloom.agglomeration.scores import scores_of_merges
from neuroloom.errors import UserError
from neuroloom.fragments.contacts import Contacts, FarPairs, pair_keys

_SUREST = 0.001
"""No mean affinity is taken for nearer than this to 0 or 1."""


def multicut_scores(
    touching: Contacts, far: FarPairs | None, bias: float, long_range_bias: float
) -> NDArray[np.float32]:
    """Scores of pairs of regions that touch.

    Args:
        touching: They.
        far: Pairs that affinities of voxels farther apart are of; None if these take no part.
        bias: Mean affinity of a contact below which it pays to cut.
        long_range_bias: Likewise of pairs of voxels farther apart.

    Returns:
        One for each row of `touching`.

    Raises:
        UserError: The solver is not installed.
    """
    cost = costs(touching.total, touching.area, bias)
    far_cost = None if far is None else costs(far.total, far.count, long_range_bias)
    region = partition(touching, cost, far, far_cost)
    inside = np.flatnonzero(region[touching.u] == region[touching.v])
    mean = touching.total[inside] / (255 * touching.area[inside])
    # float32(1 - bias) may be more than 1 - bias, and a threshold of 1 - bias has to reach all
    highest = np.nextafter(np.float32(1 - bias), np.float32(-1))
    score = np.minimum((1 - mean).astype(np.float32), highest)
    order = np.lexsort((touching.v[inside], touching.u[inside], score))
    merges = np.stack([touching.u, touching.v], axis=1)[inside[order]]
    return scores_of_merges(merges, score[order], touching)


def costs(total: NDArray[np.int64], count: NDArray[np.int64], bias: float) -> NDArray[np.float64]:
    """What it costs to cut pairs, by their affinities: `(n,)`.

    Args:
        total: `(n,)`, sums of affinities, 255 = 1.
        count: `(n,)`, of how many.
        bias: Mean affinity that costs nothing.
    """
    mean = np.clip(total / (255 * count), _SUREST, 1 - _SUREST)
    even = min(max(bias, _SUREST), 1 - _SUREST)
    return count * (np.log(mean / (1 - mean)) - np.log(even / (1 - even)))


def partition(
    touching: Contacts, cost: NDArray[np.float64], far: FarPairs | None, far_cost: NDArray[np.float64] | None
) -> NDArray[np.uint64]:
    """A partition of low cost: `(regions + 1,)`, the part that each region belongs to.

    Args:
        touching: Pairs of regions that touch.
        cost: Of cutting each.
        far: Any others, None if they take no part.
        far_cost: Of cutting each of these.

    Raises:
        UserError: The solver is not installed.
    """
    check_solver()
    from bioimage_cpp.graph import UndirectedGraph, lifted_multicut, multicut

    regions = 1 + int(touching.v.max(initial=0))
    if not len(touching.u):
        return np.arange(regions, dtype=np.uint64)
    graph = UndirectedGraph.from_unique_edges(regions, np.stack([touching.u, touching.v], axis=1).astype(np.uint64))
    if far is None or far_cost is None:
        greedy, moves = multicut.GreedyAdditiveMulticut(), multicut.KernighanLinMulticut()
        problem = multicut.MulticutObjective(graph, cost)
        return multicut.ChainedMulticutSolvers([greedy, moves]).optimize(problem)
    # a pair that touches has one cost; what touches nothing is no part of the graph
    keys, far_keys = pair_keys(touching.u, touching.v), pair_keys(far.u, far.v)
    place = np.minimum(np.searchsorted(keys, far_keys), len(keys) - 1)
    both = keys[place] == far_keys
    cost = cost.copy()
    cost[place[both]] += far_cost[both]
    lifted = ~both & (far.v < regions)
    ends = np.stack([far.u, far.v], axis=1)[lifted].astype(np.uint64)
    problem = lifted_multicut.LiftedMulticutObjective(graph, cost, lifted_uvs=ends, lifted_costs=far_cost[lifted])
    greedy, moves = lifted_multicut.LiftedGreedyAdditiveMulticut(), lifted_multicut.LiftedKernighanLinMulticut()
    return lifted_multicut.LiftedChainedSolvers([greedy, moves]).optimize(problem)


def check_solver() -> None:
    """Make sure that the solver is installed.

    Raises:
        UserError: It is not.
    """
    try:
        import bioimage_cpp  # noqa: F401
    except ImportError as error:
        raise UserError(
            "A multicut needs the package bioimage-cpp. Install it with: pip install 'neuroloom[multicut]', or choose "
            "another `agglomeration.method`."
        ) from error
