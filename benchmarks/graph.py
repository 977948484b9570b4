"""The graph in files, in SQLite and in PostgreSQL: time to write edges block by block, and to read all of them back.

PostgreSQL is a server of its own on this machine, with its default durability: what was written survives the loss of
power, as files do. All have to give the same rows.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.postgres import PostgresServer, find_programs
from benchmarks.results import Disagreement, Result
from benchmarks.volumes import Options
from neuroloom.graph import Edges, GraphFiles, GraphStore, Run
from neuroloom.graph.postgres import GraphPostgres
from neuroloom.graph.sqlite import GraphSqlite

BLOCKS, EDGES = 500, 20_000
"""Blocks, and edges of each: about those of 256³ voxels of 8 nm."""
SETTINGS = ("shared_buffers=512MB", "max_wal_size=4GB")
"""Of the server; its defaults are those of a machine with little memory."""

Times = dict[str, tuple[list[float], list[float]]]


def run(options: Options) -> list[Result]:
    """Compare times in and back; files and SQLite are ours, PostgreSQL the peer.

    Raises:
        Disagreement: A store gives other rows.
    """
    programs = find_programs()
    if programs is None:
        sys.exit("This benchmark needs PostgreSQL's programs: install the package `postgresql`.")
    blocks = [some_edges(number, EDGES // 10 if options.quick else EDGES) for number in range(BLOCKS // 10 or 1)]
    count = BLOCKS // 10 if options.quick else BLOCKS
    print(f"{count * len(blocks[0]) / 1e6:g} million edges in {count} blocks")
    times: Times = {name: ([], []) for name in ("files", "SQLite", "PostgreSQL")}
    with tempfile.TemporaryDirectory() as temporary, served(programs) as address:
        for turn in range(1 if options.quick else 3):
            run_ = Run(name=f"turn{turn}", fingerprint=str(turn))
            stores: dict[str, Callable[[], GraphStore]] = {
                "files": lambda: GraphFiles(Path(temporary) / "files"),
                "SQLite": lambda run_=run_: GraphSqlite(f"sqlite:{temporary}/graph.sqlite", run_),  # type: ignore[misc]
                "PostgreSQL": lambda run_=run_: GraphPostgres(address, run_),  # type: ignore[misc]
            }
            expected = None
            for name, open_store in stores.items():
                into, back, found = measure(open_store, blocks, count)
                times[name][0].append(into)
                times[name][1].append(back)
                print(f"{name}: {into:.2f} s in, {back:.2f} s back", file=sys.stderr, flush=True)
                expected = expected or found
                if found != expected:
                    raise Disagreement(f"{name} gives other rows than files")
            shutil.rmtree(Path(temporary) / "files")
            (Path(temporary) / "graph.sqlite").unlink()
    results = []
    for ours in ("files", "SQLite"):
        for direction, what in enumerate(("in", "back")):
            mine, theirs = times[ours][direction], times["PostgreSQL"][direction]
            results.append(Result(f"edges {what}, {ours} against PostgreSQL", tuple(mine), tuple(theirs), "s"))
    return results


def measure(
    open_store: Callable[[], GraphStore], blocks: list[Edges], count: int
) -> tuple[float, float, tuple[int, int]]:
    """Seconds in and back, and what identifies the rows that came back."""
    store = open_store()
    start = time.perf_counter()
    for number in range(count):
        store.write_edges(number, blocks[number % len(blocks)])
    into = time.perf_counter() - start
    store.close()
    store = open_store()
    start = time.perf_counter()
    edges = store.read_edges()
    back = time.perf_counter() - start
    store.close()
    parts = (
        getattr(edges, name).tobytes()
        for name in ("u", "v", "merge_score", "contact_area", "mean_affinity", "position")
    )
    return into, back, (len(edges), hash(tuple(hash(part) for part in parts)))


def some_edges(seed: int, count: int) -> Edges:
    """Edges as a block has them: sorted, of ids that lie near each other."""
    random = np.random.default_rng(seed)
    u = np.sort(random.integers(1, 1 + count // 5, count)).astype(np.uint64) + np.uint64(seed * 256**3)
    score = random.random(count, dtype=np.float32)
    score[random.random(count) < 0.01] = np.nan
    steps = np.arange(count, dtype=np.uint64) % np.uint64(997) + np.uint64(1)  # no pair is there twice
    area, mean = random.integers(1, 500, count), random.random(count, dtype=np.float32)
    place = np.array([seed // 16, seed // 4 % 4, seed % 4]) * 256  # some position in a block of its own
    position = (place + 256 * random.random((count, 3))).astype(np.float32)
    return Edges(u, u + steps, score, area, mean, position)


@contextlib.contextmanager
def served(programs: Path) -> Iterator[str]:
    """The address of a database of a server of its own; the environment holds its credentials meanwhile."""
    server = PostgresServer(programs, SETTINGS)
    before = os.environ.get("NEUROLOOM_POSTGRES")
    os.environ["NEUROLOOM_POSTGRES"] = server.credentials
    try:
        yield server.address("graph")
    finally:
        server.remove()
        if before is None:
            del os.environ["NEUROLOOM_POSTGRES"]
        else:
            os.environ["NEUROLOOM_POSTGRES"] = before
