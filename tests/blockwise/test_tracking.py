"""Done-bytes that a killed master left half-written: the next run starts, and only what they held is done again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from neuroloom.blockwise import run_stage
from neuroloom.blockwise.tracking import reserve, take_back

from .test_run import Double, stage  # noqa: F401


@pytest.mark.system
@pytest.mark.parametrize(
    ("damaged", "kept"), [("zarr.json", 0), ("zarr.json", 40), ("done/zarr.json", 0), ("done/zarr.json", 200), ("c", 3)]
)
def test_a_file_cut_short_is_done_again(stage: Double, damaged: str, kept: int) -> None:  # noqa: F811
    run_stage(stage, 2)
    stage.done_marker.unlink()
    tracking = stage.folder / "blocks"
    chunks = sorted(path for path in (tracking / "done" / "c").rglob("*") if path.is_file())
    assert chunks
    file = chunks[0] if damaged == "c" else tracking / damaged
    file.write_bytes(file.read_bytes()[:kept])
    (stage.folder / "log.txt").unlink()
    run_stage(stage, 2)
    blocks = sorted(int(line) for line in (stage.folder / "log.txt").read_text().split())
    assert blocks == list(range(stage.block_count))


@pytest.mark.system
def test_whole_bytes_are_believed(stage: Double) -> None:  # noqa: F811
    run_stage(stage, 2)
    stage.done_marker.unlink()
    (stage.folder / "log.txt").unlink()
    run_stage(stage, 2)
    assert not (stage.folder / "log.txt").exists()


def test_blocks_that_are_taken_back_are_done_again(tmp_path: Path) -> None:
    take_back(tmp_path / "nothing", [(0, 0, 0)])
    done = zarr.create_array(tmp_path / "blocks" / "done", shape=(2, 3, 4), chunks=(1, 2, 4), dtype="uint8")
    done[:] = 1
    take_back(tmp_path / "blocks", [(0, 2, 1), (1, 0, 3)])
    assert np.argwhere(zarr.open_array(tmp_path / "blocks" / "done")[:] == 0).tolist() == [[0, 2, 1], [1, 0, 3]]


def test_room_is_reserved_and_what_is_marked_stays(tmp_path: Path) -> None:
    chunk = tmp_path / "done" / "c" / "0" / "0" / "0"
    chunk.parent.mkdir(parents=True)
    with chunk.open("wb") as file:
        file.write(b"\x01\x01")
        file.truncate(10**6)
    assert chunk.stat().st_blocks * 512 < 10**6
    reserve(tmp_path)
    assert chunk.stat().st_blocks * 512 >= 10**6
    assert chunk.read_bytes() == b"\x01\x01" + bytes(10**6 - 2)
