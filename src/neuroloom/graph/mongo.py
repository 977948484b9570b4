"""The graph in MongoDB, or what speaks its language (Azure Cosmos DB), laid out as existing tools expect it.

    database "<database>_<run of the fragments>"
      nodes                      id, center_z, center_y, center_x (nm), and our own fields
      edges_<merge function>     u, v, merge_score, and our own fields
      outside_<merge function>   id, faces
      meta                       what such tools look for: the graph has no direction
      neuroloom                  which runs are here, and which of their blocks

A row is a document whose name is made of block and row, so writing it twice is writing it once. No transactions are
needed: a block counts as written when its entry in `neuroloom` is there, which comes last; documents carry a hash of
their block's content, so that those of an earlier writing are told apart and removed. Ids from 2**63 on are kept as
negative numbers, as these tools keep them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from funlib.geometry import Roi

from neuroloom.addresses import with_credentials, without_secrets
from neuroloom.errors import UserError
from neuroloom.graph.retrying import Away, of_another_run, package_missing, patiently, rows_missing
from neuroloom.graph.store import GraphStore, Run, in_parts
from neuroloom.graph.tables import AXES, COLUMNS, Columns, Kind, in_order, signed, unsigned

T = TypeVar("T")

IN_A_BATCH = 1000
"""Documents that are sent at once; services that ration writes refuse large batches."""
AT_ONCE = 200_000
"""Rows that are read at once."""
TOO_MANY_REQUESTS = 16500
"""What Cosmos DB says where more is asked for than was paid for."""
_DUPLICATE = 11000
_REFUSED = {13, 18, 8000}
"""Not permitted, wrong user or password."""
_LONGEST_NAME = 63
"""Bytes of a database's name."""


