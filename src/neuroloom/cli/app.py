"""The commands and their order in the help."""

from __future__ import annotations

from typing import Annotated

import typer

from neuroloom import __version__
from neuroloom.cli import run
from neuroloom.cli.check import check_command
from neuroloom.cli.cluster import cluster_app
from neuroloom.cli.crops import crops_command
from neuroloom.cli.demo import demo_command
from neuroloom.cli.graph import graph_app
from neuroloom.cli.import_ import import_command
from neuroloom.cli.init import init_command
from neuroloom.cli.models import models_app
from neuroloom.cli.sample import sample_command
from neuroloom.cli.status import status_command
from neuroloom.cli.train import train_command
from neuroloom.cli.view import view_command

app = typer.Typer(
    name="neuroloom",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _neuroloom(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """From a few hand-segmented blocks of microscopy to every neuron in the volume.

    Begin with `neuroloom init DIR --from VOLUME`, then `neuroloom run`. Any command takes --debug for a traceback.
    """
    if version:
        print(__version__)
        raise typer.Exit


for _name, _command in (
    ("init", init_command),
    ("sample", sample_command),
    ("import", import_command),
    ("check", check_command),
    ("crops", crops_command),
    ("train", train_command),
    ("predict", run.predict_command),
    ("fragments", run.fragments_command),
    ("agglomerate", run.agglomerate_command),
    ("evaluate", run.evaluate_command),
    ("segment", run.segment_command),
    ("run", run.run_command),
    ("status", status_command),
    ("report", run.report_command),
    ("view", view_command),
    ("demo", demo_command),
):
    app.command(_name)(_command)
app.add_typer(models_app, name="models")
app.add_typer(graph_app, name="graph")
app.add_typer(cluster_app, name="cluster")
