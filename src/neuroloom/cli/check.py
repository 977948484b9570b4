"""`neuroloom check`: the doctor's findings, for people or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from neuroloom.cli.voxel_progress import voxel_progress
from neuroloom.errors import UserError
from neuroloom.volume.array import DATASETS

if TYPE_CHECKING:
    from neuroloom.volume.checking.findings import Finding

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}


def check_command(
    volumes: Annotated[
        list[str] | None, typer.Argument(help="volumes (folders, HDF5 files or URLs) to look at")
    ] = None,
    train: Annotated[
        list[str] | None, typer.Option(metavar="VOLUME", help="volume to train on; may be given again")
    ] = None,
    validate: Annotated[
        list[str] | None,
        typer.Option(metavar="VOLUME", help="volume to score on; must share nothing with those to train on"),
    ] = None,
    raw: Annotated[str, typer.Option(metavar="DATASET", help="name of the image")] = DATASETS["raw"],
    labels: Annotated[str, typer.Option(metavar="DATASET", help="name of the labels")] = DATASETS["labels"],
    mask: Annotated[str, typer.Option(metavar="DATASET", help="name of the mask")] = DATASETS["mask"],
    as_json: Annotated[bool, typer.Option("--json", help="print findings as JSON")] = False,
) -> None:
    """Say what is right and wrong with volumes: exit code 0 fine, 1 warnings, 2 errors."""
    from neuroloom.volume.checking import check_volumes  # loads scipy
    from neuroloom.volume.checking.findings import exit_code

    if not (volumes or train or validate):
        raise UserError("Nothing to look at: name volumes, or volumes to --train and --validate on.")
    with voxel_progress("check") as progress:
        findings = check_volumes(
            volumes or [],
            train=train or [],
            validate=validate or [],
            raw=raw,
            labels=labels,
            mask=mask,
            progress=progress,
        )
    if as_json:
        content = {"findings": [finding.as_dict() for finding in findings], "exit_code": exit_code(findings)}
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        _show(findings, Console())
    raise typer.Exit(exit_code(findings))


def _show(findings: Sequence[Finding], console: Console) -> None:
    for volume, group in groupby(findings, key=lambda finding: finding.volume):
        console.print(Text(volume, style="bold"), soft_wrap=True)
        for finding in group:
            mark, colour = _MARKS[finding.severity]
            line = Text.assemble((f"{mark} ", colour), (f"{finding.check}: ", "bold"), finding.what)
            console.print(Padding(line, (0, 0, 0, 2)))
            for word, text in (("why", finding.why), ("do", finding.remedy)):
                if text:
                    console.print(Padding(Text.assemble((f"{word}: ", "dim"), text), (0, 0, 0, 6)))
    errors = sum(finding.severity == "error" for finding in findings)
    warnings = sum(finding.severity == "warning" for finding in findings)
    console.print(
        f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
        if errors or warnings
        else "Nothing to complain about."
    )
