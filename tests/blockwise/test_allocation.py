"""How much a process has taken: its own, not that of the one that started it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from neuroloom.blockwise.allocation import most_taken

SCRIPT = """
from neuroloom.blockwise.allocation import most_taken
before = most_taken()
bytearray(b"x" * 300_000_000)
print(before, most_taken())
"""


def test_most_taken_is_the_process_s_own() -> None:
    much = np.ones(10**9, np.uint8)
    assert most_taken() >= 10**9
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    before, after = map(int, done.stdout.split())
    assert before < len(much) / 2
    assert before + 3e8 <= after < before + 1e9