class GraphMongo(GraphStore):
    """Nodes and edges of one run in MongoDB.

    Args:
        address: `mongodb://HOST/DATABASE`, without credentials.
        run: Whose rows these are.

    Raises:
        UserError: pymongo is not installed.
    """

    def __init__(self, address: str, run: Run) -> None:
        super().__init__(address)
        self.run = run
        self.database = database_name(address, run.fragments or run.name)
        self._client: Any = None
        self._made = False
        _pymongo()

    @classmethod
    def runs(cls, address: str) -> list[Run]:
        """All runs that databases of this address hold, by name.

        Raises:
            UserError: The server cannot be read.
        """
        store = cls(address, Run(name="", fingerprint=""))
        names = store._do(lambda client: client.list_database_names())
        begin = database_name(address, "")
        found = []
        for name in sorted(name for name in names if name.startswith(begin)):
            found += store._do(lambda client, name=name: list(client[name]["neuroloom"].find({"what": "run"})))  # type: ignore[misc]
        store.close()
        return [Run.model_validate_json(entry["content"]) for entry in found]

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def write(self, kind: Kind, block_number: int, columns: Columns) -> None:
        """Write a block; it counts as written when all of it is there. See `GraphStore.write`."""
        self._do(self._make_collections)
        content = hashlib.sha256(b"".join(np.ascontiguousarray(c).tobytes() for c in columns.values())).hexdigest()[:16]
        entry = self._entry(kind, block_number)
        self._do(lambda client: self._own(client).delete_one({"_id": entry, "content": {"$ne": content}}))
        stale = {"block": block_number, "written": {"$ne": content}}
        self._do(lambda client: self._collection(client, kind).delete_many(stale))
        count = len(next(iter(columns.values())))
        for begin in range(0, count, IN_A_BATCH):
            documents = self._documents(kind, block_number, columns, begin, content)
            self._do(partial(self._insert, kind=kind, documents=documents))
        written = {"what": "block", "run": self.run.name, "kind": kind, "block": block_number, "rows": count}
        self._do(
            lambda client: self._own(client).replace_one({"_id": entry}, {**written, "content": content}, upsert=True)
        )

    def _documents(
        self, kind: Kind, block_number: int, columns: Columns, begin: int, content: str
    ) -> list[dict[str, Any]]:
        """The documents of some of a block's rows."""
        part = {name: column[begin : begin + IN_A_BATCH] for name, column in signed(columns).items()}
        if kind == "nodes":
            for axis, size, offset in zip(AXES, self.run.voxel_size, self.run.offset, strict=True):
                part[f"center_{axis}"] = offset + size * part[f"centre_{axis}"]
        names = list(part)
        return [
            {
                "_id": f"{block_number}-{begin + row}",
                "block": block_number,
                "written": content,
                **dict(zip(names, values, strict=True)),
            }
            for row, values in enumerate(zip(*(column.tolist() for column in part.values()), strict=True))
        ]

    def _insert(self, client: Any, kind: Kind, documents: list[dict[str, Any]]) -> None:
        from pymongo.errors import BulkWriteError

        try:
            self._collection(client, kind).insert_many(documents, ordered=False)
        except BulkWriteError as error:
            problems = error.details.get("writeErrors", [])
            others = [problem for problem in problems if problem.get("code") != _DUPLICATE]
            if not others and not error.details.get("writeConcernErrors"):
                return  # they are there already: this batch was sent before
            first = (others or [{}])[0]
            if first.get("code") == TOO_MANY_REQUESTS:
                raise Away(first.get("errmsg", ""), _pause(str(first.get("errmsg", "")))) from error
            raise

    def blocks(self, kind: Kind) -> set[int]:
        """Numbers of the blocks that were written."""
        return set(self._entries(kind))

    def read(self, kind: Kind, roi: Roi | None = None, names: Sequence[str] = ()) -> Iterator[tuple[int, Columns]]:
        """Block by block; see `GraphStore.read`."""
        names = names or list(COLUMNS[kind])
        entries = self._entries(kind)
        rows = {number: count for number, (count, _) in entries.items()}
        for numbers in in_parts(rows, AT_ONCE):
            ends = numbers[0], numbers[-1]
            found = self._do(partial(self._read, kind=kind, blocks=ends, roi=roi, names=names))
            for number in numbers:
                mine = found["block"] == number
                mine &= found["written"] == entries[number][1]
                columns = unsigned(kind, {name: found[name][mine] for name in names})
                if roi is None and int(mine.sum()) != rows[number]:
                    raise rows_missing(self.address, kind, number, int(mine.sum()), rows[number])
                yield number, in_order(kind, columns)

    def _read(self, client: Any, kind: Kind, blocks: tuple[int, int], roi: Roi | None, names: Sequence[str]) -> Columns:
        asked: dict[str, Any] = {"block": {"$gte": blocks[0], "$lte": blocks[1]}}
        if roi is not None:
            for i, axis in enumerate(AXES):
                # a little more than the region, since nm are rounded
                size, offset = self.run.voxel_size[i], self.run.offset[i]
                begin, end = (offset + size * (int(edge[i]) + more) for edge, more in ((roi.begin, -1), (roi.end, 1)))
                asked[f"center_{axis}"] = {"$gte": begin, "$lt": end}
        dtypes = [COLUMNS[kind][name] for name in names]
        names = ["block", "written", *names]
        wanted = {"_id": False, **dict.fromkeys(names, True)}
        documents = [tuple(d[name] for name in names) for d in self._collection(client, kind).find(asked, wanted)]
        columns = list(zip(*documents, strict=True)) if documents else [()] * len(names)
        types: list[Any] = [np.int64, "U16"]
        types += [np.int64 if dtype == np.uint64 else dtype for dtype in dtypes]
        return {name: np.array(c, dtype) for name, c, dtype in zip(names, columns, types, strict=True)}

    def _entries(self, kind: Kind) -> dict[int, tuple[int, str]]:
        """Rows and content's hash of each block that was written."""
        asked = {"what": "block", "run": self.run.name, "kind": kind}

        def entries(client: Any) -> dict[int, tuple[int, str]]:
            if not self._known(client):
                return {}
            return {int(e["block"]): (int(e["rows"]), str(e["content"])) for e in self._own(client).find(asked)}

        return self._do(entries)

    def _known(self, client: Any) -> bool:
        """Whether the database holds this run.

        Raises:
            UserError: Its collections are another run's.
        """
        found = self._own(client).find_one({"_id": self._place})
        if found is None:
            return False
        if Run.model_validate_json(found["content"]).fingerprint != self.run.fingerprint:
            raise of_another_run(f"{self.address} (database {self.database})", self._place)
        return True

    def _make_collections(self, client: Any) -> None:
        if self._made:
            return
        if not self._known(client):
            for kind, keys in self._indexes().items():
                for key in keys:
                    self._collection(client, kind).create_index([(name, 1) for name in key])
            meta = client[self.database]["meta"]
            meta.replace_one({"_id": "graph"}, {"directed": False}, upsert=True)
            entry = {"what": "run", "run": self.run.name, "content": self.run.model_dump_json()}
            self._own(client).replace_one({"_id": self._place}, entry, upsert=True)
        self._made = True

    def _indexes(self) -> dict[Kind, list[tuple[str, ...]]]:
        if self.run.merge_function:
            return {"edges": [("block",), ("u", "v")], "outside": [("block",)]}
        return {"nodes": [("block",), ("id",), tuple(f"center_{axis}" for axis in AXES)]}

    @property
    def _place(self) -> str:
        """What the run takes of its database: the nodes, or the edges of a merge function."""
        return f"edges_{self.run.merge_function}" if self.run.merge_function else "nodes"

    def _entry(self, kind: Kind, block_number: int) -> str:
        return f"{self.run.name}/{kind}/{block_number}"

    def _collection(self, client: Any, kind: Kind) -> Any:
        name = kind if kind == "nodes" or not self.run.merge_function else f"{kind}_{self.run.merge_function}"
        return client[self.database][name]

    def _own(self, client: Any) -> Any:
        return client[self.database]["neuroloom"]

    def _do(self, work: Callable[[Any], T]) -> T:
        return patiently(lambda: self._once(work), self.address)

    def _once(self, work: Callable[[Any], T]) -> T:
        from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

        try:
            if self._client is None:
                self._client = connect(self.address)
            return work(self._client)
        except ConnectionFailure as error:  # also when no server can be found
            raise Away(error) from error
        except OperationFailure as error:
            text = without_secrets(str(error))
            if error.code == TOO_MANY_REQUESTS:
                raise Away(text, _pause(text)) from error
            if error.code in _REFUSED:
                raise UserError(
                    f"{self.address} refuses this ({text}). User and password are taken from the environment variable "
                    "NEUROLOOM_MONGODB."
                ) from None
            raise UserError(f"{self.address} could not do what was asked ({text}).") from error
        except PyMongoError as error:
            raise UserError(f"{self.address} could not do what was asked ({without_secrets(str(error))}).") from error


