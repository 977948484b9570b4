"""Mending daisy's done-bytes after a master that was killed while writing them.

daisy keeps a zarr array with one byte per block, and writes its files in place. Killed in the middle of that, it leaves
a file that cannot be read, and no later run would start. A block that runs twice is harmless, so what cannot be read is
deleted and counts as not done.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np


def mend_tracking(folder: Path) -> None:
    """Delete done-bytes that cannot be read.

    Args:
        folder: What daisy was given as `tracking_path`; may be missing.
    """
    # both descriptions are written before the first block: without them, nothing is done
    array = folder / "done"
    try:
        json.loads((folder / "zarr.json").read_text())
        description = json.loads((array / "zarr.json").read_text())
    except (OSError, ValueError):
        shutil.rmtree(folder, ignore_errors=True)
        return
    size = math.prod(description["chunk_grid"]["configuration"]["chunk_shape"])
    size *= np.dtype(description["data_type"]).itemsize
    for chunk in (array / "c").rglob("*"):
        if chunk.is_file() and chunk.stat().st_size != size:
            chunk.unlink()
