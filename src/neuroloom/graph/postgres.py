"""The graph in PostgreSQL: a schema per run, with its rows in tables that other programs can ask.

    "<run>".run                        what the run is
    "<run>".blocks                     kind, block, rows: which blocks are written
    "<run>".nodes, edges, outside      block, and a column each

Rows go in and out as binary COPY, in buffers that numpy makes and reads. On the way out the server puts each column of
a block into an array, so that one message holds a whole block; a message per row would take three times as long. The
index is made when the graph is first read, since writing is faster without: a BRIN of blocks, and of centres, along
which rows lie anyway, is a thousandth of the table's size. Ids from 2**63 on are kept as negative numbers.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import struct
from collections.abc import Callable, Iterator
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
"""Rows that are read at once."""
IN_A_BUFFER = 5_000
"""Rows that are sent at once: the server works on them while the next are prepared."""
_LONGEST_NAME = 63
"""Bytes of a schema's name."""
_TYPES = {"u8": ("bigint", ">i8"), "i8": ("bigint", ">i8"), "f4": ("real", ">f4"), "f8": ("double precision", ">f8")}
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
        self._buffers: dict[Kind, NDArray[Any]] = {}
        self._made = False
        self._indexed: set[Kind] = set()
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
            "pg_class.relnamespace AND other.relname = 'outside') ORDER BY nspname"
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
                db.execute(_sql(f"DELETE FROM {self._table(kind)} WHERE block = %s"), (block_number,))
            names = ", ".join(["block", *columns])
            with db.cursor().copy(_sql(f"COPY {self._table(kind)} ({names}) FROM STDIN (FORMAT BINARY)")) as copy:
                if kind not in self._buffers:
                    self._buffers[kind] = empty_rows(kind)
                copy.write(_HEADER)
                for begin in range(0, count, IN_A_BUFFER):
                    part = {name: column[begin : begin + IN_A_BUFFER] for name, column in columns.items()}
                    copy.write(fill_rows(self._buffers[kind], block_number, part))
                copy.write(_END)

    def blocks(self, kind: Kind) -> set[int]:
        """Numbers of the blocks that were written."""
        return set(self._rows(kind))

    def read(self, kind: Kind, roi: Roi | None = None) -> Iterator[tuple[int, Columns]]:
        """Block by block; see `GraphStore.read`."""
        rows = self._rows(kind)
        if any(rows.values()) and kind not in self._indexed:
            self._do(lambda db: self._make_index(db, kind))
            self._indexed.add(kind)
        for numbers in in_parts(rows, AT_ONCE):
            found = self._do(partial(self._read, kind=kind, first=numbers[0], last=numbers[-1], roi=roi))
            for number in numbers:
                block = found.pop(number, None)
                got = 0 if block is None else len(next(iter(block.values())))
                if roi is None and got != rows[number]:
                    raise rows_missing(self.address, kind, number, got, rows[number])
                if block is not None:
                    yield number, block
                elif roi is None:
                    yield number, no_rows(kind)

    def _read(
        self, db: psycopg.Connection[Any], kind: Kind, first: int, last: int, roi: Roi | None
    ) -> dict[int, Columns]:
        where = f"block BETWEEN {first} AND {last}"
        if roi is not None:
            for axis, begin, end in zip(AXES, roi.begin, roi.end, strict=True):
                where += f" AND centre_{axis} >= {int(begin)} AND centre_{axis} < {int(end)}"
        arrays = ", ".join(f"array_agg({name})" for name in COLUMNS[kind])
        query = f"SELECT block, {arrays} FROM {self._table(kind)} WHERE {where} GROUP BY block"
        with db.cursor().copy(_sql(f"COPY ({query}) TO STDOUT (FORMAT BINARY)")) as copy:
            return dict(from_messages(b"".join(copy), kind))

    def _rows(self, kind: Kind) -> dict[int, int]:
        """How many rows each block has that was written."""
        query = _sql(f"SELECT block, rows FROM {self._table('blocks')} WHERE kind = %s")
        return self._do(lambda db: dict(db.execute(query, (kind,)).fetchall()) if self._known(db) else {})

    def _known(self, db: psycopg.Connection[Any]) -> bool:
        """Whether the database holds this run.

        Raises:
            UserError: It holds another one under its name.
        """
        (table,) = db.execute("SELECT to_regclass(%s)", (self._table("run"),)).fetchone()  # type: ignore[misc]
        if table is None:
            return False
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
                    # wide columns first: rows are a tenth smaller without gaps
                    widest = sorted(COLUMNS[kind].items(), key=lambda column: -column[1].itemsize)
                    columns = "".join(f"{name} {_type(dtype)[0]} NOT NULL, " for name, dtype in widest)
                    db.execute(_sql(f"CREATE TABLE {self._table(kind)} ({columns}block integer NOT NULL)"))
                db.execute(_sql(f"CREATE TABLE {self._table('run')} (content text NOT NULL)"))
                db.execute(_sql(f"INSERT INTO {self._table('run')} VALUES (%s)"), (self.run.model_dump_json(),))
        self._made = True

    def _make_index(self, db: psycopg.Connection[Any], kind: Kind) -> None:
        import psycopg

        columns = ", ".join(["block", *(f"centre_{axis}" for axis in AXES if kind == "nodes")])
        with contextlib.suppress(psycopg.errors.InsufficientPrivilege), db.transaction():
            db.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))", (self.schema,))
            db.execute(
                _sql(
                    f"CREATE INDEX IF NOT EXISTS {kind}_place ON {self._table(kind)} USING brin ({columns}) "
                    "WITH (pages_per_range = 16)"
                )
            )
            db.execute(_sql(f"ANALYZE {self._table(kind)} (block)"))

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


