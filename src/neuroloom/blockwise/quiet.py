"""What compiled code writes to standard error goes into a file: users are told what matters in other words."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_STANDARD_ERROR = 2


@contextlib.contextmanager
def standard_error_in(file: Path) -> Iterator[None]:
    """Append what is written to standard error to a file in the end; what Python writes still goes to the terminal.

    Until then it is in memory: compiled code that cannot write, since the disk is full, would take it for a disaster.

    Args:
        file: Its folder is made; a disk that cannot take it takes nothing.
    """
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(_in_memory())
        stack.callback(_append, kept, file)
        sys.stderr.flush()
        terminal = os.dup(_STANDARD_ERROR)
        stack.callback(os.close, terminal)
        with contextlib.suppress(OSError, AttributeError, ValueError):  # a stream that has no descriptor stays
            if sys.stderr.fileno() == _STANDARD_ERROR:
                stream = stack.enter_context(os.fdopen(os.dup(terminal), "w", buffering=1))
                stack.enter_context(contextlib.redirect_stderr(stream))
        os.dup2(kept.fileno(), _STANDARD_ERROR)
        stack.callback(os.dup2, terminal, _STANDARD_ERROR)
        yield


def _in_memory() -> IO[bytes]:
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("standard error"), "w+b")
    return tempfile.TemporaryFile()


def _append(kept: IO[bytes], file: Path) -> None:
    kept.seek(0)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as log:
            shutil.copyfileobj(kept, log)
