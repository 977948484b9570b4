"""`neuroloom init`: a new project."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from neuroloom.chain.new_project import propose
from neuroloom.errors import UserError
from neuroloom.files import make_folder, write_text
from neuroloom.project import FILE_NAME
from neuroloom.project.template import render
from neuroloom.volume.array import DATASETS


def init_command(
    folder: Annotated[Path, typer.Argument(help="The new project's folder.")],
    train: Annotated[
        list[str] | None,
        typer.Option("--from", help="Hand-segmented volumes to train on (folders, HDF5 files, URLs); may be repeated."),
    ] = None,
    validate: Annotated[list[str] | None, typer.Option(help="Hand-segmented volumes to validate on.")] = None,
    predict: Annotated[list[str] | None, typer.Option(help="Volumes to segment.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Predict with these weights (a name from `neuroloom models`, a checkpoint, or the declaration of "
            "somebody else's network); with --from, start training from them."
        ),
    ] = None,
    resample: Annotated[
        bool,
        typer.Option(
            "--resample", help="Volumes to segment may have other voxels than those to learn from, or than the model."
        ),
    ] = False,
    raw: Annotated[str, typer.Option(metavar="DATASET", help="name of the image in the volumes")] = DATASETS["raw"],
    labels: Annotated[str, typer.Option(metavar="DATASET", help="name of the labels")] = DATASETS["labels"],
    mask: Annotated[str, typer.Option(metavar="DATASET", help="name of the mask")] = DATASETS["mask"],
) -> None:
    """Write a commented neuroloom.toml; with --from, filled in from the data."""
    file = folder / FILE_NAME
    if os.path.exists(file):  # unlike Path.exists, no error for a name that cannot be
        raise UserError(f"{file} exists already. Edit it, or choose another folder.")
    values: dict[str, Any] = {}
    if train or validate or predict:
        datasets = {"raw": raw, "labels": labels, "mask": mask}
        values = propose(train or [], validate or [], predict or [], folder, model, datasets, resample)
    elif model is not None:
        raise UserError("--model needs volumes: --predict to segment, or --from to train on.")
    make_folder(folder)
    write_text(file, render(values))
    print(f"Wrote {file}.")
    for line in values.pop("_why", []):
        print(f"  {line}")
    if not train and model is None:
        print("Fill in the volumes, then:")
    print(f"Next: neuroloom run --dry-run --project {shlex.quote(str(folder))}")
