"""Workers of this machine: forked where they can be, with what they need loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from neuroloom.agglomeration.stage import Agglomerate
from neuroloom.blockwise import Block, Stage, run_stage
from neuroloom.blockwise.local import local_worker
from neuroloom.forking import StandIn
from neuroloom.fragments.stage import Fragments
from neuroloom.prediction.stage import Predict
from neuroloom.segmentation.stage import Segment

SCRIPT = """
import sys
from pathlib import Path
from neuroloom.blockwise import Stage, run_stage

class Own(Stage):
    def process(self, block):
        (self.folder / f"block-{block.number}").touch()

if __name__ == "__main__":
    run_stage(Own(folder=Path(sys.argv[1]), shape=(4, 4, 4), block_shape=(2, 4, 4)), 2)
"""


class Parents(Stage):
    """Each block says who its worker's parent is."""

    def process(self, block: Block) -> None:
        (self.folder / f"parent-{block.number}").write_text(str(os.getppid()))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_workers_of_all_stages_are_forked_from_one_process(tmp_path: Path) -> None:
    parents = set()
    for name in ("one", "other"):
        stage = Parents(folder=tmp_path / name, shape=(4, 4, 4), block_shape=(1, 4, 4))
        run_stage(stage, 2)
        parents |= {file.read_text() for file in stage.folder.glob("parent-*")}
    assert len(parents) == 1


def test_a_stage_of_a_script_runs(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script, tmp_path / "out"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (tmp_path / "out").glob("block-*")} == {"block-0", "block-1"}


@pytest.mark.parametrize("kind", [Predict, Fragments, Agglomerate, Segment])
def test_what_first_blocks_would_load_is_loaded_before(kind: type[Stage], tmp_path: Path) -> None:
    worker = local_worker(kind.model_construct(folder=tmp_path), "run")
    assert isinstance(worker, StandIn)
    code = f"import importlib, sys\nfor name in {worker.loads}: importlib.import_module(name)\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    # numba's half that it loads before its first kernel; PyTorch where networks run, and only there
    assert {"numba.np.arraymath", kind.__module__, "neuroloom.blockwise.local"} <= set(loaded)
    assert ("torch" in loaded) == (kind is Predict)