def empty_rows(kind: Kind) -> NDArray[Any]:
    """`IN_A_BUFFER` rows as binary COPY wants them: number of columns, then length and value of each; but no values."""
    types = [("block", ">i4"), *((name, _type(dtype)[1]) for name, dtype in COLUMNS[kind].items())]
    fields = [("count", ">i2")]
    for name, dtype in types:
        fields += [(f"{name} length", ">i4"), (name, dtype)]
    rows = np.zeros(IN_A_BUFFER, dtype=fields)
    rows["count"] = len(types)
    for name, dtype in types:
        rows[f"{name} length"] = np.dtype(dtype).itemsize
    return rows


def fill_rows(rows: NDArray[Any], block_number: int, columns: Columns) -> bytes:
    """Put values into rows.

    Args:
        rows: What `empty_rows` made; used again and again.
        block_number: The first column.
        columns: The others; up to as many rows.

    Returns:
        So many rows as bytes.
    """
    rows = rows[: len(next(iter(columns.values())))]
    rows["block"] = block_number
    for name, column in signed(columns).items():
        rows[name] = column
    return rows.tobytes()


def from_messages(data: bytes, kind: Kind) -> Iterator[tuple[int, Columns]]:
    """Block numbers and rows, sorted, of what COPY gave of blocks and arrays."""
    place = len(_HEADER)
    while data[place : place + 2] != _END:
        (block,) = struct.unpack_from(">i", data, place + 6)
        place += 10
        columns: Columns = {}
        for name, dtype in COLUMNS[kind].items():
            (length,) = struct.unpack_from(">i", data, place)
            # an array: dimensions, whether there are NULLs, type; extent and first index; then length and value of each
            (count,) = struct.unpack_from(">i", data, place + 16)
            item = np.dtype([("length", ">i4"), ("value", _type(dtype)[1])])
            values: NDArray[Any] = np.frombuffer(data, item, count, place + 24)["value"]
            columns[name] = values.astype(values.dtype.newbyteorder("="))
            place += 4 + length
        yield block, in_order(kind, unsigned(kind, columns))


def _type(dtype: np.dtype[Any]) -> tuple[str, str]:
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
