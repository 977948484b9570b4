"""What nearly every worker would load with its first block; importing this loads it, for a fork server."""

from __future__ import annotations

import contextlib
import importlib

import numba

with contextlib.suppress(ImportError):
    importlib.import_module("pandas")  # pyarrow looks for it as soon as an array leaves a table


@numba.njit(cache=True)
def _nothing() -> None:
    pass


_nothing()  # numba loads half of itself before it runs its first kernel
