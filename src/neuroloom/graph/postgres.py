"""The graph in PostgreSQL: a schema per run, with views that other programs can ask.

    "<run>".run                               what the run is
    "<run>".blocks                            kind, block, rows: which blocks are written
    "<run>".nodes_by_block, edges_by_block, … a block in a row: the box its places lie in, and an array per column
    "<run>".nodes, edges, outside             views of them: a row per node or edge, with the number of its block

A row per edge would cost the server a header of 24 bytes and a visit each, three times as much as the numbers in it.
Blocks go in and out as binary COPY, array by array, which numpy makes and reads. They are not compressed: ids of
neighbours are alike, but the server's compression takes longer than its disk. Two indexes find blocks by number, and by
region. Ids from 2**63 on are kept as negative numbers.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from funlib.geometry import Roi
from numpy.typing import NDArray

from neuroloom.addresses import with_credentials, without_secrets
from neuroloom.errors import UserError
from neuroloom.graph.retrying import Away, of_another_run, package_missing, patiently, rows_missing
from neuroloom.graph.store import GraphStore, Run, in_parts
from neuroloom.graph.tables import AXES, COLUMNS, KINDS, Columns, Kind, in_order, no_rows, signed, unsigned

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

AT_ONCE = 500_000
"""Rows that are read at once, and of one array; a block that has more is cut."""
_LONGEST_NAME = 63
"""Bytes of a schema's name."""
_FAR = 2**62
"""Voxels; a place that is no number lies anywhere."""
_TYPES = {
    "u8": ("bigint", ">i8", 20),
    "i8": ("bigint", ">i8", 20),
    "f4": ("real", ">f4", 700),
    "f8": ("double precision", ">f8", 701),
}
"""Of columns: as the server names them, as they travel, and their numbers."""
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_FINAL = ("authentication failed", "no password supplied", "does not exist", "pg_hba.conf", "permission denied")
"""Words of a refusal that no waiting changes; a connection that is refused comes without a code."""


class GraphPostgres(GraphStore):
    """Nodes and edges of one run in PostgreSQL.

    Args:
        address: `postgresql://HOST/DATABASE`, without credentials.
        run: Whose rows these are.

    Raises:
        UserError: psycopg is not installed.
    """

    def __init__(self, address: str, run: Run) -> None:
        super().__init__(address)
        self.run = run
        self.schema = schema_name(run.name)
        self._connection: psycopg.Connection[Any] | None = None
        self._made = False
        _psycopg()

    @classmethod
    def runs(cls, address: str) -> list[Run]:
        """All runs that a database holds, by name.

        Raises:
            UserError: The database cannot be read.
        """
        store = cls(address, Run(name="", fingerprint=""))
        query = (
            "SELECT nspname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
            "WHERE relname = 'run' AND EXISTS (SELECT FROM pg_class AS other WHERE other.relnamespace = "
            "pg_class.relnamespace AND other.relname = 'outside_by_block') ORDER BY nspname"
        )
        found = []
        for (schema,) in store._do(lambda db: db.execute(query).fetchall()):
            table = f'{_quoted(schema)}."run"'
            found += store._do(partial(_fetch, query=f"SELECT content FROM {table}"))
        store.close()
        return [Run.model_validate_json(content) for (content,) in found]

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.close()
            self._connection = None

    def write(self, kind: Kind, block_number: int, columns: Columns) -> None:
        """Write a block in one transaction; see `GraphStore.write`."""
        self._do(lambda db: self._write(db, kind, block_number, columns))

    def _write(self, db: psycopg.Connection[Any], kind: Kind, block_number: int, columns: Columns) -> None:
        self._make_tables(db)
        count = len(next(iter(columns.values())))
        with db.transaction():
            # whoever writes the same block waits here until the other one is done
            (before,) = db.execute(
                _sql(
                    f"INSERT INTO {self._table('blocks')} VALUES (%s, %s, %s) ON CONFLICT (kind, block) "
                    "DO UPDATE SET rows = excluded.rows RETURNING xmax <> 0"
                ),
                (kind, block_number, count),
            ).fetchone()  # type: ignore[misc]
            if before:
                db.execute(_sql(f"DELETE FROM {self._by_block(kind)} WHERE block = %s"), (block_number,))
            names = ", ".join(["block", *(axis for axis in AXES if _place(kind)), *columns])
            with db.cursor().copy(_sql(f"COPY {self._by_block(kind)} ({names}) FROM STDIN (FORMAT BINARY)")) as copy:
                copy.write(_HEADER)
                for begin in range(0, count, AT_ONCE):
                    part = {name: column[begin : begin + AT_ONCE] for name, column in columns.items()}
                    # array by array: the server works on one while the next is prepared
                    for message in to_messages(kind, block_number, part):
                        copy.write(message)
                copy.write(_END)

    def blocks(self, kind: Kind) -> set[int]:
        """Numbers of the blocks that were written."""
        return set(self._rows(kind))

    def read(self, kind: Kind, roi: Roi | None = None, names: Sequence[str] = ()) -> Iterator[tuple[int, Columns]]:
        """Block by block; see `GraphStore.read`."""
        rows, names = self._rows(kind), names or list(COLUMNS[kind])
        for numbers in in_parts(rows, AT_ONCE):
            ends = numbers[0], numbers[-1]
            found = self._do(partial(self._read, kind=kind, blocks=ends, roi=roi, names=names))
            for number in numbers:
                block = found.pop(number, None)
                got = 0 if block is None else len(next(iter(block.values())))
                if roi is None and got != rows[number]:
                    raise rows_missing(self.address, kind, number, got, rows[number])
                if block is not None:
                    yield number, block
                elif roi is None:
                    yield number, {name: column for name, column in no_rows(kind).items() if name in names}

    def _read(
        self,
        db: psycopg.Connection[Any],
        kind: Kind,
        blocks: tuple[int, int],
        roi: Roi | None,
        names: Sequence[str],
    ) -> dict[int, Columns]:
        where = f"block BETWEEN {blocks[0]} AND {blocks[1]}"
        if roi is not None:
            for axis, begin, end in zip(AXES, roi.begin, roi.end, strict=True):
                where += f" AND {axis} && int8range({int(begin)}, {int(end)})"
        query = f"SELECT block, {', '.join(names)} FROM {self._by_block(kind)} WHERE {where}"
        with db.cursor().copy(_sql(f"COPY ({query}) TO STDOUT (FORMAT BINARY)")) as copy:
            return from_messages(b"".join(copy), kind, names)

    def _rows(self, kind: Kind) -> dict[int, int]:
        """How many rows each block has that was written."""
        query = _sql(f"SELECT block, rows FROM {self._table('blocks')} WHERE kind = %s")
        return self._do(lambda db: dict(db.execute(query, (kind,)).fetchall()) if self._known(db) else {})

    def _known(self, db: psycopg.Connection[Any]) -> bool:
        """Whether the database holds this run.

        Raises:
            UserError: It holds another one under its name, or one in another form.
        """
        tables = (self._table("run"), self._by_block("outside"))
        run, rows = db.execute("SELECT to_regclass(%s), to_regclass(%s)", tables).fetchone()  # type: ignore[misc]
        if run is None:
            return False
        if rows is None:
            raise UserError(
                f"{self.address} holds {self.schema} as an older neuroloom wrote it. Drop that schema, and run "
                "the same command again."
            )
        (content,) = db.execute(_sql(f"SELECT content FROM {self._table('run')}")).fetchone()  # type: ignore[misc]
        if Run.model_validate_json(content).fingerprint != self.run.fingerprint:
            raise of_another_run(self.address, self.schema)
        return True

    def _make_tables(self, db: psycopg.Connection[Any]) -> None:
        if self._made:
            return
        with db.transaction():
            db.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (self.schema,))
            if not self._known(db):
                db.execute(_sql(f"CREATE SCHEMA IF NOT EXISTS {_quoted(self.schema)}"))
                db.execute(
                    _sql(
                        f"CREATE TABLE {self._table('blocks')} (kind text, block integer, rows bigint NOT NULL, "
                        "PRIMARY KEY (kind, block))"
                    )
                )
                for kind in KINDS:
                    self._make_table(db, kind)
                db.execute(_sql(f"CREATE TABLE {self._table('run')} (content text NOT NULL)"))
                db.execute(_sql(f"INSERT INTO {self._table('run')} VALUES (%s)"), (self.run.model_dump_json(),))
        self._made = True

    def _make_table(self, db: psycopg.Connection[Any], kind: Kind) -> None:
        table, names = self._by_block(kind), list(COLUMNS[kind])
        ranges = [axis for axis in AXES if _place(kind)]
        columns = ["block integer", *(f"{axis} int8range" for axis in ranges)]
        columns += [f"{name} {_type(dtype)[0]}[]" for name, dtype in COLUMNS[kind].items()]
        db.execute(_sql(f"CREATE TABLE {table} ({' NOT NULL, '.join(columns)} NOT NULL)"))
        kept = ", ".join(f"ALTER {name} SET STORAGE EXTERNAL" for name in names)
        db.execute(_sql(f"ALTER TABLE {table} {kept}"))
        db.execute(_sql(f"CREATE INDEX {kind}_block ON {table} (block)"))
        if ranges:
            db.execute(_sql(f"CREATE INDEX {kind}_place ON {table} USING gist ({', '.join(ranges)})"))
        rows = f"LATERAL unnest({', '.join(f'blocks.{name}' for name in names)}) AS rows ({', '.join(names)})"
        view = f"SELECT blocks.block, rows.* FROM {table} AS blocks, {rows}"
        db.execute(_sql(f"CREATE VIEW {self._table(kind)} AS {view}"))

    def _by_block(self, kind: Kind) -> str:
        return self._table(f"{kind}_by_block")

    def _table(self, name: str) -> str:
        return f'{_quoted(self.schema)}."{name}"'

    def _do(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        return patiently(lambda: self._once(work), self.address)

    def _once(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        psycopg = _psycopg()
        connected = self._connection is not None and not self._connection.closed
        try:
            if self._connection is None or self._connection.closed:
                self._connection = _connect(self.address)
                connected = True
            return work(self._connection)
        except psycopg.errors.DiskFull as error:
            raise UserError(
                f"The server of {self.address} has no room left. Free some space and run the same command again: what "
                "was finished is kept."
            ) from error
        except (psycopg.OperationalError, psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
            self.close()
            self._made = False  # it may have come back without what was made
            text = without_secrets(" ".join(str(error).split()))
            if not connected and any(words in text for words in _FINAL):
                raise UserError(
                    f"{self.address} refuses the connection ({text}). User and password are taken from the environment "
                    "variable NEUROLOOM_POSTGRES, else from PGUSER, PGPASSWORD and ~/.pgpass."
                ) from None
            raise Away(text) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise UserError(
                f"{self.address} does not permit this ({error.diag.message_primary}). Ask for the right to make "
                "schemas in that database, or choose another one."
            ) from error


def schema_name(run: str) -> str:
    """A run's schema: its name, or the beginning of it and a hash where it is too long for PostgreSQL."""
    if len(run.encode()) <= _LONGEST_NAME:
        return run
    return run[: _LONGEST_NAME - 13] + "_" + hashlib.sha256(run.encode()).hexdigest()[:12]


def to_messages(kind: Kind, block_number: int, columns: Columns) -> Iterator[bytes]:
    """A row of a block as binary COPY wants it, in pieces.

    Args:
        kind: Of the rows in the arrays.
        block_number: The first column; the box of the places comes next.
        columns: The arrays; at least one row.

    Yields:
        Bytes; all together are the row.
    """
    place = _place(kind)
    ranges = [_range(columns[f"{place}_{axis}"]) for axis in AXES if place]
    yield struct.pack(">hii", 1 + len(ranges) + len(columns), 4, block_number) + b"".join(ranges)
    for name, column in signed(columns).items():
        _, travels, number = _type(COLUMNS[kind][name])
        # length and value of each; before it: length, dimensions, whether there are NULLs, type, extent, first index
        items: NDArray[Any] = np.empty(len(column), [("length", ">i4"), ("value", travels)])
        items["length"] = np.dtype(travels).itemsize
        items["value"] = column
        yield struct.pack(">iiiiii", 20 + items.nbytes, 1, 0, number, len(column), 1)
        yield items.tobytes()


def from_messages(data: bytes, kind: Kind, names: Sequence[str]) -> dict[int, Columns]:
    """Rows, sorted, by block numbers, from what COPY gave: each block's number, and an array for each name."""
    parts: dict[int, list[Columns]] = {}
    place = len(_HEADER)
    while data[place : place + 2] != _END:
        (block,) = struct.unpack_from(">i", data, place + 6)
        place += 10
        columns: Columns = {}
        for name in names:
            (length,) = struct.unpack_from(">i", data, place)
            # of no values, an array says nothing but its type
            (count,) = struct.unpack_from(">i", data, place + 16) if length >= 20 else (0,)
            item = np.dtype([("length", ">i4"), ("value", _type(COLUMNS[kind][name])[1])])
            if length != 20 + count * item.itemsize:  # NULLs: changed by hand, and missed by their number
                count = 0
            values: NDArray[Any] = np.frombuffer(data, item, count, place + 24)["value"]
            columns[name] = values.astype(values.dtype.newbyteorder("="))
            place += 4 + length
        shortest = min(map(len, columns.values()))
        parts.setdefault(block, []).append({name: column[:shortest] for name, column in columns.items()})
    return {block: in_order(kind, unsigned(kind, _joined(several))) for block, several in parts.items()}


def _joined(parts: list[Columns]) -> Columns:
    return parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _place(kind: Kind) -> str:
    """The columns that say where a row lies, without their axes; empty if there are none."""
    return {"nodes": "centre", "edges": "position", "outside": ""}[kind]


def _range(values: NDArray[Any]) -> bytes:
    """Whole numbers from below the smallest value to above the largest, as an int8range travels."""
    ends = np.array([values.min(), values.max()], np.float64)
    low, high = np.floor(ends).clip(-_FAR, _FAR).astype(int) if np.isfinite(ends).all() else (-_FAR, _FAR)
    return struct.pack(">iBiqiq", 25, 2, 8, low, 8, high + 1)  # 2: its begin belongs to it


def _type(dtype: np.dtype[Any]) -> tuple[str, str, int]:
    return _TYPES[f"{dtype.kind}{dtype.itemsize}"]


def _quoted(name: str) -> str:
    return '"' + re.sub('["\0%]', "", name) + '"'


def _sql(text: str) -> Any:
    """A statement of our own making: names in it are quoted, and numbers are numbers."""
    return text


def _fetch(db: psycopg.Connection[Any], query: str) -> list[Any]:
    return db.execute(_sql(query)).fetchall()


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise package_missing("psycopg", "postgres") from error
    return psycopg


def _connect(address: str) -> psycopg.Connection[Any]:
    driver = _psycopg()
    from psycopg.conninfo import conninfo_to_dict

    secret = with_credentials(address, "postgresql")
    try:
        settings = {"connect_timeout": 10, "application_name": "neuroloom"}
        settings |= {**(conninfo_to_dict(secret) if secret else {}), **conninfo_to_dict(address)}
    except driver.Error:  # its message repeats what it was given
        raise UserError(
            f"{address}, or the environment variable NEUROLOOM_POSTGRES, is no address that libpq understands. "
            "Expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE."
        ) from None
    connection: psycopg.Connection[Any] = driver.connect(**settings, autocommit=True)
    return connection
