"""A training within a SLURM job: by its description, since the project file may be edited while it waits or runs.

    python -m neuroloom.chain.training_job SLURM_FOLDER/training.json

On several nodes `srun` starts it once for each GPU, or on each node, and all take part. The first tells beside the
description how far it is, and any of them what a user must put right.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from neuroloom.chain.artifacts import Chain
from neuroloom.chain.training_task import TrainingTask
from neuroloom.cluster.ends import STOPPED
from neuroloom.errors import Interrupted, UserError
from neuroloom.files import tell
from neuroloom.project import Project

TELL_SECONDS = 1.0
"""Between two times that is told how far it is."""


class Teller:
    """Tells how far a job is, in a file that carries its number.

    Args:
        folder: Where the description lies.
        environment: Of the process.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.file = folder / f"{environment.get('SLURM_JOB_ID', os.getpid())}.json"
        self.restart = int(environment.get("SLURM_RESTART_COUNT", "0"))
        self.next = 0.0

    def __call__(self, done: float, total: int, words: str) -> None:
        """Tell steps done, steps in all, and a few words; not at every step."""
        if time.monotonic() >= self.next:
            self.next = time.monotonic() + TELL_SECONDS
            tell(self.file, {"restart": self.restart, "done": done, "total": total, "words": words})

    def mistake(self, message: str) -> None:
        """Tell what the user must put right."""
        tell(self.file, {"restart": self.restart, "mistake": message})


def torch_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What torch wants to know of the processes that `srun` has started; nothing where this is the only one.

    Args:
        environment: Of this process.
    """
    if int(environment.get("SLURM_NTASKS", "1")) == 1:
        return {}
    names = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID", "WORLD_SIZE": "SLURM_NTASKS"}
    return {name: environment[slurm] for name, slurm in names.items()}


def chain_of(task: TrainingTask) -> Chain:
    """The chain in which a training is done.

    Raises:
        UserError: It would be another training by now.
    """
    chain = Chain(Project(task.project, task.parameters))
    job = chain.job(task.setup)
    if job is None or job.fingerprint() != task.fingerprint:
        raise UserError(
            f"The training of {task.setup} is not what it was when its job was submitted: a volume, a checkpoint that "
            "it needs, or neuroloom itself has changed, or is another one on the node. Run the same command again."
        )
    return chain


def main() -> None:
    """Train; exit code 2 where the user must put something right, `STOPPED` where it was asked to stop."""
    for number in (signal.SIGTERM, signal.SIGUSR1):  # before the first step, when there is nothing to save
        signal.signal(number, signal.default_int_handler)
    description = Path(sys.argv[1])
    os.environ.update(torch_environment(os.environ))
    teller = Teller(description.parent, os.environ)
    try:
        task = TrainingTask.model_validate_json(description.read_text())
        chain_of(task).train(task.setup, teller)
    except UserError as error:
        teller.mistake(str(error))
        print(error, file=sys.stderr, flush=True)
        raise SystemExit(2) from None
    except (Interrupted, KeyboardInterrupt) as error:
        print(error, file=sys.stderr, flush=True)
        # srun stops all processes when one fails, and the first may still be saving
        raise SystemExit(STOPPED if os.environ.get("RANK", "0") == "0" else 0) from None


if __name__ == "__main__":
    main()
