"""Nodes and edges as columns: what is kept of every fragment, of every pair that touches, and of what ends there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

Kind = Literal["nodes", "edges", "outside"]
KINDS: tuple[Kind, ...] = ("nodes", "edges", "outside")
Columns = dict[str, NDArray[Any]]
"""Equally long columns of numbers by their names: how stores keep rows."""


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
class Sizes(_Columns):
    """Of fragments, what a merge forest asks for, one row each.

    Attributes:
        id: `(n,)`, fragment ids.
        size: `(n,)`, voxels.
    """

    id: NDArray[np.uint64]
    size: NDArray[np.int64]


@dataclass(frozen=True)
class Nodes(Sizes):
    """Fragments, one row each; places in voxels of the volume's grid.

    Attributes:
        centre: `(n, 3)`, centre of mass z, y, x: the middle of voxel k is k + 0.5.
        mean_affinity: `(n,)`, 0 … 1.
        begin: `(n, 3)`, first voxel of the bounding box, z y x.
        end: `(n, 3)`, one past its last voxel.
    """

    centre: NDArray[np.float64]
    mean_affinity: NDArray[np.float32]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]


@dataclass(frozen=True)
class _Pairs(_Columns):
    """Pairs of touching fragments, one row each.

    Attributes:
        u: `(n,)`, the smaller fragment id.
        v: `(n,)`, the larger fragment id.
    """

    u: NDArray[np.uint64]
    v: NDArray[np.uint64]


@dataclass(frozen=True)
class Scores(_Pairs):
    """Of pairs, what a merge forest asks for.

    Attributes:
        merge_score: `(n,)`, low merges first; NaN = never merged.
    """

    merge_score: NDArray[np.float32]


@dataclass(frozen=True)
class Areas(_Pairs):
    """Of pairs, what contacts of segments are made of.

    Attributes:
        contact_area: `(n,)`, voxel faces between the two.
    """

    contact_area: NDArray[np.int64]


@dataclass(frozen=True)
class Edges(Areas, Scores):
    """Pairs of touching fragments with all that is kept of them: u, v, merge_score, contact_area, and these.

    Attributes:
        mean_affinity: `(n,)`, mean over the faces between the two, 0 … 1.
        position: `(n, 3)`, the mean of their middles z, y, x: voxel k spans [k, k + 1], a face lies at such an end.
    """

    mean_affinity: NDArray[np.float32]
    position: NDArray[np.float32]


@dataclass(frozen=True)
class Outside(_Columns):
    """Fragments that reach the volume's border or a voxel without fragment, one row each.

    Attributes:
        id: `(n,)`, fragment ids.
        faces: `(n,)`, voxel faces towards the volume's outside or voxels without fragment.
    """

    id: NDArray[np.uint64]
    faces: NDArray[np.int64]


AXES = ("z", "y", "x")
_PLACES = ("centre", "begin", "end", "position")
_KEYS: dict[Kind, tuple[str, ...]] = {"nodes": ("id",), "edges": ("u", "v"), "outside": ("id",)}
COLUMNS: dict[Kind, dict[str, np.dtype[Any]]] = {
    "nodes": {
        "id": np.dtype(np.uint64),
        "size": np.dtype(np.int64),
        "mean_affinity": np.dtype(np.float32),
        **{f"centre_{axis}": np.dtype(np.float64) for axis in AXES},
        **{f"{name}_{axis}": np.dtype(np.int64) for name in ("begin", "end") for axis in AXES},
    },
    "edges": {
        "u": np.dtype(np.uint64),
        "v": np.dtype(np.uint64),
        "merge_score": np.dtype(np.float32),
        "contact_area": np.dtype(np.int64),
        "mean_affinity": np.dtype(np.float32),
        **{f"position_{axis}": np.dtype(np.float32) for axis in AXES},
    },
    "outside": {"id": np.dtype(np.uint64), "faces": np.dtype(np.int64)},
}
"""What every store keeps, in this order."""


def to_columns(rows: Nodes | Edges | Outside) -> Columns:
    """Rows as columns of plain numbers, in the order given."""
    columns: Columns = {}
    places: Columns = {}
    for field in fields(rows):
        values = getattr(rows, field.name)
        if field.name in _PLACES:
            places |= {f"{field.name}_{axis}": values[:, i] for i, axis in enumerate(AXES)}
        else:
            columns[field.name] = values
    return columns | places


def nodes_of(columns: Columns) -> Nodes:
    """What `to_columns` was given."""
    return Nodes(**_rows_of(Nodes, columns))


def edges_of(columns: Columns) -> Edges:
    """What `to_columns` was given."""
    return Edges(**_rows_of(Edges, columns))


def outside_of(columns: Columns) -> Outside:
    """What `to_columns` was given."""
    return Outside(**_rows_of(Outside, columns))


def _rows_of(kind: type[_Columns], columns: Columns) -> Columns:
    """Fields of rows by their names; places of their three axes."""
    found = {}
    for field in fields(kind):  # type: ignore[arg-type]
        name = field.name
        if name in _PLACES:
            found[name] = np.stack([columns[f"{name}_{axis}"] for axis in AXES], axis=1)
        else:
            found[name] = columns[name]
    return found


def in_order(kind: Kind, columns: Columns) -> Columns:
    """The rows of one block in the order in which every store gives them: by id, or by u and v."""
    first, *others = keys = [columns[name] for name in _KEYS[kind]]
    rises = first[1:] > first[:-1]
    for second in others:
        rises |= (first[1:] == first[:-1]) & (second[1:] >= second[:-1])
    if rises.all():  # nearly always, and looking takes less time than sorting
        return columns
    order = np.lexsort(keys[::-1])
    return {name: column[order] for name, column in columns.items()}


def no_rows(kind: Kind) -> Columns:
    """Columns of no rows."""
    return {name: np.empty(0, dtype) for name, dtype in COLUMNS[kind].items()}


def signed(columns: Columns) -> Columns:
    """Ids as databases hold them, in 64 bits with a sign: from 2**63 on they are negative; `unsigned` undoes it."""
    return {name: c.view(np.int64) if c.dtype == np.uint64 else c for name, c in columns.items()}


def unsigned(kind: Kind, columns: Columns) -> Columns:
    """Columns in their own types, ids as they were before `signed`."""
    found = {}
    for name, column in columns.items():
        dtype = COLUMNS[kind][name]
        found[name] = column.view(np.uint64) if dtype == np.uint64 else column.astype(dtype, copy=False)
    return found
