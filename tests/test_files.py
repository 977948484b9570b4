"""Locks: one owner, who gives signs of life; silent ones are taken over on request, and their owners stop."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuroloom import files
from neuroloom.errors import UserError
from neuroloom.files import holds, lock, read_owner, take_away, write_text


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(files, "SILENT_SECONDS", 0.6)


def left_behind(path: Path, beat: int = 3) -> None:
    """The lock of a run on another machine."""
    write_text(path, json.dumps({"host": "elsewhere", "pid": 1, "started": "then", "run": "theirs", "beat": beat}))


def test_an_owner_gives_signs_of_life_and_leaves_nothing(tmp_path: Path) -> None:
    with lock(tmp_path / "lock", "a test") as run:
        first = read_owner(tmp_path / "lock")
        assert first["run"] == run
        time.sleep(0.5)
        assert read_owner(tmp_path / "lock")["beat"] > first["beat"]
    assert list(tmp_path.iterdir()) == []


def test_a_silent_lock_of_another_machine_is_taken_over_on_request_only(tmp_path: Path) -> None:
    left_behind(tmp_path / "lock")
    with pytest.raises(UserError, match=r"no sign of life.*--take-over"), lock(tmp_path / "lock", "a test"):
        pass
    with lock(tmp_path / "lock", "a test", take_over=True) as run:
        assert read_owner(tmp_path / "lock")["run"] == run


def test_a_lock_that_gives_signs_of_life_is_never_taken_over(tmp_path: Path) -> None:
    ended = threading.Event()

    def beat() -> None:
        number = 0
        while not ended.wait(0.05):
            left_behind(tmp_path / "lock", number := number + 1)

    left_behind(tmp_path / "lock", 0)
    other = threading.Thread(target=beat)
    other.start()
    try:
        message = "Another run is writing.*process 1 on elsewhere"
        with pytest.raises(UserError, match=message), lock(tmp_path / "lock", "a test", take_over=True):
            pass
    finally:
        ended.set()
        other.join()


def test_a_slurm_job_that_was_started_again_takes_its_own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    owner = {"host": "elsewhere", "pid": 1, "started": "then", "run": "theirs", "beat": 3, "job": "12", "restart": 0}
    write_text(tmp_path / "lock", json.dumps(owner))
    began = time.monotonic()
    with lock(tmp_path / "lock", "a test") as run:
        assert time.monotonic() - began < 0.3  # without looking whether it is silent
        assert {"job": "12", "restart": 1, "run": run}.items() <= read_owner(tmp_path / "lock").items()
    for other in ({"job": "13"}, {"restart": 1}):  # another job, another program in this one
        write_text(tmp_path / "lock", json.dumps({**owner, **other}))
        with (
            pytest.raises(UserError, match=r"on elsewhere, SLURM job 1\d, since then"),
            lock(tmp_path / "lock", "a test"),
        ):
            pass


@contextlib.contextmanager
def interrupted() -> Iterator[None]:
    """What is in it must be interrupted; what a shell starts in the background would ignore that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_lock_of_a_job_that_has_ended_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")

    def hold() -> None:
        with lock(tmp_path / "lock", "a test") as run:
            take_away(tmp_path / "lock", "13")
            assert holds(tmp_path / "lock", run)
            take_away(tmp_path / "lock", "12")
            assert not holds(tmp_path / "lock", run)
            time.sleep(10)

    with interrupted():
        hold()
    assert list(tmp_path.iterdir()) == []


def test_an_owner_whose_lock_was_taken_over_is_interrupted_and_leaves_it(tmp_path: Path) -> None:
    def hold() -> None:
        with lock(tmp_path / "lock", "a test"):
            for _ in range(100):  # again, should a sign of life have been on its way
                left_behind(tmp_path / "lock")
                time.sleep(0.1)

    with interrupted():
        hold()
    assert read_owner(tmp_path / "lock")["run"] == "theirs"


@pytest.mark.parametrize("pid", [None, "12", -1])
def test_a_lock_of_this_machine_that_names_no_process_is_taken_over(tmp_path: Path, pid: object) -> None:
    write_text(tmp_path / "lock", json.dumps({"host": socket.gethostname(), "pid": pid}))
    assert not files.seems_alive(tmp_path / "lock")
    with lock(tmp_path / "lock", "a test") as run:
        assert holds(tmp_path / "lock", run)
