"""A program that runs one stage on a SLURM, for tests that kill it; its exit codes are those of the command line.

python -m tests.system.master STAGE_JSON JOB_JSON
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.system.troubled_stage import supply

from neuroloom.blockwise import Stage, run_stage
from neuroloom.blockwise.stage import load_stage
from neuroloom.errors import UserError


def start_master(stage: Stage, **job: object) -> subprocess.Popen[str]:
    """Run a stage in a process of its own.

    Args:
        stage: The stage.
        job: What a worker is, where it is none of `supply`.
    """
    stage.folder.mkdir(parents=True, exist_ok=True)
    stage.describe()
    return subprocess.Popen(
        [sys.executable, "-m", "tests.system.master", str(stage.description), json.dumps(job)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def main() -> None:
    """Run the stage that the first argument describes, by workers as the second says."""
    try:
        run_stage(load_stage(Path(sys.argv[1])), supply=supply(**json.loads(sys.argv[2])))
    except UserError as error:
        print(error)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
