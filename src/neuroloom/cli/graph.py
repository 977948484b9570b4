"""`neuroloom graph`: where nodes and edges are kept."""

from __future__ import annotations

from typing import Annotated

import typer

from neuroloom.cli.progress import show_progress
from neuroloom.graph.copying import copy_graph

graph_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@graph_app.callback()
def graph_command() -> None:
    """Nodes and edges between stores: files, SQLite, PostgreSQL, MongoDB."""


@graph_app.command("copy")
def copy_command(
    source: Annotated[
        str,
        typer.Argument(metavar="FROM", help="The folder of a step's results, or ADDRESS or ADDRESS#RUN of a store."),
    ],
    target: Annotated[str, typer.Argument(metavar="TO", help="Likewise; what it holds of this run is replaced.")],
) -> None:
    """Copy a graph from one store to another. No address may hold a password; see the how-to."""
    with show_progress("copy") as advance:
        came_from, lies_in, rows = copy_graph(
            source, target, lambda done, total, rows: advance(done, total, f"blocks, {rows} rows")
        )
    print(f"Copied {rows} rows from {came_from} to {lies_in}")
