"""Nodes and edges as columns: what is kept of every fragment, of every pair that touches, and of what ends there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


class _Columns:
    """Equally long columns with row selection and concatenation."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))  # type: ignore[arg-type]

    def select(self, chosen: NDArray[Any]) -> Self:
        """The chosen rows, by a mask or by indices."""
        return type(self)(*(getattr(self, field.name)[chosen] for field in fields(self)))  # type: ignore[arg-type]

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The rows of all parts, one after the other; at least one part."""
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class Nodes(_Columns):
    """Fragments, one row each; places in voxels of the volume's grid.

    Attributes:
        id: `(n,)`, fragment ids.
        centre: `(n, 3)`, centre of mass z, y, x: the middle of voxel k is k + 0.5.
        size: `(n,)`, voxels.
        mean_affinity: `(n,)`, 0 … 1.
        begin: `(n, 3)`, first voxel of the bounding box, z y x.
        end: `(n, 3)`, one past its last voxel.
    """

    id: NDArray[np.uint64]
    centre: NDArray[np.float64]
    size: NDArray[np.int64]
    mean_affinity: NDArray[np.float32]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]


@dataclass(frozen=True)
class Edges(_Columns):
    """Pairs of touching fragments, one row each.

    Attributes:
        u: `(n,)`, the smaller fragment id.
        v: `(n,)`, the larger fragment id.
        merge_score: `(n,)`, low merges first; NaN = never merged.
        contact_area: `(n,)`, voxel faces between the two.
        mean_affinity: `(n,)`, mean over these faces, 0 … 1.
    """

    u: NDArray[np.uint64]
    v: NDArray[np.uint64]
    merge_score: NDArray[np.float32]
    contact_area: NDArray[np.int64]
    mean_affinity: NDArray[np.float32]


@dataclass(frozen=True)
class Outside(_Columns):
    """Fragments that reach the volume's border or a voxel without fragment, one row each.

    Attributes:
        id: `(n,)`, fragment ids.
        faces: `(n,)`, voxel faces towards the volume's outside or voxels without fragment.
    """

    id: NDArray[np.uint64]
    faces: NDArray[np.int64]
