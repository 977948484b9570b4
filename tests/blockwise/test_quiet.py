"""Standard error of compiled code, kept in a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from neuroloom.blockwise.quiet import standard_error_in

SCRIPT = """
import os, sys
from pathlib import Path
from neuroloom.blockwise.quiet import standard_error_in
os.write(2, b"before ")
with standard_error_in(Path(sys.argv[1]) / "logs" / "it.err"):
    os.write(2, b"compiled")
    print("python", file=sys.stderr, flush=True)
    subprocess = __import__("subprocess")
    subprocess.run(["sh", "-c", "echo child >&2"])
os.write(2, b"after ")
print("python again", file=sys.stderr)
"""


def test_only_what_python_says_reaches_the_terminal(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=True)
    assert ran.stderr == "before python\nafter python again\n"
    assert (tmp_path / "logs" / "it.err").read_text() == "compiledchild\n"


def test_errors_go_on_and_a_folder_that_cannot_be_made_is_no_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="boo"), standard_error_in(tmp_path / "file" / "it.err"):
        raise ValueError("boo")
    print("still there", file=sys.stderr)
    assert "still there" in capfd.readouterr().err
