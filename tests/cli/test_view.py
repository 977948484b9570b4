"""`neuroloom view` from the command line."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from neuroloom.cli.view import describe, parse_layer
from neuroloom.errors import UserError
from neuroloom.viewing import Viewer
from neuroloom.volume import create_volume

RUN = "import typer; from neuroloom.cli.view import view_command; typer.run(view_command)"


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    create_volume(tmp_path / "a.zarr", "volumes/raw", (4, 4, 4), np.uint8, (8, 8, 8))
    return tmp_path / "a.zarr"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_it_shows_until_it_is_stopped(volume: Path, sent: signal.Signals) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SSH_CONNECTION"}
    command = [sys.executable, "-c", RUN, "--layer", f"raw={volume}:volumes/raw", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            lines = []
            while not (lines and "Ctrl-C" in lines[-1]):
                lines.append(process.stdout.readline())
                assert lines[-1], lines
            assert any("raw  4 x 4 x 4 voxels of 8 x 8 x 8 nm" in line for line in lines)
            (url,) = [line.strip() for line in lines if "http://127.0.0.1:" in line]
            with urllib.request.urlopen(url, timeout=10) as page:
                assert page.status == 200
            process.send_signal(sent)
            assert process.wait(60) == 0
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux sends a signal to a thread of another process")
def test_a_signal_that_another_thread_gets_stops_it(volume: Path) -> None:
    """The system gives a signal to any thread, seldom to another than the first; here it always does."""
    environment = {name: value for name, value in os.environ.items() if name != "SSH_CONNECTION"}
    command = [sys.executable, "-c", RUN, "--layer", f"raw={volume}:volumes/raw", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            while "Ctrl-C" not in (line := process.stdout.readline()):
                assert line
            time.sleep(1)  # for the first thread to wait
            other = max(int(thread.name) for thread in Path(f"/proc/{process.pid}/task").iterdir())
            assert other != process.pid
            assert ctypes.CDLL(None).tgkill(process.pid, other, signal.SIGTERM) == 0
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_over_ssh_the_tunnel_is_told(volume: Path) -> None:
    layer = parse_layer(f"raw={volume}:volumes/raw")
    text = describe(Viewer("http://127.0.0.1:7000/v/x/", (7000, 7001), (layer,), None, lambda: None), remote=True)
    assert "ssh -N -L 7000:127.0.0.1:7000 -L 7001:127.0.0.1:7001 " in text
    assert "ssh -N" not in describe(Viewer("http://u", (1, 2), (layer,), None, lambda: None), remote=False)


@pytest.mark.parametrize("text", ["raw", "raw=a.zarr", "=a.zarr:raw", "raw=:raw", "raw=a.zarr:"])
def test_a_layer_that_cannot_be_read(text: str) -> None:
    with pytest.raises(UserError, match="NAME=PATH:DATASET"):
        parse_layer(text)
