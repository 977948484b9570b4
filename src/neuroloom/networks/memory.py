"""How much memory a device has, and how much tensors take."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode


def memory_there(device: torch.device) -> int:
    """Bytes that a device has, taken or not."""
    return int(torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else psutil.virtual_memory().total)


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is on, counts the memory of all tensors that operations make and that are still there; views share it.

    On the device "meta" nothing is computed, and counting takes no memory and next to no time.

    Attributes:
        most: Bytes that were there at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._now = 0
        self._users: Counter[int] = Counter()
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it made."""
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor) and id(tensor) not in self._known:
                storage = tensor.untyped_storage()
                place, size = storage._cdata, storage.nbytes()
                self._known.add(id(tensor))
                if not self._users[place]:
                    self._now += size
                self._users[place] += 1
                weakref.finalize(tensor, self._gone, id(tensor), place, size)
        self.most = max(self.most, self._now)
        return result

    def _gone(self, tensor: int, place: int, size: int) -> None:
        self._known.remove(tensor)
        self._users[place] -= 1
        if not self._users[place]:
            self._now -= size
