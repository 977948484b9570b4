"""What affinities have to be for fragments and agglomeration, and which neighbours their channels tell of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuroloom.blockwise.stage import Source
from neuroloom.errors import UserError
from neuroloom.volume import Volume
from neuroloom.volume.array import Triple


def open_made(source: Source, shape: Triple, command: str) -> Volume:
    """The output of an earlier step, as it should be.

    Args:
        source: It.
        shape: Expected, voxels z y x.
        command: What makes it: `neuroloom COMMAND VOLUME`.

    Raises:
        UserError: It is gone, or of another extent.
    """
    if not Path(source.path).exists():
        raise UserError(f"{source.path} is gone, though this step needs it. {_again(source, command)}")
    volume = source.open()
    if volume.shape != shape:
        raise UserError(f"{volume.location} has {volume.shape} voxels; expected {shape}. {_again(source, command)}")
    return volume


def open_affinities(source: Source, shape: Triple) -> Volume:
    """Affinities, if they are such.

    Args:
        source: Expected as `(3 or more, z, y, x) uint8`.
        shape: Expected, voxels z y x.

    Raises:
        UserError: They are gone, have another type or extent, or too few channels.
    """
    affinities = open_made(source, shape, "predict")
    if affinities.dtype != np.uint8 or (affinities.channels or 0) < 3:
        raise UserError(
            f"{affinities.location} is {affinities.dtype} with {affinities.channels or 'no'} channels; expected uint8 "
            f"(255 = 1) with at least 3 (z, y, x). {_again(source, 'predict')}"
        )
    return affinities


def _again(source: Source, command: str) -> str:
    """What makes the output of a step anew, which is not asked about again once it is done."""
    folder = Path(source.path).resolve().parent
    if not (folder / "stage.json").exists():
        return "Make it again."
    return f"Delete {folder} and run `neuroloom {command} {folder.parent.name}` again."


def offsets_of(affinities: Volume) -> tuple[Triple, ...]:
    """Which neighbour each channel tells of, z y x: as the prediction has written into the attributes.

    Args:
        affinities: `(c, z, y, x)`.

    Raises:
        UserError: The attributes do not say it, or of another number of channels.
    """
    said = affinities.array.attrs.get("neuroloom")
    found = said.get("neighborhood") if isinstance(said, dict) else None
    if not isinstance(found, list) or any(np.shape(offset) != (3,) for offset in found):
        raise UserError(
            f"{affinities.location} does not say which neighbours its channels are of; expected the attribute "
            "`neuroloom` with `neighborhood`, a list of offsets z y x. Predict again, or set `long_range = false`."
        )
    if len(found) != affinities.channels:
        raise UserError(
            f"{affinities.location} has {affinities.channels} channels, but its attribute `neighborhood` has "
            f"{len(found)} offsets; expected as many. Predict again, or set `long_range = false`."
        )
    return tuple((int(z), int(y), int(x)) for z, y, x in found)
