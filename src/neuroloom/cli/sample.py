"""`neuroloom sample`: synthetic neuropil with exact truth."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from neuroloom.cli.arguments import floats, integers
from neuroloom.cli.voxel_progress import voxel_progress
from neuroloom.volume.sample import SampleParameters, write_sample


class Look(StrEnum):
    """How the tissue is imaged."""

    em = "em"
    exm = "exm"


def sample_command(
    out: Annotated[Path, typer.Argument(help="zarr volume to make")],
    shape: Annotated[str, typer.Option(metavar="Z,Y,X", help="voxels")] = "192,192,192",
    voxel_size: Annotated[str, typer.Option(metavar="Z,Y,X", help="nm per voxel")] = "8,8,8",
    look: Annotated[Look, typer.Option(help="em: dark membranes; exm: expansion microscopy")] = Look.em,
    seed: Annotated[int, typer.Option(min=0, help="names the tissue; another seed, another tissue")] = 0,
    calibre: Annotated[float, typer.Option(metavar="NM", help="typical diameter of a thin neurite")] = 200.0,
    begin: Annotated[
        str, typer.Option(metavar="Z,Y,X", help="first voxel; the same seed elsewhere is the same tissue farther on")
    ] = "0,0,0",
) -> None:
    """Make a volume of synthetic neuropil: raw, labels and mask, the same for the same options."""
    parameters = SampleParameters(
        seed=seed, voxel_size=floats(voxel_size, "--voxel-size"), look=look.value, calibre=calibre
    )
    extent = integers(shape, "--shape")
    with voxel_progress("sample") as progress:
        write_sample(out, parameters, extent, integers(begin, "--begin"), progress=progress)
    typer.echo(f"{out}: {' x '.join(map(str, extent))} voxels, {math.prod(extent) / 1e6:.3g} megavoxels")
