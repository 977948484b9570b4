"""A stage whose blocks make trouble on request, and workers of a SLURM for tests."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from neuroloom.blockwise import Block, Stage
from neuroloom.blockwise.work import Supply
from neuroloom.cluster import slurm_supply
from neuroloom.files import write_text
from neuroloom.project import Job


class Troubled(Stage):
    """Writes one file for each block, after a while.

    Attributes:
        trouble: What goes wrong, by the number of the block: "raise", "raise on NODE"; once only: "hang", "kill",
            "eat N" (megabytes; a worker that has enough goes on).
        seconds: For each block.
    """

    not_fingerprinted = frozenset({"folder", "trouble", "seconds"})

    trouble: dict[int, str] = {}  # noqa: RUF012
    seconds: float = 0.0

    def process(self, block: Block) -> None:
        kind, _, rest = self.trouble.get(block.number, "").partition(" ")
        if kind == "raise" and (not rest or os.environ.get("SLURMD_NODENAME") == rest.removeprefix("on ")):
            raise ValueError(f"boo {block.number}")
        if kind == "eat":
            eaten = np.ones((int(rest), 2**20), np.uint8)
            time.sleep(4.0)
            del eaten
        once = self.folder / f"{kind}-{block.number}"
        if kind in ("hang", "kill") and not once.exists():
            once.touch()
            if kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        time.sleep(self.seconds)
        write_text(self.folder / "out" / f"{block.number}.txt", f"{block.write_roi}")

    def outputs(self) -> dict[str, str]:
        """What the files of all blocks hold."""
        return {file.name: file.read_text() for file in sorted((self.folder / "out").glob("*.txt"))}


def supply(**job: object) -> Supply:
    """Workers for tests: small, and looked at often."""
    return slurm_supply(Job.model_validate({"memory_gb": 0.8, "poll_seconds": 0.5, "workers_max": 3, **job}), "test")
