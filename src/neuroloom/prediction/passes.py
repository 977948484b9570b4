"""What lies between convolutions on a processor, in one pass through memory each.

Values are `(1, c, z, y, x)` with the channels of a voxel side by side. PyTorch makes three or four passes of the same,
through arrays of float32; with matrix instructions that takes as long as the convolutions. On the device "meta", where
there are no values, nothing is done.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neuroloom.volume.array import Triple

INTEGERS = {
    torch.float32: torch.int32,
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
    torch.uint8: torch.uint8,
}
"""Of the same size: kernels compare and move bits."""

WIDE = torch.complex128
"""The largest numbers that there are."""


def copy(place: torch.Tensor, values: torch.Tensor) -> None:
    """Write values into a place that has other channels beside them: sixteen bytes at once, where that is possible.

    Args:
        place: `(1, c, z, y, x)`.
        values: Of the same extent and number format.
    """
    both = [tensor.permute(0, 2, 3, 4, 1) for tensor in (place, values)]
    steps = [(*tensor.stride()[:-1], tensor.shape[-1], tensor.storage_offset()) for tensor in both]
    if all(step * values.itemsize % WIDE.itemsize == 0 for step in itertools.chain(*steps)):
        both = [tensor.view(WIDE) for tensor in both]
    both[0].copy_(both[1])


def pool(values: torch.Tensor, factor: Triple, place: torch.Tensor) -> None:
    """The largest of every `factor` voxels.

    Args:
        values: `(1, c, z, y, x)`, not negative.
        factor: z y x.
        place: Where the result goes, `(1, c, z // factor, …)`.
    """
    if not place.numel() or values.is_meta:
        return
    if values.device.type != "cpu":
        place.copy_(torch.nn.functional.max_pool3d(values, factor))
        return
    from neuroloom.prediction.kernels import pool_rows

    _share(pool_rows, _voxels(values), factor, _voxels(place))


def looks_up(values: torch.Tensor) -> bool:
    """Whether values can be looked up: there are few different ones, and they are a processor's."""
    return values.device.type in ("cpu", "meta") and values.itemsize <= 2


def look_up(values: torch.Tensor, table: torch.Tensor, place: torch.Tensor) -> None:
    """`table[values]`, of values that `looks_up` says yes to.

    Args:
        values: `(1, c, z, y, x)` of eight or sixteen bits.
        table: What becomes of each of their patterns.
        place: Where the result goes, of the same extent.
    """
    if values.is_meta:
        return
    from neuroloom.prediction.kernels import look_up_rows

    numbers = _voxels(values)
    unsigned = numbers.view(np.uint16) if numbers.dtype == np.int16 else numbers
    _share(look_up_rows, unsigned, table.view(INTEGERS[table.dtype]).numpy(), _voxels(place))


def _voxels(values: torch.Tensor) -> NDArray[Any]:
    """`(z, y, x, c)` integers, the same memory."""
    found: NDArray[Any] = values[0].permute(1, 2, 3, 0).view(INTEGERS[values.dtype]).numpy()
    return found


def _share(kernel: Callable[..., None], values: NDArray[Any], how: Any, place: NDArray[Any]) -> None:
    """Let threads fill in rows, each its own."""
    rows, threads = place.shape[0] * place.shape[1], torch.get_num_threads()
    ends = [rows * number // threads for number in range(threads + 1)]
    others = [
        _threads(threads).submit(kernel, values, how, place, begin, end) for begin, end in itertools.pairwise(ends[1:])
    ]
    kernel(values, how, place, 0, ends[1])
    for other in others:
        other.result()


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="passes")
