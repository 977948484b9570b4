"""Workers that are forked: what they have, how they end, and who ends with whom."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from neuroloom.forking import StandIn, fork_server

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")

FUNCTIONS = """\
import json, os, sys, time
from pathlib import Path

def look(file):
    print("to standard output")
    print("to standard error", file=sys.stderr)
    seen = {"pid": os.getpid(), "parent": os.getppid(), "folder": os.getcwd()}
    seen["value"] = os.environ.get("NEUROLOOM_SEEN")
    seen["loaded"] = "neuroloom.blockwise.preload" in sys.modules
    Path(file).write_text(json.dumps(seen))

def fail(how):
    if how == "raise":
        raise ValueError("no good")
    if how == "kill":
        os.kill(os.getpid(), 9)
    sys.exit("words" if how == "words" else int(how))

def stay(file):
    Path(file).write_text(str(os.getpid()))
    time.sleep(600)
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "functions_of_a_test.py").write_text(FUNCTIONS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    return tmp_path


@pytest.fixture
def address(functions: Path) -> Iterator[str]:
    """Of a fork server that one process has started, and that ends with it."""
    if sys.platform != "linux":
        pytest.skip("elsewhere nothing is forked")
    code = "import sys; from neuroloom.forking import fork_server; print(fork_server(), flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as starter:
        assert starter.stdout is not None
        place = starter.stdout.readline().strip()
        yield place
        starter.communicate("")
    assert not Path(place).parent.exists()


def call(address: str | None, function: str, *arguments: str, loads: tuple[str, ...] = ()) -> list[str]:
    """The command that calls a stand-in, as daisy does."""
    stand_in = StandIn(address, "functions_of_a_test", function, arguments, loads)
    return [sys.executable, "-c", f"from neuroloom.forking import StandIn; {stand_in!r}()"]


def wait_for(file: Path) -> psutil.Process:
    """The process whose number a file says."""
    deadline = time.monotonic() + 60
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return psutil.Process(int(file.read_text()))


def test_a_worker_has_what_was_loaded_and_what_its_stand_in_has(address: str, functions: Path) -> None:
    seen = []
    for name, loads in (("first", ()), ("second", ("neuroloom.blockwise.preload", "no.such.module"))):
        environment = {**os.environ, "NEUROLOOM_SEEN": name}
        command = call(address, "look", str(functions / name), loads=loads)
        with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=environment, cwd="/usr") as stand_in:
            said, complained = stand_in.communicate(timeout=600)
        assert stand_in.returncode == 0, complained
        assert (said, complained) == ("to standard output\n", "to standard error\n")
        seen.append(json.loads((functions / name).read_text()))
        assert seen[-1]["value"] == name
        assert seen[-1]["folder"] == "/usr"
        assert seen[-1]["pid"] != stand_in.pid
        assert seen[-1]["loaded"] is bool(loads)
    assert seen[0]["parent"] == seen[1]["parent"]
    assert seen[0]["pid"] != seen[1]["pid"]


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [("raise", 1, "ValueError: no good"), ("3", 3, ""), ("0", 0, ""), ("words", 1, "words"), ("kill", -9, "")],
)
class TestEnds:
    """A stand-in ends as its worker, and as it would be one."""

    def test_forked(self, address: str, how: str, code: int, words: str) -> None:
        self.check(address, how, code, words)

    def test_itself(self, functions: Path, how: str, code: int, words: str) -> None:
        self.check(None, how, code, words)

    def check(self, address: str | None, how: str, code: int, words: str) -> None:
        command = call(address, "fail", how)
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == code
        assert words in done.stderr


def test_a_worker_ends_with_its_stand_in(address: str, functions: Path) -> None:
    with subprocess.Popen(call(address, "stay", str(functions / "a"))) as stand_in:
        worker = wait_for(functions / "a")
        assert worker.ppid() != stand_in.pid
        stand_in.kill()
    worker.wait(30)
    # and the server goes on
    assert subprocess.run(call(address, "fail", "4"), timeout=600, check=False).returncode == 4


def test_workers_end_with_the_server_and_others_do_without(address: str, functions: Path) -> None:
    with subprocess.Popen(call(address, "stay", str(functions / "a"))) as stand_in:
        worker = wait_for(functions / "a")
        server = psutil.Process(worker.ppid())
        server.kill()
        worker.wait(30)
        assert stand_in.wait(30) == 70
    done = subprocess.run(call(address, "look", str(functions / "b")), capture_output=True, timeout=600, check=True)
    assert done.stdout == b"to standard output\n"


def test_a_server_that_hangs_up_is_no_success(functions: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(functions / "socket"))
        listener.listen(1)
        with subprocess.Popen(call(str(functions / "socket"), "fail", "0")) as stand_in:
            listener.accept()[0].close()
            assert stand_in.wait(60) == 70


def test_it_forks_on_linux_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert fork_server() is None


def test_a_stand_in_loads_next_to_nothing() -> None:
    code = "import sys; from neuroloom.forking import StandIn; print('numpy' in sys.modules, len(sys.modules) < 150)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False True\n"


@linux
def test_without_a_place_for_a_socket_there_is_none(functions: Path) -> None:
    long = functions / ("a" * 100)
    long.mkdir()
    code = "from neuroloom.forking import fork_server; print(fork_server())"
    environment = {**os.environ, "TMPDIR": str(long)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "None\n"
    assert not list(long.iterdir())


@linux
def test_all_end_with_who_started_them(functions: Path) -> None:
    code = textwrap.dedent(
        """
        import subprocess, sys
        from neuroloom.forking import StandIn, fork_server
        stand_in = StandIn(fork_server(), "functions_of_a_test", "stay", (sys.argv[1],))
        subprocess.run([sys.executable, "-c", f"from neuroloom.forking import StandIn; {stand_in!r}()"])
        """
    )
    environment = {**os.environ, "TMPDIR": str(functions / "temporary")}
    (functions / "temporary").mkdir()
    with subprocess.Popen([sys.executable, "-c", code, functions / "a"], env=environment) as starter:
        worker = wait_for(functions / "a")
        server = psutil.Process(worker.ppid())
        starter.send_signal(signal.SIGKILL)
    worker.wait(30)
    server.wait(30)
    assert not list((functions / "temporary").iterdir())


@linux
def test_there_is_one_for_what_libraries_look_for_when_they_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    one = fork_server()
    assert one is not None
    monkeypatch.setenv("NEUROLOOM_SEEN", "1")
    assert fork_server() == one
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    other = fork_server()
    assert other not in (None, one)
    assert fork_server() == other
