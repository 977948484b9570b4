"""The graph in one SQLite file, for one machine: no server, and open to SQL.

    runs                run, content               which runs the file holds
    blocks              run, kind, block, first, rows, and the box of its nodes' centres
    "<run>_nodes" …     row, and a column each     a block's rows lie one after the other

A block is written in one transaction and gets consecutive row numbers: reading it is reading a stretch of the table,
which needs no further index. Regions are found by the boxes. Ids from 2**63 on are kept as negative numbers.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from funlib.geometry import Roi

from neuroloom.addresses import sqlite_path
from neuroloom.errors import UserError
from neuroloom.files import make_folder
from neuroloom.graph.retrying import Away, of_another_run, patiently, rows_missing
from neuroloom.graph.store import GraphStore, Run
from neuroloom.graph.tables import AXES, COLUMNS, KINDS, Columns, Kind, signed, unsigned

T = TypeVar("T")

BUSY = 30.0
"""Seconds to wait for another process that writes."""
AT_ONCE = 50_000
"""Rows that are turned into Python's numbers at once."""
_COLUMN = {"u": "INTEGER", "i": "INTEGER", "f": "REAL"}


class GraphSqlite(GraphStore):
    """Nodes and edges of one run in a SQLite file.

    Args:
        address: `sqlite:FILE`; the file is made by the first writer.
        run: Whose rows these are.
    """

    def __init__(self, address: str, run: Run) -> None:
        super().__init__(address)
        self.file = Path(sqlite_path(address))
        self.run = run
        self._connection: sqlite3.Connection | None = None

    @classmethod
    def runs(cls, address: str) -> list[Run]:
        """All runs that a file holds, by name.

        Raises:
            UserError: The file cannot be read.
        """
        store = cls(address, Run(name="", fingerprint=""))
        if not store.file.exists():
            return []
        found = store._do(lambda db: db.execute("SELECT content FROM runs ORDER BY run").fetchall())
        store.close()
        return [Run.model_validate_json(content) for (content,) in found]

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def write(self, kind: Kind, block_number: int, columns: Columns) -> None:
        """Write a block in one transaction; see `GraphStore.write`."""
        self._do(lambda db: self._write(db, kind, block_number, columns), writing=True)

    def _write(self, db: sqlite3.Connection, kind: Kind, block_number: int, columns: Columns) -> None:
        table, key = self._table(kind), (self.run.name, kind, block_number)
        count = len(next(iter(columns.values())))
        lists = list(signed(columns).values())
        with _transaction(db):
            self._make_tables(db)
            for first, rows in db.execute("SELECT first, rows FROM blocks WHERE (run, kind, block) = (?, ?, ?)", key):
                db.execute(f"DELETE FROM {table} WHERE row >= ? AND row < ?", (first, first + rows))
            begin = db.execute(f"SELECT coalesce(max(row) + 1, 0) FROM {table}").fetchone()[0]
            marks = ", ".join("?" * (1 + len(lists)))
            for a in range(0, count, AT_ONCE):
                b = min(a + AT_ONCE, count)
                rows_of = zip(range(begin + a, begin + b), *(column[a:b].tolist() for column in lists), strict=True)
                db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows_of)
            box: list[float | None] = [None] * 6
            if kind == "nodes" and count:
                centres = [columns[f"centre_{axis}"] for axis in AXES]
                box = [float(edge) for c in centres for edge in (c.min(), c.max())]
            db.execute(
                "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*key, begin, count, *box)
            )

    def blocks(self, kind: Kind) -> set[int]:
        """Numbers of the blocks that were written."""
        return {number for number, _, _ in self._places(kind, None)}

    def read(self, kind: Kind, roi: Roi | None = None, names: Sequence[str] = ()) -> Iterator[tuple[int, Columns]]:
        """Block by block; see `GraphStore.read`."""
        for number, first, rows in self._places(kind, roi):
            read = partial(self._read, kind=kind, number=number, first=first, rows=rows, names=names or COLUMNS[kind])
            yield number, self._do(read)

    def _read(
        self, db: sqlite3.Connection, kind: Kind, number: int, first: int, rows: int, names: Iterable[str]
    ) -> Columns:
        cursor = db.execute(
            f"SELECT {', '.join(names)} FROM {self._table(kind)} WHERE row >= ? AND row < ? ORDER BY row",
            (first, first + rows),
        )
        dtypes = {name: COLUMNS[kind][name] for name in names}
        types = [(name, np.int64 if dtype == np.uint64 else dtype) for name, dtype in dtypes.items()]
        # what is no number is kept as NULL and comes back as None, which numpy takes for NaN
        found = np.fromiter(cursor, np.dtype(types))
        if len(found) != rows:
            raise rows_missing(self.address, kind, number, len(found), rows)
        return unsigned(kind, {name: np.ascontiguousarray(found[name]) for name, _ in types})

    def _places(self, kind: Kind, roi: Roi | None) -> list[tuple[int, int, int]]:
        """Number, first row and rows of the blocks, of those that reach into a region."""
        if not self.file.exists():
            return []
        where, values = "", list[str | int]()
        if roi is not None:
            for axis, begin, end in zip(AXES, roi.begin, roi.end, strict=True):
                where += f" AND high_{axis} >= ? AND low_{axis} < ?"
                values += [int(begin), int(end)]
        query = f"SELECT block, first, rows FROM blocks WHERE run = ? AND kind = ?{where} ORDER BY block"
        return (
            self._do(lambda db: self._known(db) and db.execute(query, (self.run.name, kind, *values)).fetchall()) or []
        )

    def _known(self, db: sqlite3.Connection) -> bool:
        """Whether the file holds this run.

        Raises:
            UserError: It holds another one under its name.
        """
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchone():
            return False
        found = db.execute("SELECT content FROM runs WHERE run = ?", (self.run.name,)).fetchone()
        if found and Run.model_validate_json(found[0]).fingerprint != self.run.fingerprint:
            raise of_another_run(self.address, self.run.name)
        return bool(found)

    def _make_tables(self, db: sqlite3.Connection) -> None:
        if self._known(db):
            return
        box = ", ".join(f"{side}_{axis} REAL" for axis in AXES for side in ("low", "high"))
        db.execute("CREATE TABLE IF NOT EXISTS runs (run TEXT PRIMARY KEY, content TEXT NOT NULL)")
        db.execute(
            "CREATE TABLE IF NOT EXISTS blocks (run TEXT, kind TEXT, block INTEGER, first INTEGER NOT NULL, "
            f"rows INTEGER NOT NULL, {box}, PRIMARY KEY (run, kind, block)) WITHOUT ROWID"
        )
        for kind in KINDS:
            columns = ", ".join(f"{name} {_COLUMN[dtype.kind]}" for name, dtype in COLUMNS[kind].items())
            db.execute(f"CREATE TABLE IF NOT EXISTS {self._table(kind)} (row INTEGER PRIMARY KEY, {columns})")
        db.execute("INSERT INTO runs VALUES (?, ?)", (self.run.name, self.run.model_dump_json()))

    def _table(self, kind: Kind) -> str:
        return '"' + f"{self.run.name}_{kind}".replace('"', "") + '"'

    def _do(self, work: Callable[[sqlite3.Connection], T], writing: bool = False) -> T:
        return patiently(lambda: self._once(work, writing), self.address)

    def _once(self, work: Callable[[sqlite3.Connection], T], writing: bool) -> T:
        try:
            if self._connection is None:
                if writing:
                    make_folder(self.file.parent)
                self._connection = _open(self.file)
            return work(self._connection)
        except sqlite3.OperationalError as error:
            text = str(error)
            if "locked" in text or "busy" in text:
                raise Away(text) from error
            if "full" in text:
                raise UserError(
                    f"No room left on the disk while writing {self.file}. Free some space and run the same command "
                    "again: what was finished is kept."
                ) from error
            self.close()
            raise UserError(
                f"{self.file} cannot be used as a graph store ({text}). Choose a file in a folder that you may "
                "write to."
            ) from error
        except sqlite3.DatabaseError as error:
            self.close()
            raise UserError(
                f"{self.file} cannot be read as a SQLite database ({error}). Choose another file, or delete this one "
                "and the steps' folders in `results` whose rows it holds, and run them again."
            ) from error


def _open(file: Path) -> sqlite3.Connection:
    db = sqlite3.connect(file, timeout=BUSY, isolation_level=None, check_same_thread=False)
    # readers and one writer at a time do not wait for each other; file systems that cannot do it keep the old way
    with contextlib.suppress(sqlite3.OperationalError):
        if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            db.execute("PRAGMA journal_mode = WAL")
    return db


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
