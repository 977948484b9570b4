"""`neuroloom import`: other people's files into a volume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from neuroloom.cli.arguments import floats
from neuroloom.cli.voxel_progress import voxel_progress
from neuroloom.errors import UserError

if TYPE_CHECKING:
    from neuroloom.volume.importing.conversion import Rescale

_FILE = "HDF5, TIFF, PNG or TIFF folder, NPY, zarr or N5"


def import_command(
    out: Annotated[Path, typer.Argument(help="zarr volume to make, or to add to")],
    raw: Annotated[str | None, typer.Option(metavar="FILE[:DATASET]", help=f"image: {_FILE}")] = None,
    labels: Annotated[str | None, typer.Option(metavar="FILE[:DATASET]", help="ids of the neurons, 0 = none")] = None,
    mask: Annotated[
        str | None, typer.Option(metavar="FILE[:DATASET]", help="not 0 where the labels may be used")
    ] = None,
    voxel_size: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="nm per voxel; needed where the files do not say")
    ] = None,
    offset: Annotated[str | None, typer.Option(metavar="Z,Y,X", help="nm; where raw begins in space")] = None,
    label_offset: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="nm; where labels smaller than raw begin in space")
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option(metavar="ORDER", help="axes of the files as they lie in them, such as zyx or xyz (N5: xyz)"),
    ] = None,
    rescale: Annotated[
        str | None,
        typer.Option(metavar="MIN,MAX|percentiles", help="raw values that become 0 and 255; makes raw 8 bit"),
    ] = None,
    background: Annotated[
        list[int] | None, typer.Option(metavar="ID", help="id that means no neuron, such as -1; may be given again")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace datasets that exist")] = False,
) -> None:
    """Import HDF5, TIFF, PNG, NPY, zarr or N5 files into a volume to train on or to segment."""
    from neuroloom.volume.importing import import_volume  # loads readers of all formats

    with voxel_progress("import") as progress:
        done = import_volume(
            out,
            raw=raw,
            labels=labels,
            mask=mask,
            voxel_size=None if voxel_size is None else floats(voxel_size, "--voxel-size"),
            offset=None if offset is None else floats(offset, "--offset"),
            label_offset=None if label_offset is None else floats(label_offset, "--label-offset"),
            axes=axes,
            rescale=_rescale(rescale),
            background=background or (),
            overwrite=overwrite,
            progress=progress,
        )
    console = Console()
    shape, size = (" x ".join(f"{v:g}" for v in values) for values in (done.shape, done.voxel_size))
    console.print(f"{done.path}: {shape} voxels of {size} nm", highlight=False, markup=False, soft_wrap=True)
    for line in [*(f"{name}: {dtype}" for name, dtype in done.written.items()), *(f"note: {n}" for n in done.notes)]:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"Look at it with `neuroloom check {done.path}`.", highlight=False, markup=False, soft_wrap=True)


def _rescale(text: str | None) -> Rescale | None:
    if text is None:
        return None
    if text == "percentiles":
        return "percentiles"
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--rescale {text}: expected MIN,MAX (such as 0,4095) or the word percentiles.") from None
    return low, high
