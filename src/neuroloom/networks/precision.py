"""Which device and which number format: a GPU where there is one, bf16 where the processor computes in it.

fp16 has the digits but not the range of bf16: training multiplies its loss by a scale that follows the gradients.

PyTorch is loaded by the first question that it has to answer: most commands ask none.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, get_args

from neuroloom.errors import UserError

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16", "fp16"]


def devices(wanted: str) -> list[str]:
    """Names of devices.

    Args:
        wanted: "auto" (all GPUs, else the processor), or names separated by commas.
    """
    if wanted == "auto":
        import torch

        return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]
    return [name.strip() for name in wanted.split(",")]


def choose_device(wanted: str = "auto") -> torch.device:
    """The device to compute on.

    Args:
        wanted: "auto" takes a GPU where there is one, else what torch calls the device: "cpu", "cuda:1"; of several,
            separated by commas, the first.

    Raises:
        UserError: There is no such device.
    """
    import torch

    wanted = wanted.split(",")[0].strip()  # of several devices, the first
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"The device {wanted!r} is not to be had on this machine. "
            'Use "auto", "cpu" or "cuda" in `resources.device`.'
        ) from error
    return device


def choose_precision(device: torch.device, wanted: str = "auto") -> Precision:
    """The number format of convolutions.

    Args:
        device: From `choose_device`.
        wanted: "fp32", "bf16", "fp16", or "auto": bf16 on GPUs from compute capability 8 on and on processors with
            AMX or AVX-512 bf16 instructions, fp16 on GPUs of capability 7, fp32 elsewhere. Processors take fp32 for
            what they have no instructions for: emulated, it takes more than fifty times as long, and a project may go
            from machine to machine.
    """
    if device.type == "cpu":
        return "bf16" if wanted in ("bf16", "auto") and _cpu_has_bf16() else "fp32"
    for known in get_args(Precision):
        if wanted == known:
            return known
    if device.type == "cuda":
        import torch

        capability = torch.cuda.get_device_capability(device)[0]
        return "bf16" if capability >= 8 else "fp16" if capability == 7 else "fp32"
    return "fp32"


def number_format(precision: Precision) -> torch.dtype:
    """What torch calls it."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """A context in which convolutions run in the precision."""
    if precision == "fp32":
        return contextlib.nullcontext()
    import torch

    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def _cpu_has_bf16() -> bool:
    import torch

    return any(
        bool(getattr(torch.cpu, name, lambda: False)())
        for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )
