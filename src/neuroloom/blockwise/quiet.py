"""What compiled code writes to standard error goes into a file: users are told what matters in other words."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_STANDARD_ERROR = 2


@contextlib.contextmanager
def standard_error_in(file: Path) -> Iterator[None]:
    """Append what is written to standard error to a file; what Python writes still goes to the terminal.

    Args:
        file: Its folder is made; a disk that cannot take it takes nothing.
    """
    with contextlib.ExitStack() as stack:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            log = stack.enter_context(file.open("ab"))
        except OSError:
            log = stack.enter_context(Path(os.devnull).open("ab"))
        sys.stderr.flush()
        terminal = os.dup(_STANDARD_ERROR)
        stack.callback(os.close, terminal)
        with contextlib.suppress(OSError, AttributeError, ValueError):  # a stream that has no descriptor stays
            if sys.stderr.fileno() == _STANDARD_ERROR:
                stream = stack.enter_context(os.fdopen(os.dup(terminal), "w", buffering=1))
                stack.enter_context(contextlib.redirect_stderr(stream))
        os.dup2(log.fileno(), _STANDARD_ERROR)
        stack.callback(os.dup2, terminal, _STANDARD_ERROR)
        yield
