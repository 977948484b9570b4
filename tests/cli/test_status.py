"""`neuroloom status`: while a run is at work, after it, and after a change."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neuroloom.blockwise import run_stage
from neuroloom.blockwise.events import log_event
from neuroloom.blockwise.failures import record_failure
from neuroloom.blockwise.replay import replay
from neuroloom.blockwise.standing import RunNow, Standing, account, standing
from neuroloom.chain import Chain, open_project
from neuroloom.cli.status import lines, size
from neuroloom.files import lock, write_json, write_text
from neuroloom.project import FILE_NAME
from neuroloom.project.template import render
from small_model import save_weights
from small_project import VALUES, make_project

GIVEN = {"prediction": {"block": [16, 24, 24], "model": "weights.ckpt"}, "segmentation": {"threshold": 0.5}}
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = make_project(tmp_path / "p", GIVEN)
    save_weights(folder / "weights.ckpt", "affs")
    return folder


def step(text: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(step for step in json.loads(text)["steps"] if step["name"] == name)
    return found


@pytest.mark.system
def test_what_is_done_says_what_it_cost_and_a_change_why_it_is_done_again(project: Path, call: Call) -> None:
    chain = Chain(open_project(project))
    run_stage(chain.predict(chain.volume("val")))  # type: ignore[arg-type]
    code, out, _ = call("status", "--project", project)
    assert code == 0
    told = out.splitlines()
    place = next(number for number, line in enumerate(told) if line.startswith("  done    predict val"))
    assert "core-seconds, " in told[place + 1]
    assert " of memory at most, " in told[place + 1]
    assert told[place + 2].startswith("  to do   fragments val")
    _, out, _ = call("status", "--project", project, "--json")
    blocks = step(out, "predict val")["blocks"]
    assert (blocks["total"], blocks["done"], blocks["failed"], blocks["run"]) == (8, 8, [], None)
    assert blocks["account"]["bytes_written"] > 100_000
    assert blocks["account"]["block_memory"] > 50e6
    assert step(out, "fragments val")["blocks"] is None
    write_text(project / FILE_NAME, render({**VALUES, **GIVEN, "prediction": {**GIVEN["prediction"], "mirrors": 2}}))
    _, out, _ = call("status", "--project", project)
    assert "8 blocks; changed since the last time: prediction.mirrors 1 -> 2" in out
    _, out, _ = call("status", "--project", project, "--json")
    change = {"key": "prediction.mirrors", "before": 1, "after": 2, "is_content": False}
    assert step(out, "predict val")["changes"] == [change]


def test_a_run_at_work_is_told_without_its_lock(project: Path, call: Call) -> None:
    chain = Chain(open_project(project))
    stage = chain.predict(chain.volume("val"))
    assert stage is not None
    stage.describe()
    with lock(stage.folder / "lock", "prediction") as run:
        log_event(stage.folder, run, "run began", host="here", process=os.getpid(), workers=None)
        log_event(stage.folder, run, "submitted", array="7", jobs=3, cpus=2, gpus=1)
        for number in (0, 1):
            log_event(stage.folder, run, "started", job=f"7_{number}", node=f"gpu{number}")
        write_json(stage.folder / "workers" / "7_0.json", {"node": "gpu0", "block": 5, "since": time.time()})
        record_failure(stage, 2, "gpu1", "boo")
        began = time.monotonic()
        code, out, _ = call("status", "--project", project)
        assert time.monotonic() - began < 10
        assert code == 0
        assert (
            f"0 of 8 blocks are done, 1 failed (2); 1 worker now, 1 job in the queue, run on {socket.gethostname()}"
            in out
        )
        _, out, _ = call("status", "--project", project, "--json")
        now = step(out, "predict val")["blocks"]
        assert now["run"]["alive"]
        assert [(worker["name"], worker["block"]) for worker in now["run"]["workers"]] == [("7_0", 5)]
    _, out, _ = call("status", "--project", project)
    assert "0 of 8 blocks are done, 1 failed (2); nobody is at it" in out


def test_jobs_of_a_run_that_was_killed_do_not_count_on(project: Path) -> None:
    chain = Chain(open_project(project))
    stage = chain.predict(chain.volume("val"))
    assert stage is not None
    stage.describe()
    write_json(stage.folder / "lock", {"host": "elsewhere", "pid": 1, "started": "then", "run": "r", "beat": 1})
    events = [
        {"time": 1000.0, "event": "submitted", "array": "7", "jobs": 1, "cpus": 2, "gpus": 0},
        {"time": 2000.0, "event": "started", "job": "7_0", "node": "a"},
        {"time": 5600.0, "event": "no spot machines", "jobs": []},
    ]
    (stage.folder / "events.jsonl").write_text("".join(json.dumps({"run": "r", **line}) + "\n" for line in events))
    an_hour_ago = time.time() - 3600
    os.utime(stage.folder / "lock", (an_hour_ago, an_hour_ago))
    found = standing(stage.folder)
    assert found.account.job_core_hours == 2.0
    assert lines(found)[0].endswith("the run of then on elsewhere gives no sign of life")


def test_words_of_costs(project: Path) -> None:
    chain = Chain(open_project(project))
    stage = chain.predict(chain.volume("val"))
    assert stage is not None
    stage.describe()
    cost = replace(
        account(replay(stage.folder), 8),
        core_hours=12.345,
        gpu_hours=2.0,
        gpu_busy_hours=1.5,
        bytes_read=3_140_000_000,
        bytes_written=999,
        block_memory=2_000_000,
        block_gpu_memory=30_000_000_000,
        block_seconds=3.21,
        slowest_block=7,
        slowest_seconds=130.0,
        evictions=1,
        repeated_blocks=2,
        failed_attempts=3,
    )
    run = RunNow("r", "h", 1, "then", True, 2, (), 0)
    first, second, third = lines(Standing(8, 3, tuple(range(7)), run, cost))
    assert first == "3 of 8 blocks are done, 7 failed (0, 1, 2, 3, 4, ...); 2 workers now, run on h since then"
    assert second == "12.3 core-hours, 2 GPU-hours (75% busy), 3.14 GB read, 999 bytes written, 30 GB of memory at most"
    assert third == (
        "3.2 s a block (slowest 7: 2 min 10 s), 1 machine taken away, 2 blocks done twice, 3 attempts failed"
    )
    assert size(1_500_000_000_000_000_000) == "1.5e+03 PB"
