"""The merge forest of 100 million edges over 20 million fragments, and a table cut from it, against scipy.

The graph is made: fragments are a lattice, and each touches five of those after it. Blocks of 17³ fragments keep theirs
in files, as agglomeration does, and scores have 256 values, as those of histograms do.

Both sides read these files, which lie where TMPDIR says; in memory (TMPDIR=/dev/shm), disks do not count. Ours takes
edges block by block; scipy takes all at once, as one sparse matrix. Where scores are equal, forests may differ; their
scores may not. Each side has a process of its own, whose largest memory is told.
"""

from __future__ import annotations

import itertools
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from benchmarks.results import Disagreement, Result
from benchmarks.volumes import Options
from neuroloom.agglomeration import load_forest, save_forest, stream_forest
from neuroloom.graph import Edges, GraphFiles, Nodes
from neuroloom.segmentation import lookup_table

AFTER = ((0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (1, 1, 0))
"""Which of its neighbours in the lattice a fragment touches, z y x."""

VOXELS = 256**3
"""Of a block: ids of two blocks are so far apart."""

THRESHOLD = 0.2


def run(options: Options) -> list[Result]:
    """Compare seconds and memory.

    Raises:
        Disagreement: Scores of the forests, or segments, differ.
    """
    block, grid = (5, 4) if options.quick else (17, 16)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        fragments, edges = make_graph(folder, block, grid)
        print(f"{fragments / 1e6:.3g} million fragments in {grid**3} blocks, {edges / 1e6:.4g} million edges")
        mine, theirs = alone(ours, folder), alone(peer, folder)
        if not np.array_equal(np.load(folder / "ours.npy"), np.load(folder / "peer.npy")):
            raise Disagreement("the scores of the two forests")
        cut, cut_peer = alone(table, folder), alone(table_peer, folder)
        compare(np.load(folder / "table.npy"), np.load(folder / "table_peer.npy"))
    return [
        Result("forest", (mine["seconds"],), (theirs["seconds"],), "s"),
        Result("forest, memory of the process", (mine["memory"],), (theirs["memory"],), "GB"),
        Result("table of one threshold", (cut["seconds"],), (cut_peer["seconds"],), "s"),
        Result("table, memory of the process", (cut["memory"],), (cut_peer["memory"],), "GB"),
    ]


def make_graph(folder: Path, block: int, grid: int) -> tuple[int, int]:
    """Write nodes and edges of all blocks.

    Args:
        folder: Where to.
        block: Fragments along each side of a block.
        grid: Blocks along each side.

    Returns:
        How many fragments and edges there are.
    """
    graph, side, edges = GraphFiles(folder / "graph"), block * grid, 0
    for number, index in enumerate(itertools.product(range(grid), repeat=3)):
        random = np.random.default_rng(number)
        place = np.stack(np.meshgrid(*(np.arange(i * block, (i + 1) * block) for i in index), indexing="ij"), -1)
        place = place.reshape(-1, 3)
        count = len(place)
        ids = lattice_ids(place, block, grid)
        graph.write_nodes(
            number,
            Nodes(ids, random.integers(100, 10_000, count), place + 0.5, np.ones(count, np.float32), place, place),
        )
        others = [place + offset for offset in AFTER]
        inside = [(other < side).all(1) for other in others]
        u = np.concatenate([ids[there] for there in inside])
        v = np.concatenate([lattice_ids(o[there], block, grid) for o, there in zip(others, inside, strict=True)])
        score = random.integers(0, 256, len(u)).astype(np.float32) / np.float32(255)
        between = np.concatenate([(place + o + 1)[there] / 2 for o, there in zip(AFTER, inside, strict=True)])
        area, between = np.ones(len(u), np.int64), between.astype(np.float32)
        graph.write_edges(number, Edges(np.minimum(u, v), np.maximum(u, v), score, area, 1 - score, between))
        edges += len(u)
    return side**3, edges


def lattice_ids(place: NDArray[np.int64], block: int, grid: int) -> NDArray[np.uint64]:
    """Ids (n) of fragments at places (n, 3) of the lattice, as blocks number them."""
    (bz, by, bx), (z, y, x) = (place // block).T, (place % block).T
    return (((bz * grid + by) * grid + bx) * VOXELS + (z * block + y) * block + x + 1).astype(np.uint64)


def ours(folder: Path) -> None:
    graph = GraphFiles(folder / "graph")
    forest = stream_forest(graph.sizes(), graph.scores())
    save_forest(forest, folder / "forest.arrow")
    np.save(folder / "ours.npy", forest.score)


def peer(folder: Path) -> None:
    graph = GraphFiles(folder / "graph")
    ids = np.concatenate([nodes.id for nodes in graph.sizes()])
    parts = [(np.searchsorted(ids, e.u).astype(np.int32), np.searchsorted(ids, e.v).astype(np.int32), e.merge_score)
             for e in graph.scores()]  # fmt: skip
    u, v, score = (np.concatenate(column) for column in zip(*parts, strict=True))
    parts.clear()
    # to scipy, 0 is no edge
    matrix: csr_matrix = coo_matrix((score.astype(np.float64) + 1, (u, v)), (len(ids), len(ids))).tocsr()
    del u, v, score
    tree = minimum_spanning_tree(matrix, overwrite=True)
    np.save(folder / "peer.npy", np.sort((tree.data - 1).astype(np.float32)))


def table(folder: Path) -> None:
    np.save(folder / "table.npy", lookup_table(load_forest(folder / "forest.arrow"), THRESHOLD))


def table_peer(folder: Path) -> None:
    forest = load_forest(folder / "forest.arrow")
    low, count = forest.score <= np.float32(THRESHOLD), len(forest.nodes)
    matrix = coo_matrix((np.ones(int(low.sum()), np.bool_), (forest.u[low], forest.v[low])), (count, count))
    np.save(folder / "table_peer.npy", connected_components(matrix, directed=False)[1])


def compare(ours: NDArray[np.uint64], peer: NDArray[np.int32]) -> None:
    """Whether both sides join the same fragments.

    Raises:
        Disagreement: They do not.
    """
    place = np.searchsorted(ours[0], ours[1])
    counts = len(np.unique(place)), int(peer.max()) + 1
    if counts[0] != counts[1] or not np.array_equal(peer[place], peer):
        raise Disagreement(f"{counts[0]} segments, the peer's {counts[1]}, or other fragments in them")


def alone(work: Callable[[Path], None], folder: Path) -> dict[str, float]:
    """Seconds and largest memory (GB) of some work in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        process.submit(warm).result()
        measured = process.submit(_measured, work, folder).result()
    told = ", ".join(f"{name} {value:.3g}" for name, value in measured.items())
    print(f"{work.__name__}: {told}", file=sys.stderr, flush=True)
    return measured


def warm() -> None:
    """Compile."""
    with tempfile.TemporaryDirectory() as temporary:
        make_graph(Path(temporary), 2, 2)
        ours(Path(temporary))
        table(Path(temporary))


def _measured(work: Callable[[Path], Any], folder: Path) -> dict[str, float]:
    start, worked = time.perf_counter(), time.process_time()
    work(folder)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return {"seconds": seconds, "of processors": worked, "memory": int(status["VmHWM"].split()[0]) * 1024 / 1e9}
