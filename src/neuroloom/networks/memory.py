"""How much memory a device has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch


def memory_there(device: torch.device) -> int:
    """Bytes that a device has, taken or not."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().total)
    import torch

    return int(torch.cuda.mem_get_info(device)[1])
