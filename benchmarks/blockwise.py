"""A million blocks that do nothing: what handing them out costs the master, and how usable everything around it stays.

The stage is run by two processes of this machine, in a master of its own whose processor time and largest memory are
told. Then it is asked how far the stage is and what it has cost (`neuroloom status`), from the million lines that
workers have written and without what is kept when a stage is done; and a run of it begins that finds nothing to do.
There is no peer: "peer" is the goal.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.results import Disagreement, Result
from benchmarks.volumes import Options
from neuroloom.blockwise import Block, Stage, run_stage
from neuroloom.blockwise.standing import ACCOUNT, standing

GOALS = {"cpu": 0.3, "memory": 500.0, "status": 30.0, "again": 10.0}


class Nothing(Stage):
    """Has blocks that do nothing."""

    def process(self, block: Block) -> None:
        """Nothing."""


def run(options: Options) -> list[Result]:
    """Measure seconds and memory.

    Raises:
        Disagreement: Blocks were left out, or counted twice.
    """
    side = 20 if options.quick else 100
    with tempfile.TemporaryDirectory() as temporary:
        stage = Nothing(folder=Path(temporary) / "stage", shape=(2 * side,) * 3, block_shape=(2, 2, 2))
        done = alone(stage)
        told = sum(len(file.read_bytes().splitlines()) for file in (stage.folder / "workers").glob("*.jsonl"))
        if told != stage.block_count:
            raise Disagreement(f"{told} blocks were done, of {stage.block_count}")
        (stage.folder / ACCOUNT).unlink()
        looked = time.perf_counter()
        found = standing(stage.folder)
        looked = time.perf_counter() - looked
        if (found.done, found.blocks) != (side**3, side**3):
            raise Disagreement(f"{found.done} of {found.blocks} blocks count as done, of {side**3}")
        log = (stage.folder / "events.jsonl").read_text().splitlines()
        print(f"events: {len(log)} lines, the last: {json.loads(log[-1])['event']}", flush=True)
        stage.done_marker.unlink()  # as if the master had been killed after the last block
        again = alone(stage)
    blocks = side**3
    print(f"{blocks} blocks: {done['seconds']:.0f} s, {1e3 * done['seconds'] / blocks:.3f} ms each", flush=True)
    return [
        Result("processor time of the master per block", (1e3 * done["cpu"] / blocks,), (GOALS["cpu"],), "ms"),
        Result("largest memory of the master", (done["memory"],), (GOALS["memory"],), "MB"),
        Result("status of the stage", (looked,), (GOALS["status"],), "s"),
        Result("a run that finds nothing to do", (again["seconds"],), (GOALS["again"],), "s"),
    ]


def alone(stage: Stage) -> dict[str, float]:
    """Seconds, processor seconds and largest memory (MB) of running a stage, in a master of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_run, stage).result()


def _run(stage: Stage) -> dict[str, float]:
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    run_stage(stage, 2)
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.perf_counter() - began, "cpu": cpu, "memory": used.ru_maxrss / 1024}
