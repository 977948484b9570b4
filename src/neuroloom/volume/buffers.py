"""How zarr is handed what it writes, so that chunks are written faster.

zarr leaves out chunks that are empty, and to know that compares each with its fill value in several passes, mindful of
NaN: as long as it takes to compress it. Of whole numbers the first voxel says it nearly always.
"""

from __future__ import annotations

from typing import Any

import zarr
from zarr.buffer import cpu
from zarr.registry import get_ndbuffer_class, register_ndbuffer


class QuickBuffer(cpu.NDBuffer):
    """An array that knows soon that it is not all the same."""

    def all_equal(self, other: Any, equal_nan: bool = True) -> bool:
        """Whether all elements are `other`; see `zarr.core.buffer.NDBuffer.all_equal`."""
        if self._data.dtype.kind in "iub" and other is not None:
            return bool(self._data.flat[0] == other) and bool((self._data == other).all())
        return super().all_equal(other, equal_nan)


def use_quick_buffers() -> None:
    """Have zarr use them in this process, unless it was told to use others."""
    if get_ndbuffer_class() is cpu.NDBuffer:
        register_ndbuffer(QuickBuffer)
        zarr.config.set({"ndbuffer": f"{QuickBuffer.__module__}.{QuickBuffer.__qualname__}"})
