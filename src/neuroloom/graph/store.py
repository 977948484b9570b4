"""The one interface of all graph stores, and what they share: the order of rows, and what an empty graph is.

A store keeps the rows of one run, block by block, in three tables (`tables.py`). A new store is one file with one
subclass of `GraphStore` that has three methods:

    write(kind, block number, columns)     all rows of a block, or none; a block done twice is there once
    blocks(kind)                           numbers of the blocks that are written, also of those without rows
    read(kind, region, names)              block by block, in the order of their numbers; some columns, or all

All stores give the same rows in the same order, so that results are the same bytes whichever is used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
from funlib.geometry import Roi
from pydantic import BaseModel, ConfigDict

from neuroloom.graph.tables import (
    COLUMNS,
    Areas,
    Columns,
    Edges,
    Kind,
    Nodes,
    Outside,
    Scores,
    Sizes,
    edges_of,
    in_order,
    no_rows,
    nodes_of,
    outside_of,
    to_columns,
)

Numbers = tuple[float, float, float]
T = TypeVar("T", Sizes, Scores, Areas)


class Run(BaseModel):
    """Whose rows a store keeps. Several runs may share a database, and never mix.

    Attributes:
        name: Of the run: volume, step and the beginning of the fingerprint.
        fingerprint: Of the stage that writes.
        fragments: Name of the run that made the nodes which the edges connect; empty if it is this one.
        merge_function: Of the edges' scores, or what else they are known as; empty if there are no edges.
        voxel_size: nm, z y x.
        offset: nm of the corner of voxel (0, 0, 0), z y x.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    fingerprint: str
    fragments: str = ""
    merge_function: str = ""
    voxel_size: Numbers = (1.0, 1.0, 1.0)
    offset: Numbers = (0.0, 0.0, 0.0)


def score_name(parameters: Mapping[str, Any]) -> str:
    """What the scores of an agglomeration are known as, `Run.merge_function`.

    Args:
        parameters: Of the stage, by name.
    """
    method = parameters.get("method", "hierarchical")
    name = parameters["merge_function"] if method == "hierarchical" else method
    return str(name) + "_long_range" * bool(parameters.get("long_range"))


class GraphStore(ABC):
    """Nodes and edges of one run.

    Args:
        address: Where it lies, for messages; without user and password.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    @abstractmethod
    def write(self, kind: Kind, block_number: int, columns: Columns) -> None:
        """Keep the rows of a block, replacing what was kept of this block before; see `write_nodes`.

        Args:
            kind: Of the rows.
            block_number: Of the block that owns them.
            columns: As in `COLUMNS`; sorted.
        """

    @abstractmethod
    def blocks(self, kind: Kind) -> set[int]:
        """Numbers of the blocks whose rows are kept, also of those without any row.

        Raises:
            UserError: The store cannot be read.
        """

    @abstractmethod
    def read(self, kind: Kind, roi: Roi | None = None, names: Sequence[str] = ()) -> Iterator[tuple[int, Columns]]:
        """Block numbers, ascending, and the rows of each, sorted.

        Args:
            kind: Of the rows.
            roi: For nodes: in voxels; blocks and nodes whose centre lies elsewhere may be left out.
            names: Of the columns, those by which rows are sorted among them; none for all.

        Raises:
            UserError: The store cannot be read, or rows of a block are missing.
        """

    def close(self) -> None:  # noqa: B027  files have nothing to close
        """Give up connections; they are made again when they are needed."""

    def write_nodes(self, block_number: int, nodes: Nodes) -> None:
        """Keep a block's fragments, replacing what was kept of this block before.

        Args:
            block_number: Of the block that owns them.
            nodes: In any order.

        Raises:
            UserError: The store cannot be written: a full disk, no permission, or a database that stays away.
        """
        self.write("nodes", block_number, in_order("nodes", to_columns(nodes)))

    def write_edges(self, block_number: int, edges: Edges) -> None:
        """Keep the edges a block owns; see `write_nodes`."""
        self.write("edges", block_number, in_order("edges", to_columns(edges)))

    def write_outside(self, block_number: int, outside: Outside) -> None:
        """Keep which of a block's fragments reach to where no fragment is; see `write_nodes`."""
        self.write("outside", block_number, in_order("outside", to_columns(outside)))

    def nodes(self) -> Iterator[Nodes]:
        """The nodes, block by block in the order of the blocks' numbers.

        Raises:
            UserError: The store cannot be read, or rows of a block are missing.
        """
        return (nodes_of(columns) for _, columns in self.read("nodes"))

    def edges(self) -> Iterator[Edges]:
        """The edges, likewise."""
        return (edges_of(columns) for _, columns in self.read("edges"))

    def sizes(self) -> Iterator[Sizes]:
        """Of the nodes, what a merge forest asks for, likewise."""
        return self._some("nodes", Sizes)

    def scores(self) -> Iterator[Scores]:
        """Of the edges, what a merge forest asks for, likewise."""
        return self._some("edges", Scores)

    def areas(self) -> Iterator[Areas]:
        """Of the edges, what contacts of segments are made of, likewise."""
        return self._some("edges", Areas)

    def _some(self, kind: Kind, rows: type[T]) -> Iterator[T]:
        names = [field.name for field in fields(rows)]
        return (rows(**columns) for _, columns in self.read(kind, names=names))

    def read_nodes(self, roi: Roi | None = None) -> Nodes:
        """The nodes whose centre lies in a region.

        Args:
            roi: In voxels; None for all.

        Raises:
            UserError: The store cannot be read, or rows of a block are missing.
        """
        nodes = nodes_of(self._all("nodes", roi))
        if roi is None:
            return nodes
        begin, end = np.array(roi.begin), np.array(roi.end)
        return nodes.select(np.all((nodes.centre >= begin) & (nodes.centre < end), axis=1))

    def read_edges(self) -> Edges:
        """All edges; see `read_nodes`."""
        return edges_of(self._all("edges"))

    def read_outside(self) -> Outside:
        """All fragments that reach to where no fragment is; see `read_nodes`."""
        return outside_of(self._all("outside"))

    def _all(self, kind: Kind, roi: Roi | None = None) -> Columns:
        parts = [no_rows(kind), *(columns for _, columns in self.read(kind, roi))]
        return {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS[kind]}


def in_parts(rows: dict[int, int], at_once: int) -> list[list[int]]:
    """Block numbers, ascending, in parts of up to so many rows, so that a part fits into memory.

    Args:
        rows: How many rows each block has.
        at_once: Rows of a part; a block that has more is a part of its own.
    """
    parts: list[list[int]] = []
    size = at_once + 1
    for number in sorted(rows):
        if size + rows[number] > at_once:
            parts.append([])
            size = 0
        parts[-1].append(number)
        size += rows[number]
    return parts
