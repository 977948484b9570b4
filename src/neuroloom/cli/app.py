"""The commands and their order in the help."""

from __future__ import annotations

import typer

from neuroloom import __version__

app = typer.Typer(
    name="neuroloom",
    help="From a few hand-segmented blocks of microscopy to every neuron in the volume.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
