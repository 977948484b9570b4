"""The scripts in tools/ that weights and their curves are made with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import zarr

from small_project import make_volume

TOOLS = Path(__file__).parents[2] / "tools"


def run(script: str, *arguments: str | Path, code: int = 0) -> str:
    command = [sys.executable, TOOLS / script, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == code, result.stderr
    return result.stderr


def test_a_block_is_held_back(tmp_path: Path) -> None:
    make_volume(tmp_path / "v.zarr", 1, (40, 44, 48))
    labels = zarr.open_group(tmp_path / "v.zarr", mode="r")["volumes/labels/neuron_ids"][:]
    run("hold_back.py", tmp_path / "v.zarr", tmp_path, "--begin", "20,0,28", "--shape", "20,30,20")
    said = run("hold_back.py", tmp_path / "v.zarr", tmp_path, "--begin", "30,0,0", "--shape", "20,30,20", code=2)
    assert "does not lie in the volume's (40, 44, 48) voxels" in said
    said = run("hold_back.py", tmp_path / "none.zarr", tmp_path, "--begin", "0,0,0", "--shape", "2,3,2", code=2)
    assert "none.zarr is no folder" in said
    block = (slice(20, 40), slice(0, 30), slice(28, 48))
    learned = zarr.open_group(tmp_path / "train.zarr", mode="r")
    held_back = zarr.open_group(tmp_path / "held-back.zarr", mode="r")
    mask = np.ones(labels.shape, np.uint8)
    mask[block] = 0
    np.testing.assert_array_equal(learned["volumes/labels/mask"][:], mask)
    np.testing.assert_array_equal(learned["volumes/labels/neuron_ids"][:], labels)
    np.testing.assert_array_equal(held_back["volumes/raw"][:], learned["volumes/raw"][:][block])
    assert held_back["volumes/labels/mask"][:].all()
    # a component has one id of the volume, and what was joined outside the block only is apart in it
    components = held_back["volumes/labels/neuron_ids"][:]
    pairs = np.unique(np.stack([components.ravel(), labels[block].ravel()]), axis=1)
    assert len(pairs[0]) == len(np.unique(pairs[0])) >= len(np.unique(pairs[1]))


def test_curves_are_drawn(tmp_path: Path) -> None:
    for name, entries in {
        "lsd": [{"step": 1, "loss": 1.0, "seconds": 60.0}],
        # between the second and the third step something else ran
        "acrlsd": [
            *({"step": n + 1, "loss": 1.0, "seconds": s} for n, s in enumerate((60.0, 75.0, 900.0, 915.0, 930.0))),
            {"step": 5, "voi": 1.25, "voi_eroded": 0.5},
        ],
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "curve.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    picture = tmp_path / "curves.png"
    run("draw_curves.py", picture, f"acrlsd={tmp_path / 'lsd'},{tmp_path / 'acrlsd'}")
    assert picture.stat().st_size > 1000
    assert "no training is there" in run("draw_curves.py", picture, f"affs={tmp_path / 'none'}", code=2)
    assert "lsd has no scores" in run("draw_curves.py", picture, f"lsd={tmp_path / 'lsd'}", code=2)
    assert (tmp_path / "curves.tsv").read_text().splitlines()[1] == "acrlsd\t3.0\t5\t1.25\t0.5"