def database_name(address: str, run: str) -> str:
    """The database of a run: that of the address and the run's name, with a hash where it is too long."""
    base = urlsplit(address).path.strip("/")
    name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{base}_{run}")
    if len(name) <= _LONGEST_NAME:
        return name
    return name[: _LONGEST_NAME - 13] + "_" + hashlib.sha256(name.encode()).hexdigest()[:12]


def connect(address: str) -> Any:
    """A client for the server of an address, with what the environment says of it.

    Raises:
        UserError: pymongo does not understand the address.
    """
    pymongo = _pymongo()
    secret = with_credentials(address, "mongodb")
    options = {"serverSelectionTimeoutMS": 5000, "retryWrites": False, "appname": "neuroloom"}
    try:
        return pymongo.MongoClient(secret or address, **options)
    except (pymongo.errors.PyMongoError, ValueError):  # what they say may repeat the address
        raise UserError(
            f"{address}, or the environment variable NEUROLOOM_MONGODB, is no address of a MongoDB. Expected "
            "mongodb://USER:PASSWORD@HOST/DATABASE."
        ) from None


def _pause(text: str) -> float:
    """Seconds that a service asks to be left alone for."""
    found = re.search(r"RetryAfterMs=(\d+)", text)
    return int(found[1]) / 1000 if found else 0.0


def _pymongo() -> Any:
    try:
        import pymongo
    except ImportError as error:
        raise package_missing("pymongo", "mongodb") from error
    return pymongo
