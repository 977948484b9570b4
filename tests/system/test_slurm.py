"""Blocks by workers of a real SLURM: the bytes of one process, whatever becomes of workers, nodes and the master."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.system.slurm import CLOUD, Slurm
from tests.system.troubled_stage import Troubled, supply

from neuroloom.blockwise import run_stage
from neuroloom.cluster import check_profile
from neuroloom.errors import BlocksFailed, UserError
from neuroloom.files import hash_file
from neuroloom.project import Profile
from small_model import save_weights
from small_project import make_project, neuroloom

pytestmark = pytest.mark.system


@pytest.fixture
def stage(tmp_path: Path) -> Troubled:
    return Troubled(folder=tmp_path / "stage", shape=(4, 6, 4), block_shape=(2, 2, 2))


def whole(stage: Troubled) -> dict[str, str]:
    """What all blocks write."""
    return {f"{block.number}.txt": f"{block.write_roi}" for block in stage.blocks()}


def events(stage: Troubled) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (stage.folder / "events.jsonl").read_text().splitlines()]


def start_master(stage: Troubled, partition: str) -> subprocess.Popen[str]:
    """A process that runs a stage."""
    command = [sys.executable, "-c", "from tests.system.troubled_stage import main; main()"]
    return subprocess.Popen(
        [*command, stage.model_dump_json(), partition], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def nothing_left(slurm: Slurm) -> None:
    slurm.wait_for(lambda: not slurm.jobs(), 30)


def test_the_chain_gives_the_bytes_of_one_machine(slurm: Slurm, tmp_path: Path) -> None:
    blocks = {"block": [16, 24, 24]}
    folders = []
    for name in ("here", "there"):
        weights = save_weights(tmp_path / name / "weights.ckpt", "affs")
        values = {
            "prediction": {**blocks, "model": str(weights)},
            "fragments": {**blocks, "context": [4, 4, 4], "min_seed_distance": 4},
            "agglomeration": {**blocks, "context": [8, 8, 8]},
        }
        folders.append(make_project(tmp_path / name, values))
    here, there = folders
    (there / "cluster.toml").write_text(
        '[profiles.lab]\nkind = "slurm"\npartition = "cpu"\nworkers_max = 2\nmemory_gb = 1.5\npoll_seconds = 0.5\n'
        '[profiles.lab.predict]\npartition = "gpu"\ngpus = 1\n'
        '[profiles.lab.agglomerate]\nspot_partition = "spot"\n'
    )
    ran = neuroloom("run", "--project", here)
    assert ran.returncode == 0, ran.stderr
    ran = neuroloom("run", "--project", there, "--on", "lab")
    assert ran.returncode == 0, ran.stderr
    nothing_left(slurm)
    results = [
        {
            f"{file.relative_to(next((folder / 'results' / 'val').glob(f'{step}-*')))}": hash_file(file)
            for step, pattern in (
                ("affinities", "affinities.zarr/**/c/**/*"),
                ("fragments", "fragments.zarr/**/c/**/*"),
                ("agglomeration", "forest.arrow"),
                ("segmentation", "segmentation.zarr/**/c/**/*"),
            )
            for file in (folder / "results" / "val").glob(f"{step}-*/{pattern}")
            if file.is_file()
        }
        for folder in folders
    ]
    assert len(results[0]) > 20
    assert results[0] == results[1]
    nodes = {
        step: {
            json.loads(line)["node"]
            for file in there.glob(f"results/val/{step}-*/workers/*.jsonl")
            for line in file.open()
        }
        for step in ("affinities", "fragments", "agglomeration", "segmentation")
    }
    for step, kind in (("affinities", "gpu"), ("fragments", "cpu"), ("agglomeration", "spot"), ("segmentation", "cpu")):
        assert {node[:-1] for node in nodes[step]} == {kind}
    again = neuroloom("run", "--project", there, "--on", "lab")
    assert again.returncode == 0, again.stderr
    assert not slurm.call("squeue", "-hr", "--states=pending,running").strip()


def test_it_survives_evictions_killed_workers_and_killed_masters(slurm: Slurm, tmp_path: Path) -> None:
    stage = Troubled(folder=tmp_path / "stage", shape=(8, 8, 8), block_shape=(2, 2, 2), seconds=1.0)
    chance = random.Random(1)
    faults: list[str] = []
    master, end = start_master(stage, "spot"), time.monotonic() + 150
    slurm.wait_for(lambda: len(stage.outputs()) > 2, 90)
    while master.poll() is None and time.monotonic() < end:
        time.sleep(chance.uniform(1.5, 3.0))
        fault = chance.choice(["evict", "kill", "kill", "master"]) if len(faults) < 8 else ""
        if fault == "evict":
            faults += [fault] * slurm.evict(chance.choice(CLOUD))
        elif fault == "kill":
            told = [json.loads(file.read_text()) for file in (stage.folder / "workers").glob("*_*.json")]
            if told:
                process = chance.choice(told)["process"]
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended by itself
                    if b"blockwise.worker" in (Path("/proc") / str(process) / "cmdline").read_bytes():
                        os.kill(process, signal.SIGKILL)
                        faults.append(fault)
        elif fault == "master":
            master.kill()
            master.wait()
            faults.append(fault)
            master = start_master(stage, "spot")
    try:
        output, _ = master.communicate(timeout=30)
    finally:
        master.kill()
    assert master.returncode == 0, (output, faults, events(stage)[-10:])
    assert stage.outputs() == whole(stage)
    assert len(faults) >= 4, faults
    nothing_left(slurm)


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
    with pytest.raises(BlocksFailed, match=r"1 of 12 blocks failed. First: block 1: ValueError: boo 1"):
        run_stage(stage, supply=supply(partition="cpu", block_minutes=0.15, memory_max_gb=2.0))
    assert stage.outputs() == {name: text for name, text in whole(stage).items() if name != "1.txt"}
    ends = {(event["event"], event.get("block")) for event in events(stage)}
    assert {("hung", 3), ("killed", 5), ("memory", 8)} <= ends
    assert {event.get("memory_gb") for event in events(stage) if event["event"] == "submitted"} == {0.8, 1.6}
    failure = json.loads((stage.folder / "failures" / "block-1.json").read_text())
    assert len(failure["attempts"]) == 3
    assert "boo 1" in (stage.folder / "logs" / f"{failure['worker']}.log").read_text()
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
    master = start_master(slow, "cpu")
    try:
        slurm.wait_for(lambda: len(stage.outputs()) > 1, 60)
        with pytest.raises(UserError, match="Another run is writing"):
            run_stage(slow, supply=supply(partition="cpu"))
        master.send_signal(sent)
        output, _ = master.communicate(timeout=30)
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
