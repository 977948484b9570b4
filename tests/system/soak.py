"""The chain on a sample, on a SLURM, under faults: one seed after another, and a table of what became of them.

    python -m tests.system.soak                    until there were 200 faults; benchmarks/results/soak.md
    python -m tests.system.soak --first 7          goes on with the seventh seed, and keeps the rows before
    python -m tests.system.soak --faults 500

The first seed that does not end with the bytes of one process ends it, with exit code 1; its project is kept.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from tests.system.faults import KINDS, Fault, Faults
from tests.system.slurm import Slurm, running_slurm

from neuroloom.blockwise.tracking import done_blocks
from neuroloom.files import hash_file, read_json, write_text
from small_model import save_weights
from small_project import make_project, neuroloom

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "benchmarks" / "results" / "soak.md"
PER_STEP = 8
"""Faults in each step, at most."""

STEPS = ("affinities", "fragments", "agglomeration", "segmentation")
SHAPE, BLOCK = (64, 64, 64), (16, 16, 16)
GRID, BLOCKS = (4, 4, 4), 64
_RESULTS = {
    "affinities": "affinities.zarr/**/c/**/*",
    "fragments": "fragments.zarr/**/c/**/*",
    "agglomeration": "forest.arrow",
    "segmentation": "segmentation.zarr/**/c/**/*",
}
_PROFILE = """\
[profiles.lab]
kind = "slurm"
partition = "cpu"
workers_max = 3
memory_gb = 1.5
poll_seconds = 0.5

[profiles.lab.predict]
partition = "gpu"
gpus = 1
workers_max = 2
python = "{python}"

[profiles.lab.agglomerate]
spot_partition = "spot"
python = "{python}"

[profiles.lab.segment]
spot_partition = "spot"
"""


_PAGE = """\
# Soak: the chain under faults

{date}, {machine}; `make soak`. The chain on a sample of {blocks} blocks in each step, by workers of a real SLURM on
this machine: prediction by two on `gpu`, fragments by three on `cpu`, agglomeration and segmentation by three on
`spot`. Every few seconds a machine is taken away (`evict`), or the process of a job (`worker`), Python below it
(`child`), or the command itself (`master`) is killed, and the command is given again.

**{total} faults** in {minutes:.0f} minutes: {kinds}.

{heads}
"""


@dataclass(frozen=True)
class Outcome:
    """What became of a run under faults.

    Attributes:
        seed: Of the faults.
        faults: What was broken.
        minutes: From the first start to the end.
        code: The last command's exit code.
        wrong: Files that are missing, too many, or not those of one process.
        miscounted: Blocks that were not done, or counted twice without a fault that explains it.
        jobs: That were left in the queue.
    """

    seed: int
    faults: tuple[Fault, ...]
    minutes: float
    code: int
    wrong: tuple[str, ...]
    miscounted: tuple[str, ...]
    jobs: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether it went as it should."""
        return self.code == 0 and not (self.wrong or self.miscounted or self.jobs)

    @property
    def row(self) -> str:
        """Of the table."""
        kinds = Counter(fault.kind for fault in self.faults)
        cells = (
            self.seed,
            len(self.faults),
            *(kinds[kind] for kind in KINDS),
            f"{self.minutes:.1f}",
            "yes" if self.code == 0 and not self.wrong else f"no: exit code {self.code}, {len(self.wrong)} files",
            len(self.miscounted),
            len(self.jobs),
        )
        return f"| {' | '.join(map(str, cells))} |"


def make_sample(folder: Path) -> Path:
    """A project of 64 blocks in each step, and the profile `lab` of a cluster."""
    weights = save_weights(folder / "weights.ckpt", "affs")
    block = {"block": list(BLOCK)}
    values = {
        "prediction": {**block, "model": str(weights), "mirrors": 8},
        "fragments": {**block, "context": [8, 8, 8], "min_seed_distance": 4},
        "agglomeration": {**block, "context": [8, 8, 8]},
    }
    make_project(folder, values, SHAPE)
    # as `conda run` and others do: Python is a child of the job's process
    script = folder / "python"
    write_text(script, f'#!/bin/bash\n{sys.executable} "$@"\nexit $?\n')
    script.chmod(0o755)
    write_text(folder / "cluster.toml", _PROFILE.format(python=script))
    return folder


def soak(
    slurm: Slurm, folder: Path, seed: int, per_step: int, expected: dict[str, str], seconds: float = 600.0
) -> Outcome:
    """Run the chain under faults, and compare.

    Args:
        slurm: Where workers run.
        folder: Of the project; must be missing.
        seed: Of the faults.
        per_step: Faults in each step.
        expected: From `hashes` of a project that one process has done.
        seconds: It may take.
    """
    command = [sys.executable, "-m", "neuroloom.cli", "run", "--project", str(make_sample(folder)), "--on", "lab"]
    began = time.monotonic()
    faults = Faults(slurm, command, folder, seed, per_step)
    code = faults.run(seconds)
    minutes = (time.monotonic() - began) / 60
    slurm.settle()
    found = hashes(folder)
    return Outcome(
        seed,
        tuple(faults.done),
        minutes,
        code,
        tuple(sorted(file for file in expected.keys() | found.keys() if expected.get(file) != found.get(file))),
        tuple(miscounted(folder, faults.done)) if code == 0 else (),
        tuple(slurm.jobs()),
    )


