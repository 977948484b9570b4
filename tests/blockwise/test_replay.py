"""Events and accounts read again: each block counted once, whoever did it how often."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuroloom.blockwise import cost_lines as module
from neuroloom.blockwise import run_stage
from neuroloom.blockwise.history import Replay
from neuroloom.blockwise.replay import replay
from neuroloom.blockwise.standing import standing
from neuroloom.errors import BlocksFailed, UserError

from .test_run import Double, stage  # noqa: F401


def cost(block: int, began: float, worker: str = "12_0", run: str = "r1", **more: Any) -> dict[str, Any]:
    values = {"seconds": 2.0, "cpu_seconds": 1.0, "memory": 100, "read": 10, "written": 1, "failed": None}
    no_gpu = {"gpu_busy_seconds": None, "gpu_memory": None}
    return {"block": block, "run": run, "node": "n", "worker": worker, "began": began, **values, **no_gpu, **more}


def written(folder: Path, total: int, files: dict[str, list[dict[str, Any] | str]]) -> Replay:
    """What is read of a stage of so many blocks and these files."""
    (folder / "workers").mkdir()
    (folder / "stage.json").write_text(
        json.dumps({"parameters": {"shape": [2 * total - 1, 3, 3], "block_shape": [2, 4, 4]}})
    )
    for name, lines in files.items():
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (folder / name).write_text("".join(text + "\n" for text in texts))
    return replay(folder)


def event(time: float, what: str, run: str = "r1", **more: Any) -> dict[str, Any]:
    return {"time": time, "run": run, "event": what, **more}


@pytest.mark.parametrize("piece", [300, module.PIECE])
def test_a_block_done_twice_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    """Whether both attempts are read at once or not, and whichever is read first."""
    monkeypatch.setattr(module, "PIECE", piece)
    found = written(
        tmp_path,
        4,
        {
            "workers/12_0.jsonl": [cost(0, 100.0), cost(1, 110.0, seconds=50.0), cost(2, 300.0, memory=900)],
            "workers/12_1.jsonl": [
                cost(1, 200.0, "12_1", seconds=3.0, read=7),
                cost(2, 200.0, "12_1", cpu_seconds=9.0, memory=5000),
                cost(1, 120.0, "12_1", cpu_seconds=2.0),
                cost(3, 220.0, "12_1", failed="ValueError: boo", cpu_seconds=0.5),
            ],
        },
    )
    assert found.damaged == 0
    costs = found.costs
    assert (costs.blocks, costs.seconds, costs.cpu_seconds, costs.read, costs.written) == (3, 7.0, 3.0, 27, 3)
    assert costs.memory == 900
    assert (found.repeated.blocks, found.repeated.cpu_seconds, found.repeated.seconds) == (3, 12.0, 54.0)
    assert (found.failed.blocks, found.failed.cpu_seconds) == (1, 0.5)
    assert found.told.tolist() == [True, True, True, False]
    assert (found.median_seconds, found.slowest) == (2.0, (1, 3.0))
    assert found.done_in(found.runs[0]) == {"12_0\tn": 2, "12_1\tn": 1}


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    found = written(
        tmp_path,
        3,
        {
            "workers/a.jsonl": [cost(0, 1.0), '{"block": 1, "beg', cost(2, 1.0, seconds="long"), cost(3, 1.0), "[]"],
            "workers/b.jsonl": [cost(-1, 1.0), cost(1, 2.0, another="key", memory=None)],
            "events.jsonl": ["{", event(1.0, "started", job="1_0"), event(2.0, "run began"), "{}", event(3.0, "new")],
        },
    )
    with open(tmp_path / "workers" / "b.jsonl", "a") as file:
        file.write(json.dumps(cost(2, 9.0)))  # no end of the line: it is just being written
    assert replay(tmp_path).told.tolist() == found.told.tolist() == [True, True, False]
    assert found.damaged == 5 + 4


def test_jobs_and_runs_are_told_by_events(tmp_path: Path) -> None:
    job = {"node": "n1", "block": 3, "done": 4}
    figures = {"state": "COMPLETED", "seconds": 60.0, "cpu_seconds": 50.0, "memory": 7, "cpus": 2, "gpus": 1}
    found = written(
        tmp_path,
        9,
        {
            "events.jsonl": [
                event(0.0, "run began", host="h", process=5, workers=None),
                event(1.0, "blocks began", done=0),
                event(2.0, "submitted", array="7", jobs=5, cpus=2, gpus=1),
                *(event(10.0, "started", job=f"7_{n}", node="n1") for n in range(4)),
                event(30.0, "requeued", job="7_0", node="n1", restarts=1),
                event(40.0, "started", job="7_0", node="n2"),
                event(50.0, "evicted", job="7_1", state="NODE_FAIL", **job),
                event(51.0, "sent away", jobs=["7_2"]),
                event(52.0, "evicted", job="7_2", state="CANCELLED", **job),
                event(60.0, "no room", job="7_3", state="FAILED", **job),
                event(60.0, "run began", "r2", host="h", process=6, workers=2),  # r1 was killed
                event(61.0, "blocks began", "r2", done=6),
                event(70.0, "block failed", "r2", block=3, message="boo", given_up=False, attempts=1),
                event(71.0, "run ended", "r2", how="failed", message="1 of 9"),
                event(80.0, "measured", job="7_0", node="n2", **figures),
            ]
        },
    )
    assert found.damaged == 0
    jobs = found.jobs
    assert {name: (job.state, job.seconds, job.evictions) for name, job in jobs.items()} == {
        "7_0": ("ended", 40.0, 1),
        "7_1": ("evicted", 40.0, 1),
        "7_2": ("sent away", 42.0, 0),
        "7_3": ("no room", 50.0, 0),
        "7_4": ("ended", 0.0, 0),
    }
    assert jobs["7_0"].measured == [{**figures, "node": "n2"}]
    assert (jobs["7_3"].node, jobs["7_3"].done, jobs["7_3"].cpus) == ("n1", 4, 2)
    assert found.evictions == 2
    first, second = found.runs
    assert (first.name, first.began, first.ended, first.how, first.workers) == ("r1", 0.0, None, None, None)
    assert (second.done_before, second.failed, second.how, second.message) == (6, [3], "failed", "1 of 9")


def test_runs_are_replayed_from_what_they_wrote(stage: Double) -> None:  # noqa: F811
    with pytest.raises(BlocksFailed):
        run_stage(stage.model_copy(update={"fail_at": 7}), 2)
    failed = standing(stage.folder)
    assert (failed.done, failed.total, failed.failed, failed.run) == (23, 24, (7,), None)
    assert failed.account.failed_attempts == 2  # daisy tries once more
    run_stage(stage, 1)
    found = replay(stage.folder)
    assert found.told.all()
    first, second = found.runs
    assert (first.how, first.done_before, first.failed, first.workers) == ("failed", 0, [7], 2)
    assert (second.how, second.done_before, second.failed, second.workers) == ("done", 23, [], 1)
    assert sum(found.done_in(first).values()) == 23
    assert list(found.done_in(second).values()) == [1]
    assert found.repeated.blocks == found.damaged == 0
    assert found.costs.written > 24 * 100
    done = standing(stage.folder)
    assert (done.done, done.failed, done.run) == (24, (), None)
    assert done.account.core_hours == pytest.approx(found.costs.cpu_seconds / 3600, abs=1e-6)
    assert (done.account.runs, done.account.untold_blocks) == (2, 0)


def test_an_account_that_is_kept_is_used_until_a_worker_tells_more(stage: Double) -> None:  # noqa: F811
    run_stage(stage, 1)
    kept = json.loads((stage.folder / "account.json").read_text())
    (stage.folder / "account.json").write_text(json.dumps({**kept, "bytes_read": -1}))
    assert standing(stage.folder).account.bytes_read == -1
    told = next((stage.folder / "workers").glob("*.jsonl"))
    later = (stage.folder / "account.json").stat().st_mtime_ns + 10**9
    os.utime(told, ns=(later, later))
    assert standing(stage.folder).account.bytes_read == kept["bytes_read"]


def test_many_blocks_are_read_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", 2**20)
    count = 100_000
    (tmp_path / "workers").mkdir()
    (tmp_path / "stage.json").write_text(json.dumps({"parameters": {"shape": [count, 1, 1], "block_shape": [1, 1, 1]}}))
    line = json.dumps(cost(10**9, 5.0, run="0123456789abcdef"))
    with open(tmp_path / "workers" / "a.jsonl", "w") as file:
        file.writelines(line.replace("1000000000", str(block)) + "\n" for block in range(count))
    tracemalloc.start()
    found = replay(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.costs.blocks == count
    assert found.costs.seconds == pytest.approx(2.0 * count)
    assert peak < 72 * count + 10 * 2**20 < (tmp_path / "workers" / "a.jsonl").stat().st_size
    assert np.count_nonzero(found.told) == count


@pytest.mark.parametrize("content", ["{}", '{"parameters": {"shape": [1, 2], "block_shape": 3}}', "[]"])
def test_a_description_that_is_none_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "stage.json").write_text(content)
    with pytest.raises(UserError, match=r"stage.json is damaged. Delete .* to do that step again"):
        replay(tmp_path)
