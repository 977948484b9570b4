"""How long a block kept its GPU busy, and how much of its memory it took; nothing where no GPU is used.

torch is not imported for it: a process that has not imported it uses no GPU. Memory is what torch counts. How busy the
GPU is, `nvidia-smi` tells twice a second, to a thread:

    nvidia-smi --loop-ms=500  ->  "GPU-a1b2..., 87"  ->  busy += 0.87 * seconds since the last line
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from typing import Any

_COMMAND = ("nvidia-smi", "--query-gpu=uuid,utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=500")


class GpuMeter:
    """Of one process; `begin` and `end` go around each block."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.lock = threading.Lock()
        self.busy: dict[str, float] = {}
        self.before: dict[str, float] = {}

    def begin(self) -> None:
        """A block begins."""
        cuda = _cuda()
        if cuda is None:
            return
        if self.thread is None and shutil.which(_COMMAND[0]):
            self.thread = threading.Thread(target=self._listen, daemon=True)
            self.thread.start()
        with self.lock:
            self.before = dict(self.busy)
        if cuda.is_initialized():
            for device in range(cuda.device_count()):
                cuda.reset_peak_memory_stats(device)

    def end(self) -> tuple[float | None, int | None]:
        """A block has ended.

        Returns:
            Seconds in which the GPU computed, of those that are used the sum, and bytes of memory at most; None where
            no GPU is used, or nobody tells.
        """
        cuda = _cuda()
        if cuda is None or not cuda.is_initialized():
            return None, None
        memory = {device: int(cuda.max_memory_allocated(device)) for device in range(cuda.device_count())}
        used = [f"GPU-{cuda.get_device_properties(device).uuid}" for device, taken in memory.items() if taken]
        with self.lock:
            busy = [self.busy[name] - self.before.get(name, 0.0) for name in used if name in self.busy]
        return (round(sum(busy), 3) if busy else None), sum(memory.values())

    def _listen(self) -> None:
        """Add up what nvidia-smi tells, until it ends; it does so when this process, which reads, has ended."""
        last: dict[str, float] = {}
        with subprocess.Popen(_COMMAND, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as told:
            assert told.stdout is not None
            for line in told.stdout:
                name, _, percent = (part.strip() for part in line.partition(","))
                now = time.monotonic()
                if percent.isdigit():  # not for a part of a GPU
                    with self.lock:
                        busy = self.busy.get(name, 0.0)
                        self.busy[name] = busy + int(percent) / 100 * (now - last.get(name, now))
                last[name] = now


def _cuda() -> Any:
    """`torch.cuda`, where this process has imported torch and that is built for GPUs of NVIDIA; else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.backends.cuda.is_built() else None
