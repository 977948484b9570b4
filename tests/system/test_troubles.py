"""Worse than a worker that ends: one that dies while it writes, one that wakes too late; a full disk; no master."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests.system.master import start_master
from tests.system.slurm import Slurm
from tests.system.troubled_stage import Troubled, supply
from tests.system.writing_stage import Writing

from neuroloom.blockwise import run_stage
from neuroloom.blockwise.tracking import done_blocks
from neuroloom.files import hash_file

pytestmark = pytest.mark.system


@pytest.fixture
def stage(tmp_path: Path) -> Writing:
    """24 blocks of a quarter of a megabyte."""
    return Writing(folder=tmp_path / "stage", shape=(128, 192, 256), block_shape=(64, 64, 64))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that is a disk of 16 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", disk], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no disk of one's own: {mounted.stderr}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def chunks(stage: Writing) -> dict[str, str]:
    """Hashes of all files of the output."""
    folder = Path(stage.output.path)
    return {f"{file.relative_to(folder)}": hash_file(file) for file in folder.rglob("*") if file.is_file()}


def costs(stage: Writing) -> list[int]:
    """The blocks that workers wrote down as done, in their order."""
    lines = [line for file in (stage.folder / "workers").glob("*.jsonl") for line in file.read_text().splitlines()]
    return sorted(cost["block"] for cost in map(json.loads, lines) if cost["failed"] is None)


def done(stage: Writing) -> int:
    """How many blocks count as done."""
    return int(done_blocks(stage.folder / "blocks", stage.grid).sum())


def events(stage: Writing) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (stage.folder / "events.jsonl").read_text().splitlines()]


def one_process(stage: Writing, folder: Path) -> Writing:
    """The same stage, done by a process of this machine without trouble."""
    there = stage.model_copy(update={"folder": folder, "trouble": {}, "seconds": 0.0})
    run_stage(there)
    return there


def test_a_chunk_that_is_cut_short_is_written_again(slurm: Slurm, stage: Writing, tmp_path: Path) -> None:
    troubled = stage.model_copy(update={"trouble": {5: "die", 11: "die"}, "seconds": 0.3})
    run_stage(troubled, supply=supply(partition="cpu"))
    killed = {event["block"] for event in events(stage) if event["event"] == "killed"}
    assert killed == {5, 11}
    np.testing.assert_array_equal(stage.written(), stage.whole())
    assert chunks(stage) == chunks(one_process(stage, tmp_path / "here"))  # nothing half-written remains
    assert costs(stage) == list(range(24))
    slurm.settle()
    assert not slurm.jobs()


def test_a_writer_that_wakes_after_its_block_was_done_changes_nothing(
    slurm: Slurm, stage: Writing, tmp_path: Path
) -> None:
    """Two stand still on machines that SLURM has lost: one wakes while others go on, one when all is done."""
    troubled = stage.model_copy(update={"trouble": {4: "stop", 8: "stop, wait"}, "seconds": 0.1})
    master = start_master(troubled, partition="cpu", block_minutes=0.1, workers_max=2)
    try:
        slurm.wait_for(lambda: all((stage.folder / f"once-{block}").exists() for block in (4, 8)), 60)
        asleep = [psutil.Process(int((stage.folder / f"once-{block}").read_text())) for block in (4, 8)]
        slurm.evict("cpu1", jobs_live=True)
        slurm.wait_for((Path(stage.output.path) / "noise" / "c" / "0" / "1" / "0").exists, 60)
        assert [process.status() for process in asleep] == [psutil.STATUS_STOPPED] * 2
        assert master.poll() is None  # the other block is not done yet
        asleep[0].send_signal(signal.SIGCONT)
        time.sleep(1.0)
        (stage.folder / "go-on").touch()
        output, _ = master.communicate(timeout=600)
    finally:
        master.kill()
    assert master.returncode == 0, output
    expected = chunks(one_process(stage, tmp_path / "here"))
    assert chunks(stage) == expected
    asleep[1].send_signal(signal.SIGCONT)
    psutil.wait_procs(asleep, 15)
    assert not [process for process in asleep if process.is_running()]
    assert chunks(stage) == expected
    assert done(stage) == stage.block_count
    paid = costs(stage)
    assert sorted(set(paid)) == list(range(24))
    assert all(paid.count(block) == 1 for block in range(24) if block not in (4, 8))
    slurm.settle()
    assert not slurm.jobs()


def test_a_worker_that_stands_still_is_replaced(slurm: Slurm, stage: Writing) -> None:
    troubled = stage.model_copy(update={"trouble": {4: "stop"}})
    run_stage(troubled, supply=supply(partition="cpu", block_minutes=0.1, workers_max=1))
    np.testing.assert_array_equal(stage.written(), stage.whole())
    assert ("hung", 4) in {(event["event"], event.get("block")) for event in events(stage)}
    assert not psutil.pid_exists(int((stage.folder / "once-4").read_text()))
    slurm.settle()
    assert not slurm.jobs()


def test_a_full_disk_stops_a_stage_that_goes_on_when_there_is_room(
    slurm: Slurm, stage: Writing, small_disk: Path, tmp_path: Path
) -> None:
    stage = stage.model_copy(update={"folder": small_disk / "stage", "seconds": 0.3})
    master = start_master(stage, partition="cpu")
    filler = small_disk / "filler"
    try:
        slurm.wait_for(lambda: done(stage) >= 3, 90)
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        output, _ = master.communicate(timeout=600)
    finally:
        master.kill()
    assert master.returncode == 2, output
    assert f"No room left on the disk while writing {stage.folder}" in output.splitlines()[-1]
    slurm.settle()
    assert not slurm.jobs()
    before = done(stage)
    assert 3 <= before < stage.block_count
    filler.unlink()
    run_stage(stage, supply=supply(partition="cpu"))
    assert chunks(stage) == chunks(one_process(stage, tmp_path / "here"))
    assert len(costs(stage)) <= stage.block_count + 3  # of each worker, at most the last block is done again


def test_workers_that_lose_the_master_and_their_supply_end_by_themselves(slurm: Slurm, tmp_path: Path) -> None:
    stage = Troubled(folder=tmp_path / "stage", shape=(4, 4, 4), block_shape=(2, 2, 2), seconds=120.0)
    master = start_master(stage, partition="cpu")
    try:
        slurm.wait_for(lambda: len(slurm.jobs()) == 3 and len(list(stage.folder.glob("workers/*_*.json"))) == 3, 60)
        both = [psutil.Process(master.pid), *psutil.Process(master.pid).children(recursive=True)]
        assert len(both) >= 2
    finally:
        for process in both:
            process.kill()
        master.wait()
    lost = time.monotonic()
    slurm.wait_for(lambda: not slurm.jobs(), 60)
    assert time.monotonic() - lost > 5  # nobody cancelled them
    logs = [file.read_text() for file in (stage.folder / "logs").glob("*.log")]
    assert all("The master has ended" in log for log in logs), logs
    assert os.listdir(stage.folder / "out") == [] if (stage.folder / "out").exists() else True
