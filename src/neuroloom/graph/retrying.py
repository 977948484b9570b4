"""Going on when a database is away for a while: again and again with longer pauses, then a clear end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from neuroloom.addresses import without_secrets
from neuroloom.errors import UserError

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds after which a database that is away counts as gone."""
LONGEST_PAUSE = 10.0
"""Seconds."""


class Away(Exception):
    """A database does not answer now, and may do so later.

    Args:
        reason: What it or its driver said.
        pause: Seconds after which it asks to be tried again; 0 if it says nothing of that.
    """

    def __init__(self, reason: object, pause: float = 0.0) -> None:
        super().__init__(without_secrets(" ".join(str(reason).split())))
        self.pause = pause


def patiently(work: Callable[[], T], address: str) -> T:
    """Do something with a database until it is done, waiting while the database is away.

    Args:
        work: Raises `Away`; may be called any number of times.
        address: Of the database, for the message.

    Raises:
        UserError: It stayed away for longer than `PATIENCE`.
    """
    away_since, pause = None, 0.25
    while True:
        try:
            return work()
        except Away as away:
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since >= PATIENCE:
                raise UserError(
                    f"The database {address} does not answer ({away}). What was finished is kept: when it is there "
                    "again, the same command goes on."
                ) from None
            now = max(pause, away.pause)
        time.sleep(now)
        pause = min(2 * pause, LONGEST_PAUSE)


def of_another_run(address: str, name: str) -> UserError:
    """What to say of a database in which a run's place is taken by another run.

    Args:
        address: Of the database.
        name: Of the run.
    """
    return UserError(
        f"{address} holds rows of another run under the name {name}. Choose another database (`graph.store`), or "
        "remove what is there."
    )


def rows_missing(address: str, kind: str, block_number: int, found: int, expected: int) -> UserError:
    """What to say of a block of which rows have gone since it was written.

    Args:
        address: Of the store.
        kind: Of the rows.
        block_number: Of the block.
        found: Rows that are there.
        expected: Rows that were written.
    """
    return UserError(
        f"{address} has {found} {kind} of block {block_number}; expected {expected}. It was changed by hand or is "
        "damaged: remove what it holds of this run, delete the step's folder in `results`, and run the step again."
    )


def package_missing(package: str, extra: str) -> UserError:
    """What to say where the driver of a database is not installed.

    Args:
        package: Its name.
        extra: Of neuroloom, that brings it.
    """
    return UserError(f"This graph store needs the package {package}. Install it with: pip install 'neuroloom[{extra}]'")
