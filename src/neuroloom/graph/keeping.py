"""A stage whose rows lie in a graph store, block by block beside its arrays."""

from __future__ import annotations

from typing import ClassVar

from neuroloom.addresses import FILES
from neuroloom.blockwise.stage import Stage
from neuroloom.blockwise.tracking import take_back
from neuroloom.errors import UserError
from neuroloom.graph.place import GraphPlace, run_name
from neuroloom.graph.store import GraphStore, Run
from neuroloom.graph.tables import Kind


class KeepsGraph(Stage):
    """Base of stages that write nodes or edges.

    Attributes:
        store: Address of the graph store; not fingerprinted, since every store gives the same rows.
    """

    kinds: ClassVar[tuple[Kind, ...]]
    """Of the rows that each block writes."""
    command: ClassVar[str]
    """What runs the stage: `neuroloom COMMAND VOLUME`."""
    not_fingerprinted: ClassVar[frozenset[str]] = frozenset({"folder", "store"})

    store: str = FILES

    @property
    def graph_run(self) -> Run:
        """What the rows are known as."""
        return Run(name=run_name(self.folder), fingerprint=self.fingerprint())

    @property
    def graph_place(self) -> GraphPlace:
        """Where the rows are kept."""
        return GraphPlace(
            store=self.store,
            folder=self.folder,
            run=self.graph_run,
            block_count=self.block_count,
            command=f"neuroloom {self.command} {self.folder.parent.name}",
        )

    @property
    def graph(self) -> GraphStore:
        """The rows."""
        return self.graph_place.open()

    def finish(self) -> None:
        """Make sure that the rows of all blocks are kept.

        Raises:
            UserError: Some are not; the same command does them again.
        """
        place = self.graph_place
        missing = place.missing(*self.kinds)
        if missing:
            take_back(self.folder / "blocks", map(self.place_of, missing))
            raise UserError(f"{place.say_missing(missing)} Run `{place.command}` again: it does what is missing.")
