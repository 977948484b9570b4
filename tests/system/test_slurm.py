"""Blocks by workers of a real SLURM: the bytes of one process, whatever becomes of workers, nodes and the master."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.system.master import start_master
from tests.system.slurm import CLOUD, Slurm
from tests.system.troubled_stage import Troubled, supply

from neuroloom.blockwise import run_stage
from neuroloom.cluster import check_profile
from neuroloom.errors import BlocksFailed, UserError
from neuroloom.project import Profile

pytestmark = pytest.mark.system


@pytest.fixture
def stage(tmp_path: Path) -> Troubled:
    return Troubled(folder=tmp_path / "100%a stage", shape=(4, 6, 4), block_shape=(2, 2, 2))


def whole(stage: Troubled) -> dict[str, str]:
    """What all blocks write."""
    return {f"{block.number}.txt": f"{block.write_roi}" for block in stage.blocks()}


def events(stage: Troubled) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (stage.folder / "events.jsonl").read_text().splitlines()]


def nothing_left(slurm: Slurm) -> None:
    slurm.wait_for(lambda: not slurm.jobs(), 30)


def test_a_finished_stage_starts_no_worker(slurm: Slurm, stage: Troubled) -> None:
    run_stage(stage, supply=supply(partition="cpu"))
    assert stage.outputs() == whole(stage)
    submitted = [event for event in events(stage) if event["event"] == "submitted"]
    assert sum(event["jobs"] for event in submitted) == 3
    stage.done_marker.unlink()  # as if the master had been killed after the last block
    run_stage(stage, supply=supply(partition="cpu"))
    assert [event for event in events(stage) if event["event"] == "submitted"] == submitted
    nothing_left(slurm)


def test_what_goes_wrong_in_a_block_is_told_apart(slurm: Slurm, stage: Troubled) -> None:
    trouble = {1: "raise", 3: "hang", 5: "kill", 8: "eat 900"}
    stage = stage.model_copy(update={"trouble": trouble})
    with pytest.raises(BlocksFailed, match=r"1 of 12 blocks failed. First: block 1: ValueError: boo 1 \(log: .*log"):
        run_stage(stage, supply=supply(partition="cpu", block_minutes=0.15, memory_max_gb=2.0))
    assert stage.outputs() == {name: text for name, text in whole(stage).items() if name != "1.txt"}
    ends = {(event["event"], event.get("block")) for event in events(stage)}
    assert {("hung", 3), ("killed", 5), ("memory", 8)} <= ends
    assert {event.get("memory_gb") for event in events(stage) if event["event"] == "submitted"} == {0.8, 1.6}
    failure = json.loads((stage.folder / "failures" / "block-1.json").read_text())
    assert len(failure["attempts"]) == 3
    assert "boo 1" in (stage.folder / "logs" / f"{failure['worker']}.log").read_text()
    logs = stage.folder / "logs"
    connected = [log for log in logs.glob("*_*.log") if "Connected with" in log.read_text()]
    assert len(list((logs / "addresses").iterdir())) == len(connected) > 3
    run_stage(stage.model_copy(update={"trouble": {}}), supply=supply(partition="cpu"))
    assert stage.outputs() == whole(stage)
    nothing_left(slurm)


def test_a_block_that_takes_all_memory_stops_the_stage(slurm: Slurm, stage: Troubled) -> None:
    stage = stage.model_copy(update={"trouble": {4: "eat 1500"}})
    with pytest.raises(UserError, match=r"Block 4 was killed for taking more than 1 GB on cpu\d, which is all"):
        run_stage(stage, supply=supply(partition="cpu", memory_gb=0.8, memory_max_gb=1.0))
    nothing_left(slurm)


def test_workers_that_cannot_start_stop_the_stage(slurm: Slurm, stage: Troubled) -> None:
    with pytest.raises(UserError, match=r"3 workers failed at start(.|\n)*no-such-python.*No such file"):
        run_stage(stage, supply=supply(partition="cpu", python="/opt/no-such-python"))
    nothing_left(slurm)


def test_a_node_where_blocks_fail_is_left_out(slurm: Slurm, stage: Troubled) -> None:
    trouble = dict.fromkeys(range(12), "raise on cpu1")
    stage = stage.model_copy(update={"trouble": trouble, "seconds": 0.5})
    run_stage(stage, supply=supply(partition="cpu", workers_max=2, cpus=3))  # one on each node
    assert stage.outputs() == whole(stage)
    assert [event["node"] for event in events(stage) if event["event"] == "node left out"] == ["cpu1"]
    nothing_left(slurm)


def test_without_spot_machines_others_are_asked(slurm: Slurm, stage: Troubled) -> None:
    (slurm.folder / "no-machines").touch()
    for node in CLOUD:
        slurm.evict(node)
    try:
        run_stage(stage, supply=supply(spot_partition="spot", partition="cpu", spot_minutes=0.05))
    finally:
        (slurm.folder / "no-machines").unlink()
    assert stage.outputs() == whole(stage)
    assert "no spot machines" in {event["event"] for event in events(stage)}
    nothing_left(slurm)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_master_that_ends_takes_its_workers_with_it(slurm: Slurm, stage: Troubled, sent: signal.Signals) -> None:
    slow = stage.model_copy(update={"seconds": 2.0})
    master = start_master(slow, partition="cpu")
    try:
        slurm.wait_for(lambda: len(stage.outputs()) > 1, 60)
        with pytest.raises(UserError, match="Another run is writing"):
            run_stage(slow, supply=supply(partition="cpu"))
        master.send_signal(sent)
        output, _ = master.communicate(timeout=600)
    finally:
        master.kill()
    assert master.returncode != 0, output
    nothing_left(slurm)
    assert len(stage.outputs()) < stage.block_count


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"partition": "cpus"}, "`partition` is 'cpus', which the cluster does not have; .*did you mean 'cpu'"),
        ({"spot_partition": "sport"}, "`spot_partition` is 'sport'.*did you mean 'spot'"),
        ({"memory_gb": 64}, r"`memory_gb` is 64, more than any node of partition cpu has: 7.812"),
        ({"cpus": 16}, "`cpus` is 16, more than any node of partition cpu has: 4"),
        ({"gpus": 1}, "`gpus` is 1, more than any node of partition cpu has: 0. Partitions with GPUs: gpu, spot"),
        ({"partition": "gpu", "minutes": 500}, "`minutes` is 500, more than partition gpu allows: 120"),
        ({"constraint": "amd"}, "`constraint` is 'amd', which no node"),
        ({"container": "/no/image.sif"}, "`container` is /no/image.sif, which does not exist"),
    ],
)
def test_what_the_cluster_does_not_have_is_told_first(slurm: Slurm, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"Profile 'lab', predict: {message}"):
        check_profile("lab", Profile.model_validate({"kind": "slurm", **keys}), ["predict"])


def test_a_master_may_be_a_job_that_goes_back_to_the_queue(slurm: Slurm, stage: Troubled, tmp_path: Path) -> None:
    slow = stage.model_copy(update={"seconds": 1.5})
    slow.folder.mkdir()
    slow.describe()
    command = [sys.executable, "-m", "tests.system.master", str(slow.description), '{"partition": "cpu"}']
    options = ["--requeue", "--open-mode=append", f"--output={tmp_path / 'master.log'}", "--mem=900M"]
    job = slurm.call("sbatch", "--parsable", "--partition=gpu", *options, f"--wrap=exec {shlex.join(command)}").strip()
    slurm.wait_for(lambda: len(stage.outputs()) > 2, 90)
    slurm.call("scontrol", "requeue", job)
    slurm.wait_for(lambda: stage.is_done() and not slurm.jobs(), 90)
    assert stage.outputs() == whole(stage)
    began = [event for event in events(stage) if event["event"] == "blocks began"]
    assert len(began) == 2, (tmp_path / "master.log").read_text()
    assert began[1]["done"] > 0
