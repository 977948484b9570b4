"""A worker process: it does what `stage.json` says, and ends by itself when the master is gone."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from neuroloom.blockwise import Block, run_stage
from neuroloom.blockwise.stage import Stage, load_stage
from neuroloom.blockwise.work import Supply
from neuroloom.errors import BlocksFailed, UserError
from neuroloom.files import explain_os_errors
from neuroloom.volume import open_volume

from .test_run import Double, stage  # noqa: F401


class OneWorker:
    """What daisy holds: one process that joins as a job on another machine would."""

    def __init__(self, stage: Stage, run: str) -> None:  # noqa: F811
        self.description, self.run = stage.description, run

    def __call__(self, *, context: object) -> None:
        environment = {**os.environ, "DAISY_CONTEXT": context.to_env()}  # type: ignore[attr-defined]
        command = [sys.executable, "-m", "neuroloom.blockwise.worker", str(self.description), "--run", self.run]
        with (self.description.parent / "worker.log").open("w") as log:
            subprocess.run(command, env=environment, check=True, stdout=log, stderr=log)


class FullDisk(Double):
    """Finds no room at one block, once."""

    def process(self, block: Block) -> None:
        once = self.folder / "once"
        if block.number == 5 and not once.exists():
            once.touch()
            with explain_os_errors(self.folder):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().process(block)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root / "tests"), str(root), str(root / "src")]))


def supply() -> Supply:
    return Supply(OneWorker, "127.0.0.1", 60.0)


@pytest.mark.system
def test_a_worker_does_what_is_described(stage: Double) -> None:  # noqa: F811
    run_stage(stage, supply=supply())
    expected = stage.source.open().read().astype(np.uint16) * 2
    np.testing.assert_array_equal(open_volume(stage.folder / "out.zarr", "out").read(), expected)
    costs = [json.loads(line) for line in next((stage.folder / "workers").glob("*.jsonl")).read_text().splitlines()]
    assert sorted(cost["block"] for cost in costs) == list(range(24))
    assert all(cost["memory"] > 1e6 and cost["written"] > 0 for cost in costs)


@pytest.mark.system
def test_a_block_that_raises_is_given_up_after_three_attempts_and_the_rest_goes_on(stage: Double) -> None:  # noqa: F811
    with pytest.raises(BlocksFailed, match=r"1 of 24 blocks failed. First: block 7: ValueError: boo"):
        run_stage(stage.model_copy(update={"fail_at": 7}), supply=supply())
    report = json.loads((stage.folder / "failures" / "block-7.json").read_text())
    assert len(report["attempts"]) == 3
    assert "ValueError: boo" in report["traceback"]
    done = [int(n) for n in (stage.folder / "log.txt").read_text().split()]
    assert sorted(done) == [n for n in range(24) if n != 7]
    run_stage(stage, supply=supply())
    assert [int(n) for n in (stage.folder / "log.txt").read_text().split()][23:] == [7]


@pytest.mark.system
def test_a_block_that_found_no_room_is_neither_done_nor_failed(stage: Double) -> None:  # noqa: F811
    full = FullDisk.model_validate(stage.model_dump())
    run_stage(full, supply=supply())  # the worker ends with the first attempt, and is started again
    assert (full.folder / "once").exists()
    assert not list((full.folder / "failures").glob("*.json"))
    expected = stage.source.open().read().astype(np.uint16) * 2
    np.testing.assert_array_equal(open_volume(stage.folder / "out.zarr", "out").read(), expected)


@pytest.mark.system
def test_a_worker_ends_when_another_run_has_taken_the_lock(stage: Double) -> None:  # noqa: F811
    stage.folder.mkdir()
    stage.describe()
    (stage.folder / "lock").write_text(json.dumps({"run": "another", "beat": 1}))
    command = [sys.executable, "-m", "neuroloom.blockwise.worker", str(stage.description), "--run", "ours"]
    # nobody listens at an address that is never given to a machine
    context = f"hostname=203.0.113.1:port=1:task_id=blocks:worker_id=-1:addresses={stage.folder}"
    environment = {**os.environ, "DAISY_CONTEXT": context}
    started = time.monotonic()
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 4, ended
    assert "another one has taken its place" in ended.stdout
    assert time.monotonic() - started < 30


def test_only_the_described_stage_is_loaded(stage: Double) -> None:  # noqa: F811
    stage.folder.mkdir()
    stage.describe()
    assert load_stage(stage.description) == stage
    described = json.loads(stage.description.read_text())
    for change, message in (
        ({"fingerprint": "0"}, "another version"),
        ({"module": "json"}, "no stage of this version"),
        ({"module": "nowhere.at_all"}, "cannot be imported"),
    ):
        stage.description.write_text(json.dumps({**described, **change}))
        with pytest.raises(UserError, match=message):
            load_stage(stage.description)
