"""Running networks in whatever memory there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def run_until_it_fits(run: Callable[[], T], take_smaller_tiles: Callable[[], None]) -> T:
    """Run networks, again with smaller tiles whenever memory does not suffice.

    Args:
        run: Runs them.
        take_smaller_tiles: Called before each further time; raises UserError where there are no smaller ones.
    """
    while True:
        try:
            return run()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # outside of `except`, which would hold on to what the failed tile takes
        take_smaller_tiles()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch, its library for convolutions on a CPU, or onnxruntime did not get the memory it asked for."""
    words = ("DefaultCPUAllocator", "could not create a primitive", "could not create a memory", "Failed to allocate")
    return isinstance(error, torch.OutOfMemoryError) or any(said in str(error) for said in words)
