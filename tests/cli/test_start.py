"""What a command loads before it does anything, and what it never needs."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from neuroloom.agglomeration.stage import Agglomerate
from neuroloom.blockwise import Stage
from neuroloom.fragments.stage import Fragments
from neuroloom.segmentation.stage import Segment
from small_project import make_project

HEAVY = (
    "torch",
    "scipy.fft",
    "scipy.ndimage",
    "scipy.sparse",
    "pyarrow.compute",
    "matplotlib",
    "jinja2",
    "neuroglancer",
    "tornado",
    "h5py",
    "tensorstore",
    "tifffile",
)
"""Packages that take longer to load than most commands take."""

NAMED = f"import sys; print(*(name for name in {HEAVY} if name in sys.modules))"


def loaded(code: str, *arguments: str | Path) -> list[str]:
    """Which of the heavy packages a fresh process has loaded after some code; it may print other lines."""
    command = [sys.executable, "-c", f"{code}\n{NAMED}", *(str(argument) for argument in arguments)]
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()[-1].split()


def command(*arguments: str | Path) -> list[str]:
    """Likewise, after a command."""
    code = (
        "import contextlib, sys\n"
        "from neuroloom.cli.app import app\n"
        "with contextlib.suppress(SystemExit):\n"
        "    app(sys.argv[1:])"
    )
    return loaded(code, *arguments)


def test_the_command_line_starts_light() -> None:
    assert loaded("import neuroloom.cli.app") == []


@pytest.mark.parametrize("name", ["view", "segment"])
def test_help_loads_nothing_more(name: str) -> None:
    assert command(name, "--help") == []


def test_what_a_project_is_made_of_is_known_without_pytorch(tmp_path: Path) -> None:
    """Only how long steps that are missing will take is measured with it."""
    code = (
        "import pathlib, sys\n"
        "from neuroloom.chain import Chain, open_project\n"
        "chain = Chain(open_project(pathlib.Path(sys.argv[1])))\n"
        "assert chain.training_folder('lsd') and chain.networks and chain.raw(chain.volumes[0])"
    )
    assert loaded(code, make_project(tmp_path / "p")) == []


@pytest.mark.parametrize("stage", [Fragments, Agglomerate, Segment])
def test_workers_that_run_no_network_load_no_pytorch(stage: type[Stage], tmp_path: Path) -> None:
    task = tmp_path / "task"
    task.write_bytes(pickle.dumps(stage.process))
    code = (
        "import pathlib, pickle, sys\n"
        "import daisy._subprocess_worker, neuroloom.blockwise.worker\n"
        "pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())"
    )
    assert loaded(code, task) == []
