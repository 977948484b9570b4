"""The command line: one thin file per group of commands, no logic; errors become one or two sentences."""

from __future__ import annotations

import errno
import sys
import traceback

from neuroloom.cli.app import app
from neuroloom.errors import Interrupted, UserError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line: exit code 0 done, 1 a defect of ours, 2 the user can put it right, 130 stopped."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
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
        raise SystemExit(2 if isinstance(error, UserError) else 130 if isinstance(error, Interrupted) else 1) from None
