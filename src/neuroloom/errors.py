"""The one exception a user sees: one or two clear sentences, exit code 2."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right.

    The message names the file, what was found, what was expected and what to do next. The command line prints it
    without a traceback and ends with exit code 2.
    """


class Interrupted(Exception):
    """The user stopped a run (Ctrl-C or SIGTERM); everything finished so far is kept. Exit code 130."""
