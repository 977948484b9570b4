"""What affinities have to be for fragments and agglomeration, and which neighbours their channels tell of."""

from __future__ import annotations

import numpy as np

from neuroloom.errors import UserError
from neuroloom.volume import Volume
from neuroloom.volume.array import Triple


def check_affinities(affinities: Volume) -> None:
    """Refuse what are no affinities of nearest neighbours.

    Args:
        affinities: Expected as `(3 or more, z, y, x) uint8`.

    Raises:
        UserError: Another type, or fewer channels.
    """
    if affinities.dtype != np.uint8 or (affinities.channels or 0) < 3:
        raise UserError(
            f"{affinities.location} is {affinities.dtype} with {affinities.channels or 'no'} channels; expected uint8 "
            "(255 = 1) with at least 3 (z, y, x). Name the dataset of the affinities, or predict again."
        )


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
