"""What killed writers leave behind goes; results, and what may be being written, stay."""

from __future__ import annotations

from pathlib import Path

from neuroloom.blockwise.leftovers import remove_half_written
from neuroloom.files import write_text


def test_only_half_written_results_go(tmp_path: Path) -> None:
    stay = ("out.zarr/a/c/0/0/0", "graph/nodes/1.arrow", "workers/1_0.123.part", ".lock.x.part", "done.json")
    go = ("out.zarr/a/c/0/0/0.5f3b.partial", "graph/nodes/.1.arrow.x8.part")
    for name in stay + go:
        write_text(tmp_path / name, "")
    remove_half_written(tmp_path)
    assert {f"{file.relative_to(tmp_path)}" for file in tmp_path.rglob("*") if file.is_file()} == set(stay)
