"""What the doctor says of what nodes tell, on plain data, and how they tell it; the real thing is in tests/system."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import daisy.logging
import daisy.v2
import pytest
from funlib.geometry import Roi

from neuroloom.cluster import probe
from neuroloom.cluster.answers import Answers, Failed, read_answers
from neuroloom.cluster.diagnosis import diagnose
from neuroloom.cluster.doctor import places_of
from neuroloom.cluster.outcome import Check, Here, Outcome, Place
from neuroloom.cluster.slurm import JobState
from neuroloom.cluster.trial import PYTHON_FAILED, SETUP_ENDED, Trial, setup_line, trial_script, trials_of
from neuroloom.project import Job, Profile, TrainJob, load_project
from small_project import make_project

HERE = Here(
    profile="lab",
    places=(Place("/data/p"), Place("/data/p/results"), Place("/data/p/v.zarr", "c1"), Place("/raw/w.zarr", "c2")),
    token="t",
    python="3.11.7",
    neuroloom={"version": "0.1.0", "code": "abc"},
    packages={"numpy": "2.1", "zarr": "3.1"},
    ahead_of_disk=1.0,
)
REPORT: dict[str, Any] = {
    "node": "cpu1",
    "network": {"ahead": 0.1, "seconds": 0.002},
    "places": [
        {"path": "/data/p", "exists": True, "token": "t", "written": "w1"},
        {"path": "/data/p/results", "exists": True, "token": "t", "written": "w2"},
        {"path": "/data/p/v.zarr", "exists": True, "content": "c1"},
        {"path": "/raw/w.zarr", "exists": True, "content": "c2"},
    ],
    "disk": {"megabytes_per_second": 300.0, "free_gb": 800.0},
    "clock": {"ahead": 1.2},
    "python": {"version": "3.11.7", "executable": "/opt/python"},
    "packages": {"numpy": "2.1", "zarr": "3.1"},
    "neuroloom": {"version": "0.1.0", "folder": "/opt/neuroloom", "code": "abc"},
    "memory_gb": {"machine": 256.0, "slurm": 8.0, "cgroup": 8.0},
    "cores": 4,
    "devices": {
        "gpus": [{"name": "A100", "driver": "550.1", "memory_gb": 80.0}],
        "torch": {"torch": "2.8", "cuda": "12.8", "count": 1, "names": ["A100"], "computes": True},
    },
}
WELL = Outcome(
    address="login:4711",
    state=JobState("1_0", "COMPLETED", 0, 0, 0, "cpu1"),
    seconds=3.0,
    probe=REPORT,
    by_network=True,
    by_file=True,
    read_back={"/data/p": "w1", "/data/p/results": "w2"},
)


def trial(**job: Any) -> Trial:
    keys = {"cpus": 4, "memory_gb": 8, "gpus": 1, **job}
    return Trial("job0", ("predict",), "gpu", Job.model_validate(keys))


def wrong(outcome: Outcome, **job: Any) -> dict[str, tuple[str, str]]:
    """Severity and sentences of what is not well, by its name."""
    checks = diagnose(trial(**job), outcome, HERE)
    return {c.name: (c.severity, f"{c.what} {c.fix}") for c in checks if c.severity != "ok"}


def test_a_node_that_is_well() -> None:
    checks = diagnose(trial(setup=("true",)), WELL, HERE)
    assert {check.severity for check in checks} == {"ok"}
    assert {"node", "set-up", "python", "project", "clock", "network", "memory", "GPU"} <= {c.name for c in checks}
    assert "GPU" not in {check.name for check in diagnose(trial(gpus=0), WELL, HERE)}


@pytest.mark.parametrize(
    ("found", "name", "severity", "sentence"),
    [
        ({"python": {"version": "3.9.1", "executable": "/p"}}, "python", "warning", "3.9.1, /p; here it is 3.11.7"),
        ({"packages": {"numpy": "1.0", "zarr": None}}, "packages", "warning", "numpy 1.0 instead of 2.1, no zarr"),
        ({"neuroloom": {"error": "No module named 'zarr'"}}, "neuroloom", "problem", "by /opt/python: No module"),
        ({"neuroloom": {"version": "0.2", "folder": "/n", "code": "x"}}, "neuroloom", "problem", "here it is 0.1.0"),
        ({"neuroloom": {"version": "0.1.0", "folder": "/n", "code": "x"}}, "neuroloom", "problem", "other files"),
        ({"disk": {"megabytes_per_second": 3.0, "free_gb": 9.0}}, "write speed", "warning", "3 MB/s, 9 GB free"),
        ({"disk": {"error": "No space left on device"}}, "write speed", "problem", "64 MB could be written: No space"),
        ({"network": {"ahead": -7.0, "seconds": 0.1}}, "clock", "warning", "7.0 s behind"),
        ({"memory_gb": {"cgroup": 2.0, "slurm": 8.0}}, "memory", "problem", "2 GB (the job's limit), although 8 GB"),
        ({"memory_gb": {"machine": 4.0}}, "memory", "problem", "4 GB (all that the node has), although 8 GB"),
        ({"cores": 1}, "cores", "warning", "1, although 4 were asked for"),
        ({"devices": {"gpus": [], "nvidia_smi": "nvidia-smi: no"}}, "GPU", "problem", "None is found, although 1"),
        (
            {"devices": {**REPORT["devices"], "torch": {"torch": "2.8+cpu", "cuda": None, "count": 0}}},
            "GPU",
            "problem",
            "A100 (80 GB, driver 550.1), but PyTorch 2.8+cpu is built without CUDA. Install a PyTorch with CUDA",
        ),
        (
            {"devices": {**REPORT["devices"], "torch": {"torch": "2.8", "cuda": "12", "count": 1, "error": "too old"}}},
            "GPU",
            "problem",
            "PyTorch cannot use it (too old)",
        ),
    ],
)
def test_what_a_node_finds_out_is_judged(found: dict[str, Any], name: str, severity: str, sentence: str) -> None:
    said = wrong(dataclasses.replace(WELL, probe={**REPORT, **found}))
    assert said.keys() == {name}
    assert said[name][0] == severity
    assert sentence in said[name][1]


@pytest.mark.parametrize(
    ("number", "seen", "sentence"),
    [
        (0, {"exists": False, "error": "No such file or directory"}, "/data/p is not seen there. Mount the disk"),
        (0, {"exists": True, "error": "No such file or directory"}, "/data/p is something else there. Mount"),
        (0, {"exists": True, "token": "t", "error": "Read-only file system"}, "/data/p is not writable there (Read"),
        (0, {"exists": True, "token": "t", "written": "w9"}, "/data/p is written there, but what is written does"),
        (0, {"error": "no answer in 60 s"}, "/data/p is on a disk that does not answer there"),
        (3, {"exists": False, "content": None}, "/raw/w.zarr is not seen there. Mount the disk of /raw/w.zarr"),
        (3, {"exists": True, "content": "c9"}, "/raw/w.zarr is something else there"),
    ],
)
def test_places_that_a_node_does_not_see(number: int, seen: dict[str, Any], sentence: str) -> None:
    places = [dict(place) for place in REPORT["places"]]
    places[number] = {"path": places[number]["path"], **seen}
    if number == 0:  # of what lies in it, nothing more is said
        places[1] = {"path": places[1]["path"], **seen}
        places[2] = {"path": places[2]["path"], "exists": False, "content": None}
    said = wrong(dataclasses.replace(WELL, probe={**REPORT, "places": places}))
    assert said.keys() == {"project"}
    assert said["project"][0] == "problem"
    assert sentence in said["project"][1]


def test_a_container_may_lack_the_disk() -> None:
    places = [{**place, "exists": False, "token": None} for place in REPORT["places"]]
    said = wrong(dataclasses.replace(WELL, probe={**REPORT, "places": places}), container="/i.sif")
    assert "`container_options`" in said["project"][1]


def test_the_clock_is_compared_by_the_disk_where_there_is_no_network() -> None:
    report = {**REPORT, "network": {"error": "timed out"}, "clock": {"ahead": 10.0}}
    said = wrong(dataclasses.replace(WELL, probe=report, by_network=False))
    assert said.keys() == {"clock", "network"}
    assert "9.0 s ahead of" in said["clock"][1]
    assert "at login:4711: timed out. Set `host`" in said["network"][1]


@pytest.mark.parametrize(
    ("state", "reason", "sentence"),
    [
        ("PENDING", "Resources", "SLURM's reason: Resources. The partition is busy"),
        ("PENDING", "ReqNodeNotAvail,UnavailableNodes:n1", "Its nodes are down"),
        ("PENDING", "QOSMaxJobsPerUserLimit", "A limit of the cluster"),
        ("CONFIGURING", "", "A machine is being started, but did not come in time"),
        ("BOOT_FAIL", "", "a node that did not start (BOOT_FAIL)"),
    ],
)
def test_nodes_that_do_not_come(state: str, reason: str, sentence: str) -> None:
    waiting = JobState("1_0", state, 0, 0, 0, "")
    said = wrong(Outcome("login:4711", state=waiting, reason=reason))
    assert said.keys() == {"node"}
    assert sentence in said["node"][1]


@pytest.mark.parametrize(
    ("state", "code", "names"),
    [
        ("COMPLETED", 0, {"project", "network"}),
        ("FAILED", SETUP_ENDED, {"set-up", "project", "network"}),
        ("FAILED", PYTHON_FAILED, {"python", "project", "network"}),
        ("OUT_OF_MEMORY", 0, {"job"}),
        ("RUNNING", 0, {"job"}),
        ("FAILED", 1, {"job"}),
    ],
)
def test_of_a_silent_job_its_end_is_told(state: str, code: int, names: set[str]) -> None:
    ended = JobState("1_0", state, code, 0, 0, "cpu1")
    assert wrong(Outcome("login:4711", state=ended, seconds=1.0)).keys() == names


def test_what_fails_before_the_probe_is_told_by_one_way_alone() -> None:
    failed = Failed(127, 0, True, "cpu1", "/var/spool/job1/slurm_script: line 30: /opt/p: No such file or directory")
    outcome = Outcome("login:4711", seconds=1.0, python=failed, by_network=True)
    said = wrong(outcome, python="/opt/p")
    assert said.keys() == {"python", "project"}
    assert "/opt/p does not run there: /opt/p: No such file or directory Set `python`" in said["python"][1]
    assert "project" not in wrong(dataclasses.replace(outcome, by_network=False, by_file=True))
    killed = dataclasses.replace(outcome, python=dataclasses.replace(failed, code=137))
    assert "set `memory_gb` higher" in wrong(killed)["python"][1]
    assert "apptainer" in wrong(outcome, container="/i.sif")["python"][1]


def test_each_partition_is_tried_once_by_the_largest_worker() -> None:
    profile = Profile.model_validate(
        {
            "kind": "slurm",
            "memory_gb": 4,
            "minutes": 600,
            "predict": {"partition": "gpu", "gpus": 1},
            "agglomerate": {"spot_partition": "spot", "memory_gb": 16, "cpus": 2},
            "segment": {"partition": "cpu", "cpus": 8, "minutes": 5},
        }
    )
    tried = {one.title: one.job for one in trials_of(profile, "cpu")}
    assert list(tried) == ["gpu (predict)", "cpu (fragments, agglomerate, segment, train)", "spot (agglomerate)"]
    cpu = tried["cpu (fragments, agglomerate, segment, train)"]
    assert (cpu.memory_gb, cpu.cpus, cpu.gpus, cpu.minutes) == (16, 8, 0, 5)
    assert (tried["gpu (predict)"].gpus, tried["gpu (predict)"].minutes) == (1, 10)
    profile = profile.model_copy(update={"train": TrainJob(partition="gpu", gpus=4, nodes=2)})
    trained = {one.title: one.job for one in trials_of(profile, "cpu")}["gpu (predict, train)"]
    assert (trained.gpus, trained.model_dump().get("nodes", 1)) == (4, 1)
    other = profile.model_copy(update={"segment": Job.model_validate({"partition": "cpu", "setup": ["module load x"]})})
    assert [one.title for one in trials_of(other, "cpu")][-1] == "cpu (segment)"


def run_script(folder: Path, job: Job, answers: Answers) -> subprocess.CompletedProcess[str]:
    """What SLURM would do with a trial."""
    mark = folder / "mark"
    mark.mkdir()
    (mark / "token").write_text("t")
    to = {"token": answers.token, "host": "127.0.0.1", "port": answers.port}
    one = Trial("job0", ("predict",), "cpu", job)
    places = [{"path": str(folder)}, {"path": str(folder / "none"), "content": ""}]
    script = trial_script(one, places, ["numpy"], "mark", mark, **to)
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=False, timeout=600)
    end = time.monotonic() + 10
    while not {kind for _, kind in answers.heard} >= read_answers(mark, "job0").keys() and time.monotonic() < end:
        time.sleep(0.05)
    return done


def test_the_script_tells_both_ways(tmp_path: Path) -> None:
    with Answers() as answers:
        done = run_script(tmp_path, Job(setup=("A=1\nB=2", "false", "set -eu")), answers)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    told = read_answers(tmp_path / "mark", "job0")
    assert told == {kind: answers.heard["job0", kind] for kind in ("setup", "probe")}
    code, line, *_ = told["setup"].split()
    assert code == "1"
    assert setup_line(Trial("job0", ("predict",), "cpu", Job(setup=("A=1\nB=2", "false"))), int(line)) == "false"
    found = json.loads(told["probe"])
    seen, missing = found["places"]
    assert (seen["token"], seen["written"]) == ("t", (tmp_path / "mark" / "job0").read_text())
    assert missing == {"path": str(tmp_path / "none"), "exists": False, "content": None}
    assert found["neuroloom"]["code"] == probe.code_of(found["neuroloom"]["folder"])
    assert abs(found["network"]["ahead"]) < 1
    assert found["disk"]["megabytes_per_second"] > 0
    assert {file.name for file in (tmp_path / "mark").iterdir()} == {"token", "job0", "job0.setup", "job0.probe"}


@pytest.mark.parametrize(
    ("setup", "python", "code", "kind", "word"),
    [
        ("exit 3", sys.executable, SETUP_ENDED, "setup", "3 0 ended"),
        ("true", "/opt/no-such-python", PYTHON_FAILED, "python", "127 0 ended"),
    ],
)
def test_the_script_tells_what_ended_it(
    tmp_path: Path, setup: str, python: str, code: int, kind: str, word: str
) -> None:
    with Answers() as answers:
        done = run_script(tmp_path, Job(setup=(setup,), python=python), answers)
    assert done.returncode == code
    assert answers.heard.keys() == {("job0", kind)}
    assert answers.heard["job0", kind].startswith(word)
    assert read_answers(tmp_path / "mark", "job0")[kind].startswith(word)


def test_the_probe_reaches_the_python_of_a_container(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "apptainer"
    program.parent.mkdir()
    program.write_text('#!/bin/bash\n[ "$1 $2 $3" = "exec --bind=/data /i.sif" ] && shift 3 && exec "$@"\n')
    program.chmod(0o755)
    setup = (f"export PATH={program.parent}:$PATH",)
    job = Job(container="/i.sif", container_options=("--bind=/data",), python=sys.executable, setup=setup)
    with Answers() as answers:
        done = run_script(tmp_path, job, answers)
    assert done.returncode == 0
    assert json.loads(answers.heard["job0", "probe"])["python"]["executable"] == sys.executable


def test_who_does_not_know_the_token_is_not_heard() -> None:
    with Answers() as answers, socket.create_connection(("127.0.0.1", answers.port)) as connection:
        connection.sendall(b"guess job0 probe\n{}")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(10) == b""
    assert answers.heard == {}


@dataclasses.dataclass(frozen=True)
class Told:
    file: Path

    def __call__(self, *, context: Any) -> None:
        self.file.write_text(str(context["hostname"]))
        client = daisy.v2.Client(context)
        block: object = ""
        while block is not None:
            with client.acquire_block() as block:
                pass


def test_nodes_try_the_address_that_daisy_tells_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAISY_HOST", raising=False)
    monkeypatch.setattr(daisy.logging, "LOG_BASEDIR", None)
    one = Roi((0,), (1,))
    task = daisy.v2.Task("one", one, one, one, process_function=Told(tmp_path / "host"), max_workers=1)
    daisy.v2.run_blockwise(task, progress=False, summary=False, block_tracking=False)
    with Answers() as answers:
        assert answers.address == (tmp_path / "host").read_text()
    monkeypatch.setenv("DAISY_HOST", "login.lab")
    with Answers() as answers:
        assert answers.address == "login.lab"


def test_old_pythons_can_read_the_probe() -> None:
    tree = ast.parse(inspect.getsource(probe), feature_version=(3, 6))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported <= set(sys.stdlib_module_names)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):  # such types are no Python of then
            hints = [node.returns, *(argument.annotation for argument in node.args.args)]
            assert all(hint is None or not isinstance(hint, ast.Subscript | ast.BinOp) for hint in hints)


def test_the_lowest_limit_of_control_groups_counts(tmp_path: Path) -> None:
    for folder, limit in (("job_1", "8000"), ("job_1/step", "max")):
        (tmp_path / "slurm" / folder).mkdir(parents=True)
        (tmp_path / "slurm" / folder / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "groups").write_text("0::/slurm/job_1/step\n")
    assert probe.group_limit(str(tmp_path / "groups"), str(tmp_path)) == 8000
    (tmp_path / "memory" / "job_2").mkdir(parents=True)
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text(str(2**63 - 4096))
    (tmp_path / "memory" / "job_2" / "memory.limit_in_bytes").write_text("7000")
    (tmp_path / "groups").write_text("4:cpu,cpuacct:/job_2\n3:memory:/job_2\n")
    assert probe.group_limit(str(tmp_path / "groups"), str(tmp_path)) == 7000
    (tmp_path / "groups").write_text("3:memory:/\n")
    assert probe.group_limit(str(tmp_path / "groups"), str(tmp_path)) is None


def test_everything_that_workers_touch_is_looked_at(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "p", {"graph": {"store": "sqlite:../graphs/g.sqlite"}})
    (tmp_path / "graphs").mkdir()
    (folder / "results").mkdir()
    places = places_of(load_project(folder))
    assert [place.path for place in places if place.content is None] == [
        str(folder),
        str(folder / "results"),
        str(tmp_path / "graphs"),
    ]
    contents = {place.path: place.content for place in places if place.content}
    assert {str(folder / "data" / f"{name}.zarr") for name in ("train", "val")} <= contents.keys()
    assert len(set(contents.values())) >= 3  # the shapes of the two images differ


def test_a_local_profile_submits_nothing(tmp_path: Path, call: Any) -> None:
    folder = make_project(tmp_path)
    code, out, _ = call("cluster", "doctor", "local", "--project", folder)
    assert code == 0
    assert "workers on this machine: there is nothing to submit" in out
    assert "MB/s" in out
    assert not list(folder.rglob(".neuroloom-doctor-*"))


def test_checks_have_a_sentence_that_fixes_each_problem() -> None:
    outcomes = [
        dataclasses.replace(WELL, probe={**REPORT, "places": [], "devices": {}, "neuroloom": {"error": "no"}}),
        Outcome("login:4711"),
        Outcome("login:4711", seconds=1.0),
    ]
    problems: list[Check] = []
    for outcome in outcomes:
        problems += [check for check in diagnose(trial(), outcome, HERE) if check.severity == "problem"]
    assert len(problems) >= 5
    assert all(check.fix for check in problems)