def hashes(project: Path) -> dict[str, str]:
    """Hashes of all results of a project, without what says when and by whom."""
    return {
        f"{step}/{file.relative_to(folder)}": hash_file(file)
        for step, pattern in _RESULTS.items()
        for folder in project.glob(f"results/val/{step}-*")
        for file in folder.glob(pattern)
        if file.is_file()
    }


def costs(project: Path, step: str) -> list[dict[str, Any]]:
    """What workers wrote of the blocks of a step that they had done."""
    files = sorted(project.glob(f"results/val/{step}-*/workers/*.jsonl"))
    found = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [cost for cost in found if cost["failed"] is None]


def miscounted(project: Path, faults: list[Fault]) -> list[str]:
    """Blocks that do not count once.

    A block may be done twice: whoever did it was killed, or lost the master, before it could say so. It was then hit
    after it had begun this block, and before it began another one.
    """
    wrong = []
    for step in STEPS:
        (folder,) = project.glob(f"results/val/{step}-*")
        done = int(done_blocks(folder / "blocks", GRID).sum())
        if not done == read_json(folder / "done.json")["blocks"] == BLOCKS:
            wrong.append(f"{step}: not all blocks count as done")
        paid = defaultdict(list)
        for cost in costs(project, step):
            paid[cost["block"]].append(cost)
        wrong += [f"{step}: nobody did block {block}" for block in range(BLOCKS) if block not in paid]
        for block, times in paid.items():
            lost = [cost for cost in times if _lost(cost, [c for t in paid.values() for c in t], faults)]
            if len(times) - len(lost) > 1:
                wrong.append(f"{step}: block {block} was done by {', '.join(cost['worker'] for cost in times)}")
    return wrong


def _lost(cost: dict[str, Any], all_costs: list[dict[str, Any]], faults: list[Fault]) -> bool:
    """Whether a fault came between a worker's block and its word to the master."""
    job, began = cost["worker"], cost["began"]
    later = min((c["began"] for c in all_costs if c["worker"] == job and c["began"] > began), default=math.inf)
    return any(job in fault.jobs and began < fault.time < later for fault in faults)


def main() -> None:
    """Go through seeds until there were enough faults."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parser = argparse.ArgumentParser(prog="tests.system.soak", description=__doc__)
    parser.add_argument("--faults", type=int, default=200, help="how many there shall be")
    parser.add_argument("--first", type=int, default=1, help="the first seed; rows of those before are kept")
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "src", ROOT / "tests")))
    rows = [row for row in _rows() if int(row.split("|")[1]) < arguments.first]
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    here = make_sample(folder / "here")
    ran = neuroloom("run", "--project", here)
    if ran.returncode != 0:
        sys.exit(f"One process failed: {ran.stderr}")
    seed = arguments.first
    with running_slurm() as slurm:
        os.environ.update({name: slurm.environment[name] for name in ("SLURM_CONF", "PATH")})
        while sum(int(row.split("|")[2]) for row in rows) < arguments.faults:
            project = folder / f"seed-{seed}"
            outcome = soak(slurm, project, seed, PER_STEP, hashes(here), 1800.0)
            print(outcome.row, flush=True)
            rows.append(outcome.row)
            _write(rows)
            if not outcome.good:
                shutil.copy(slurm.folder / "slurmctld.log", project)
                sys.exit(f"{outcome}\nThe project is kept: {project}")
            shutil.rmtree(project)
            seed += 1
    shutil.rmtree(folder)


def _rows() -> list[str]:
    """Those of the table as it is."""
    lines = TABLE.read_text().splitlines() if TABLE.exists() else []
    return [line for line in lines if line.startswith("| ") and line[2].isdigit()]


def _write(rows: list[str]) -> None:
    columns = [[int(cell) for cell in row.split("|")[2 : 3 + len(KINDS)]] for row in rows]
    total, *kinds = (sum(column) for column in zip(*columns, strict=True))
    heads = ("seed", "faults", *KINDS, "minutes", "same bytes", "miscounted blocks", "jobs left")
    page = _PAGE.format(
        date=time.strftime("%Y-%m-%d"),
        machine=f"{psutil.cpu_count()} cores, {platform.system()} {platform.machine()}",
        blocks=BLOCKS,
        total=total,
        minutes=sum(float(row.split("|")[3 + len(KINDS)]) for row in rows),
        kinds=", ".join(f"{number} {kind}" for number, kind in zip(kinds, KINDS, strict=True)),
        heads=f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}",
    )
    write_text(TABLE, page + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
