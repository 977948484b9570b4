"""The gunpowder node, in an environment with gunpowder, against the node it stands in for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import neuroloom
from benchmarks.peers import ask, environment

REQUIREMENTS = ("gunpowder==1.4.4", "lsds==0.1.3", "numba>=0.61")


@pytest.mark.system
def test_gives_the_targets_of_the_original_node(tmp_path: Path) -> None:
    try:
        python = environment("gunpowder-node", REQUIREMENTS)
    except subprocess.CalledProcessError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"gunpowder could not be installed: {error}")
    source = str(Path(neuroloom.__file__).parents[1])
    answer = ask(python, Path(__file__).parent / "gunpowder_script.py", tmp_path, source=source)
    assert len(answer["largest"]) == 8
    for name, difference in answer["largest"].items():
        assert difference < 1e-3, name
    shape, least, most = answer["sphere"]
    assert shape == [10, 8, 8, 8]
    assert 0 <= least < most <= 1
    assert "sigma_nm must be one positive number" in answer["sigma"]
    assert "window must be" in answer["mode"]
    assert "components must be whole numbers" in answer["components"]
