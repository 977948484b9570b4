"""The command line: one thin file per group of commands, no logic; errors become one or two sentences."""

from __future__ import annotations

import errno
import sys
import traceback

from neuroloom.cli.app import app
from neuroloom.errors import BlocksFailed, Interrupted, UserError

__all__ = ["app", "main"]

_STOPPED = 130
"""Exit code after Ctrl-C."""


def main() -> None:
    """Run the command line.

    Exit code 0: done; 1: a defect of ours, or blocks that failed; 2: the user can put it right; 130: stopped.
    """
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except SystemExit as end:
        if end.code == _STOPPED:  # typer's, at Ctrl-C while a command runs that has nothing to say about it
            print("Stopped. Run the same command again.", file=sys.stderr)
        raise
    except (UserError, Interrupted, Exception) as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:  # whoever asks for such a path first
            error = UserError(f"The name {error.filename} is too long for a file or folder. Choose a shorter one.")
        if debug:
            traceback.print_exc()
        elif isinstance(error, UserError | Interrupted):
            print(str(error), file=sys.stderr)
        else:
            print(
                f"This should not have happened ({type(error).__name__}: {error}). What was finished is kept. "
                "Run the same command with --debug and report what it prints.",
                file=sys.stderr,
            )
        raise SystemExit(_exit_code(error)) from None


def _exit_code(error: Exception) -> int:
    if isinstance(error, UserError):
        return 1 if isinstance(error, BlocksFailed) else 2
    return _STOPPED if isinstance(error, Interrupted) else 1
