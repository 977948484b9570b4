"""How much a process has taken, its own and not that of the one that started it; freed memory stays in it."""

from __future__ import annotations

import platform
import subprocess
import sys

import numpy as np
import pytest

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


PROGRAM = """
import resource
from neuroloom.blockwise.allocation import keep_freed_memory, keeping_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    len(b"x" * (64 * 2**20))  # an array of NumPy might come in huge pages, which are few
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def now():
    return 4096 * int(open("/proc/self/statm").read().split()[1])
before = now()
with keeping_freed_memory():
    print(faults(), faults())
    assert now() > before + 50e6
assert now() < before + 10e6
print(faults(), faults())
assert keep_freed_memory()
with keeping_freed_memory():
    print(faults(), faults())
assert now() > before + 50e6
print(faults(), faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_second_array_gets_the_pages_of_the_first() -> None:
    output = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    (first, second), (gone, again), (third, fourth), (fifth, sixth) = (
        map(int, line.split()) for line in output.splitlines()
    )
    assert second < first / 10  # kept for a while
    assert min(gone, again) > first / 2  # and given back
    assert fourth < third / 10  # kept for good,
    assert max(fifth, sixth) < first / 10  # whoever keeps it for a while meanwhile
