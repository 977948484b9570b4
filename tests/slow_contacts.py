"""The obvious version of contacts: those of all fragments, whatever segments they belong to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.agglomeration.outside import outside_faces
from neuroloom.fragments.labels import compact
from neuroloom.graph import Edges
from neuroloom.segmentation import Contacts


def all_contacts(fragments: NDArray[Any], edges: Edges) -> Contacts:
    """Contacts of the fragments of a volume.

    Args:
        fragments: `(z, y, x)`, any ids, 0 = none.
        edges: All pairs that touch.
    """
    ids = np.unique(fragments[fragments > 0])
    outside = outside_faces(*compact(fragments))
    faces = np.zeros(len(ids), dtype=np.int64)
    faces[np.searchsorted(ids, outside.id)] = outside.faces
    return Contacts(np.searchsorted(ids, edges.u), np.searchsorted(ids, edges.v), edges.contact_area, faces)
