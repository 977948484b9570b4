"""Freed memory stays in the process; bytes of tensors are counted as long as they are there."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from neuroloom.networks.memory import LiveBytes

PROGRAM = """
import resource, sys
import numpy as np
from neuroloom.blockwise.allocation import keep_freed_memory

assert keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(64 * 2**20, dtype=np.uint8).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(), faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_second_array_gets_the_pages_of_the_first() -> None:
    output = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    first, second = (int(n) for n in output.split())
    assert second < first / 10


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_bytes_are_counted_while_anything_uses_them(device: str) -> None:
    with LiveBytes() as live:
        whole = torch.zeros(1000, device=device)
        part = whole[10:]  # shares its memory
        assert live.most == 4000
        del whole
        other = torch.zeros(500, device=device)
        assert live.most == 6000
        del part
        more = torch.zeros(800, device=device)
        assert live.most == 6000  # 2000 + 3200 are less
        more.add_(1)
        largest = torch.zeros(1000, device=device)
        assert live.most == 2000 + 3200 + 4000
    del other, more, largest
