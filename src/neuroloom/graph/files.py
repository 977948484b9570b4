"""The graph in files, the default: one Arrow file of nodes and one of edges per block.

    graph/nodes/000000000042.arrow     id, centre, size, mean affinity, bounding box      sorted by id
    graph/edges/000000000042.arrow     u, v, merge score, contact area, mean affinity     sorted by u, v
    graph/outside/000000000042.arrow   id, faces to where no fragment is                  sorted by id

Any number of workers write at once without locks, because a block is written by whoever does it, whole or not at
all; a block done twice gives the same bytes. Readers go through the blocks in their order, so what they see does not
depend on who wrote when.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from funlib.geometry import Roi
from numpy.typing import NDArray
from pyarrow import ipc

from neuroloom.errors import UserError
from neuroloom.files import write_atomic
from neuroloom.graph.tables import Edges, Nodes, Outside

_AXES = ("z", "y", "x")

AGAIN = "Delete the folder in `results` in which it lies, and run the same command again: what was in it is made anew."
"""What mends a file that is not as it was written; a stage that is done would not write it again by itself."""


class GraphFiles:
    """Nodes and edges of one volume, kept in a folder.

    Args:
        folder: Where the files lie; made by the first writer.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def write_nodes(self, block_number: int, nodes: Nodes) -> None:
        """Keep a block's fragments, replacing what was kept of this block before.

        Args:
            block_number: Of the block that owns them.
            nodes: In any order.

        Raises:
            UserError: The disk is full or the folder cannot be written.
        """
        rows = nodes.select(np.argsort(nodes.id, kind="stable"))
        columns: dict[str, NDArray[Any]] = {"id": rows.id, "size": rows.size, "mean_affinity": rows.mean_affinity}
        for name in ("centre", "begin", "end"):
            columns |= {f"{name}_{axis}": getattr(rows, name)[:, i] for i, axis in enumerate(_AXES)}
        write_table(self._path("nodes", block_number), pa.table(columns))

    def write_edges(self, block_number: int, edges: Edges) -> None:
        """Keep the edges a block owns, replacing what was kept of this block before.

        Args:
            block_number: Of the block that owns them.
            edges: In any order.

        Raises:
            UserError: The disk is full or the folder cannot be written.
        """
        rows = edges.select(np.lexsort((edges.v, edges.u)))
        names = ("u", "v", "merge_score", "contact_area", "mean_affinity")
        write_table(self._path("edges", block_number), pa.table({name: getattr(rows, name) for name in names}))

    def write_outside(self, block_number: int, outside: Outside) -> None:
        """Keep which of a block's fragments reach to where no fragment is, replacing what was kept of it before.

        Args:
            block_number: Of the block that owns them.
            outside: In any order.

        Raises:
            UserError: The disk is full or the folder cannot be written.
        """
        rows = outside.select(np.argsort(outside.id, kind="stable"))
        write_table(self._path("outside", block_number), pa.table({"id": rows.id, "faces": rows.faces}))

    def nodes(self) -> Iterator[Nodes]:
        """The nodes, block by block in the order of the blocks' numbers.

        Raises:
            UserError: A file is damaged.
        """
        for path in self._paths("nodes"):
            columns = _columns(path)
            places = {
                name: np.stack([columns[f"{name}_{axis}"] for axis in _AXES], axis=1)
                for name in ("centre", "begin", "end")
            }
            yield Nodes(
                columns["id"],
                places["centre"],
                columns["size"],
                columns["mean_affinity"],
                places["begin"],
                places["end"],
            )

    def edges(self) -> Iterator[Edges]:
        """The edges, block by block in the order of the blocks' numbers.

        Raises:
            UserError: A file is damaged.
        """
        for path in self._paths("edges"):
            columns = _columns(path)
            yield Edges(
                columns["u"],
                columns["v"],
                columns["merge_score"],
                columns["contact_area"],
                columns["mean_affinity"],
            )

    def read_nodes(self, roi: Roi | None = None) -> Nodes:
        """The nodes whose centre lies in a region.

        Args:
            roi: In voxels; None for all.

        Raises:
            UserError: A file is damaged.
        """
        none = np.empty(0)
        no_place = np.empty((0, 3))
        parts = [
            Nodes(
                none.astype(np.uint64),
                no_place,
                none.astype(np.int64),
                none.astype(np.float32),
                no_place.astype(np.int64),
                no_place.astype(np.int64),
            )
        ]
        for nodes in self.nodes():
            if roi is None:
                parts.append(nodes)
            else:
                begin, end = np.array(roi.begin), np.array(roi.end)
                parts.append(nodes.select(np.all((nodes.centre >= begin) & (nodes.centre < end), axis=1)))
        return Nodes.concatenate(parts)

    def read_edges(self) -> Edges:
        """All edges.

        Raises:
            UserError: A file is damaged.
        """
        none = np.empty(0)
        empty = Edges(
            none.astype(np.uint64),
            none.astype(np.uint64),
            none.astype(np.float32),
            none.astype(np.int64),
            none.astype(np.float32),
        )
        return Edges.concatenate([empty, *self.edges()])

    def read_outside(self) -> Outside:
        """All fragments that reach to where no fragment is.

        Raises:
            UserError: A file is damaged.
        """
        empty = Outside(np.empty(0, np.uint64), np.empty(0, np.int64))
        files = (_columns(path) for path in self._paths("outside"))
        return Outside.concatenate([empty, *(Outside(columns["id"], columns["faces"]) for columns in files)])

    def _path(self, kind: str, block_number: int) -> Path:
        return self.folder / kind / f"{block_number:012d}.arrow"

    def _paths(self, kind: str) -> list[Path]:
        # names have one length, so their order is that of the numbers; files being written start with a dot
        return sorted(path for path in (self.folder / kind).glob("*.arrow") if not path.name.startswith("."))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table to an Arrow file, atomically: equal tables give equal bytes.

    Args:
        path: The file.
        table: The table.

    Raises:
        UserError: The disk is full or the folder cannot be written.
    """
    options = ipc.IpcWriteOptions(compression="zstd")
    sink = pa.BufferOutputStream()
    with ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table.combine_chunks())
    content = sink.getvalue()
    write_atomic(path, lambda file: file.write(content))


def read_table(path: Path) -> pa.Table:
    """Read an Arrow file.

    Args:
        path: The file.

    Raises:
        UserError: It is missing or damaged.
    """
    try:
        with pa.OSFile(str(path)) as file:
            return ipc.open_file(file).read_all()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist. {AGAIN}") from error
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as an Arrow file ({error}). It is damaged. {AGAIN}") from error


def _columns(path: Path) -> dict[str, NDArray[Any]]:
    table = read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}
