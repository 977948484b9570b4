"""Locks: one owner, who gives signs of life; silent ones are taken over on request, and their owners stop."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path

import pytest

from neuroloom import files
from neuroloom.errors import UserError
from neuroloom.files import lock, read_owner, write_text


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


def test_an_owner_whose_lock_was_taken_over_is_interrupted_and_leaves_it(tmp_path: Path) -> None:
    def hold() -> None:
        with lock(tmp_path / "lock", "a test"):
            for _ in range(100):  # again, should a sign of life have been on its way
                left_behind(tmp_path / "lock")
                time.sleep(0.1)

    # what a shell starts in the background ignores it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            hold()
    finally:
        signal.signal(signal.SIGINT, before)
    assert read_owner(tmp_path / "lock")["run"] == "theirs"
