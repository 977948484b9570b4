"""How commands end: every end has words and an exit code."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from neuroloom import cli
from neuroloom.errors import BlocksFailed, Interrupted, UserError


@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        (UserError("Choose another name."), 2, "Choose another name.\n"),
        (BlocksFailed("1 block failed."), 1, "1 block failed.\n"),
        (Interrupted("Stopped after step 3."), 130, "Stopped after step 3.\n"),
        (SystemExit(130), 130, "Stopped. Run the same command again.\n"),
        (SystemExit(2), 2, ""),
        (ZeroDivisionError("x"), 1, "This should not have happened (ZeroDivisionError: x). What was finished is kept."),
        (OSError(36, "", "n" * 9), 2, "The name nnnnnnnnn is too long for a file or folder. Choose a shorter one.\n"),
    ],
)
def test_every_end_has_its_words(
    end: BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def app() -> None:
        raise end

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "argv", ["neuroloom"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    assert capsys.readouterr().err.startswith(words)


def test_ctrl_c_while_importing_leaves_nothing_and_says_so(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(1, 255, (700, 700), np.uint8)  # takes a while to compress
    np.save(tmp_path / "raw.npy", np.broadcast_to(noise, (600, 700, 700)), allow_pickle=False)
    # a shell that started the tests in the background would have switched Ctrl-C off for all that they start
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += "from neuroloom.cli import main; main()"
    command = [sys.executable, "-c", program, "import", "o.zarr", "--raw", "raw.npy", "--voxel-size", "8,8,8"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob(".o.zarr.import/partial.zarr/volumes/raw/c/*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert (process.returncode, errors.splitlines()[-1:]) == (130, ["Stopped. Run the same command again."])
    assert [file.name for file in tmp_path.iterdir()] == ["raw.npy"]
