"""Where the rows of a stage are kept: all that a worker process needs to open the store, and no password.

A place is part of a stage's parameters but not of its fingerprint, since every store gives the same rows.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from neuroloom.addresses import FILES, scheme_of
from neuroloom.errors import UserError
from neuroloom.graph.files import GraphFiles
from neuroloom.graph.store import GraphStore, Run
from neuroloom.graph.tables import Kind

_open: dict[tuple[str, Run, int, int], GraphStore] = {}
"""Databases that this process uses: one connection for each of its threads, and none taken over from its parent."""


class GraphPlace(BaseModel):
    """Where the rows of one stage are kept.

    Attributes:
        store: Address of the store; see `neuroloom.addresses`.
        folder: The stage's folder: files lie in `graph` in it.
        run: Whose rows these are.
        block_count: How many blocks there are when all is done.
        command: What makes the rows, as typed: `neuroloom fragments whole`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str = FILES
    folder: Path
    run: Run
    block_count: int
    command: str

    def open(self) -> GraphStore:
        """The store.

        Raises:
            UserError: The driver of the database is not installed.
        """
        return open_store(self.store, self.folder / "graph", self.run)

    def missing(self, *kinds: Kind) -> list[int]:
        """Numbers of the blocks of which the store lacks rows of some kind.

        Args:
            kinds: That are looked for.

        Raises:
            UserError: The store cannot be read.
        """
        store = self.open()
        wanted = set(range(self.block_count))
        return sorted(set[int]().union(*(wanted - store.blocks(kind) for kind in kinds)))

    def open_whole(self, *kinds: Kind) -> GraphStore:
        """The store, if rows of all blocks are there.

        Args:
            kinds: That are needed.

        Raises:
            UserError: A block is missing; the message names it and what makes it.
        """
        missing = self.missing(*kinds)
        if missing:
            raise UserError(
                f"{self.say_missing(missing)} Delete {self.folder} and run `{self.command}` again; if the graph is in "
                "another store, bring it with `neuroloom graph copy` instead."
            )
        return self.open()

    def say_missing(self, missing: list[int]) -> str:
        """A sentence on blocks that a store lacks.

        Args:
            missing: Their numbers; at least one.
        """
        address = self.open().address
        if len(missing) == self.block_count:
            return f"The graph in {address} holds none of the {self.block_count} blocks of {self.run.name}."
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        return (
            f"The graph in {address} is incomplete: block {missing[0]}{others} of the {self.block_count} blocks of "
            f"{self.run.name} is missing."
        )


def run_name(folder: Path) -> str:
    """What the run of a results folder, `results/<volume>/<step>-<fingerprint>`, is called in a database."""
    return f"{folder.parent.name}_{folder.name}"


def open_store(address: str, folder: Path, run: Run) -> GraphStore:
    """A store; in one process always the same one, so that connections are kept.

    Args:
        address: See `neuroloom.addresses`.
        folder: Of files.
        run: Whose rows these are.

    Raises:
        UserError: The driver of the database is not installed.
    """
    scheme = scheme_of(address)
    if scheme == FILES:
        return GraphFiles(folder)
    key = (address, run, os.getpid(), threading.get_ident())
    if key not in _open:
        _open[key] = store_class(scheme)(address, run)  # type: ignore[call-arg]
    return _open[key]


def store_class(scheme: str) -> type[GraphStore]:
    """The class of a database's stores; its driver is loaded only where it is used.

    Args:
        scheme: "sqlite", "postgresql" or "mongodb".
    """
    if scheme == "sqlite":
        from neuroloom.graph.sqlite import GraphSqlite

        return GraphSqlite
    if scheme == "postgresql":
        from neuroloom.graph.postgres import GraphPostgres

        return GraphPostgres
    from neuroloom.graph.mongo import GraphMongo

    return GraphMongo
