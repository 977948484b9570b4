"""What writers that were killed leave behind: files that were being written, beside their places.

They are in nobody's way, since each writer gives them a name of its own, but they take room, and lists of files have
them.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

HALF_WRITTEN = (".partial", ".part")
"""Ends of names that zarr and `files.write_atomic` give them."""


def remove_half_written(folder: Path) -> None:
    """Delete them from a stage's results, when its blocks are done.

    What lies in the folder itself, or is told by workers, may be being written now and is left alone.

    Args:
        folder: The stage's.
    """
    for results in folder.iterdir():
        if results.is_dir() and results.name != "workers":
            for parent, _, names in os.walk(results):
                for name in names:
                    if name.endswith(HALF_WRITTEN):
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(os.path.join(parent, name))
