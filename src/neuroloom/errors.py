"""The one exception a user sees: one or two clear sentences, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right.

    The message names the file, what was found, what was expected and what to do next. The command line prints it
    without a traceback and ends with exit code 2.
    """


class BlocksFailed(UserError):
    """Some blocks of a stage could not be done; all others are. Exit code 1."""


class Interrupted(Exception):
    """The user stopped a run (Ctrl-C or SIGTERM); everything finished so far is kept. Exit code 130."""


def one_of(word: str, known: Iterable[str]) -> str:
    """The end of a sentence on an unknown word: all known ones, and the nearest.

    Example:
        >>> one_of("afs", ["affs", "lsd"])
        "affs, lsd; did you mean 'affs'?"
    """
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1)
    return ", ".join(words) + (f"; did you mean {near[0]!r}?" if near else ".")
