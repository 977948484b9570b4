"""The graph in files, the default: one Arrow file of nodes and one of edges per block.

    graph/nodes/000000000042.arrow     id, size, mean affinity, centre, bounding box                sorted by id
    graph/edges/000000000042.arrow     u, v, merge score, contact area, mean affinity, position     sorted by u, v
    graph/outside/000000000042.arrow   id, faces to where no fragment is                            sorted by id

Any number of workers write at once without locks, because a block is written by whoever does it, whole or not at
all; a block done twice gives the same bytes. Readers go through the blocks in their order, so what they see does not
depend on who wrote when.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from funlib.geometry import Roi
from pyarrow import ipc

from neuroloom.errors import UserError
from neuroloom.files import write_atomic
from neuroloom.graph.store import GraphStore
from neuroloom.graph.tables import Columns, Kind

AGAIN = "Delete the folder in `results` in which it lies, and run the same command again: what was in it is made anew."
"""What mends a file that is not as it was written; a stage that is done would not write it again by itself."""


AHEAD = 16
"""At least as many files the system is asked for before they are read, twice as many at most; some megabytes."""


class GraphFiles(GraphStore):
    """Nodes and edges of one volume, kept in a folder.

    Args:
        folder: Where the files lie; made by the first writer.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = Path(folder)

    def write(self, kind: Kind, block_number: int, columns: Columns) -> None:
        """Write a block's file; see `GraphStore.write`."""
        write_table(self.folder / kind / f"{block_number:012d}.arrow", _table(columns))

    def blocks(self, kind: Kind) -> set[int]:
        """Numbers of the blocks that have a file."""
        return {int(path.stem) for path in self._paths(kind)}

    def read(self, kind: Kind, roi: Roi | None = None, names: Sequence[str] = ()) -> Iterator[tuple[int, Columns]]:
        """Block by block; see `GraphStore.read`.

        Raises:
            UserError: A file is damaged.
        """
        paths = self._paths(kind)
        for place, path in enumerate(paths):
            if place % AHEAD == 0:
                _will_read(paths[place + AHEAD if place else 0 : place + 2 * AHEAD])
            table = read_table(path, names)
            yield int(path.stem), {name: table[name].to_numpy() for name in table.column_names}

    def _paths(self, kind: Kind) -> list[Path]:
        # names have one length, so their order is that of the numbers; files being written start with a dot
        return sorted(path for path in (self.folder / kind).glob("*.arrow") if not path.name.startswith("."))


def _will_read(paths: Sequence[Path]) -> None:
    """Let the system read files while others are worked on."""
    if hasattr(os, "posix_fadvise"):  # not on macOS
        for path in paths:
            with contextlib.suppress(OSError), path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _table(columns: Columns) -> pa.Table:
    """Columns of numbers as they lie in memory; `pa.table` of arrays imports pandas where there is one, to ask it."""
    contiguous = {name: np.ascontiguousarray(values) for name, values in columns.items()}
    return pa.table(
        {
            name: pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])
            for name, values in contiguous.items()
        }
    )


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


def read_table(path: Path, names: Sequence[str] = ()) -> pa.Table:
    """Read an Arrow file.

    Args:
        path: The file.
        names: Of the columns that are taken out of it; none for all.

    Raises:
        UserError: It is missing or damaged.
    """
    try:
        with pa.OSFile(str(path)) as file:
            reader = ipc.open_file(file)
            if names:
                places = [reader.schema.get_field_index(name) for name in names]
                reader = ipc.open_file(file, options=ipc.IpcReadOptions(included_fields=places))
            return reader.read_all()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist. {AGAIN}") from error
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as an Arrow file ({error}). It is damaged. {AGAIN}") from error
