"""What only databases do: going away and coming back, refusing, losing rows, being full."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from funlib.geometry import Roi

from benchmarks.postgres import PASSWORD, PostgresServer
from graph_rows import equal, some_edges, some_nodes
from neuroloom.errors import UserError
from neuroloom.graph import Run, retrying
from neuroloom.graph.mongo import GraphMongo
from neuroloom.graph.postgres import GraphPostgres, schema_name
from neuroloom.graph.sqlite import GraphSqlite
from neuroloom.graph.store import in_parts

RUN = Run(name="whole_agglomeration-0123456789ab", fingerprint="a" * 64)


@pytest.mark.system
def test_a_server_that_goes_and_comes_back_is_waited_for(postgres: PostgresServer) -> None:
    store = GraphPostgres(postgres.address("away"), RUN)
    blocks = {number: some_edges(2000, number) for number in range(30)}

    def go_and_come_back() -> None:
        time.sleep(0.1)
        postgres.stop()
        time.sleep(0.5)
        postgres.start()

    away = threading.Thread(target=go_and_come_back)
    store.write_edges(0, blocks[0])
    away.start()
    for number in range(1, 30):
        store.write_edges(number, blocks[number])
        if number == 20:
            away.join()
    assert store.blocks("edges") == set(blocks)
    for number, found in enumerate(store.edges()):
        assert equal(found, blocks[number].select(np.lexsort((blocks[number].v, blocks[number].u))))
        if number == 3:  # while it is being read
            postgres.stop()
            postgres.start()


@pytest.mark.system
def test_a_server_that_stays_away_ends_it_and_the_same_command_goes_on(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = GraphPostgres(postgres.address("gone"), RUN)
    store.write_edges(0, some_edges(9, 0))
    monkeypatch.setattr(retrying, "PATIENCE", 0.5)
    postgres.stop()
    try:
        with pytest.raises(UserError, match=r"gone does not answer .*the same command goes on") as told:
            store.write_edges(1, some_edges(9, 1))
        assert PASSWORD not in "".join(traceback.format_exception(told.value))
    finally:
        postgres.start()
    store.write_edges(1, some_edges(9, 1))
    assert store.blocks("edges") == {0, 1}


@pytest.mark.system
def test_a_server_that_refuses_says_so_at_once_and_no_password_is_told(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = postgres.address("refusing")
    monkeypatch.setenv("NEUROLOOM_POSTGRES", f"postgresql://tester:wrong-{PASSWORD}@127.0.0.1:{postgres.port}")
    for wrong, words in (
        (address, "refuses the connection .*password authentication failed.*NEUROLOOM_POSTGRES"),
        (address.replace("127.0.0.1", "127.0.0.2"), "holds credentials for 127.0.0.1.*no other server"),
    ):
        with pytest.raises(UserError, match=words) as told:
            GraphPostgres(wrong, RUN).blocks("edges")
        assert PASSWORD not in "".join(traceback.format_exception(told.value))
    for secret in (f"tester:{PASSWORD}", f"postgresql://tester:{PASSWORD}@127.0.0.1:{postgres.port}/%ZZ?nonsense=1"):
        monkeypatch.setenv("NEUROLOOM_POSTGRES", secret)
        with pytest.raises(UserError, match=r"NEUROLOOM_POSTGRES") as told:
            GraphPostgres(address, RUN).blocks("edges")
        assert PASSWORD not in "".join(traceback.format_exception(told.value))
    monkeypatch.setenv("NEUROLOOM_POSTGRES", postgres.credentials)
    with pytest.raises(UserError, match=r"refuses the connection .*does not exist"):
        GraphPostgres(address.replace("refusing", "no-such"), RUN).blocks("edges")


@pytest.mark.system
def test_libpq_finds_credentials_itself(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    address = postgres.address("libpq")
    monkeypatch.delenv("NEUROLOOM_POSTGRES")
    monkeypatch.setenv("PGUSER", "tester")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    GraphPostgres(address, RUN).write_edges(0, some_edges(3, 0))
    assert len(GraphPostgres(address, RUN).read_edges()) == 3


@pytest.mark.system
def test_rows_can_be_asked_in_sql_and_those_that_went_are_missed(postgres: PostgresServer) -> None:
    store = GraphPostgres(postgres.address("sql"), RUN)
    nodes = {number: some_nodes(50, number) for number in range(3)}
    for number in nodes:
        store.write_nodes(number, nodes[number])
    assert len(store.read_nodes()) == 150
    with psycopg.connect(f"{postgres.credentials}/sql", autocommit=True) as other:
        rows = f'"{RUN.name}".nodes'
        assert other.execute(f"SELECT count(*), min(id) FROM {rows}").fetchone() == (150, 1)
        first = int(nodes[1].id[0])
        query = f"SELECT centre_z, centre_y, centre_x, size, end_x FROM {rows} WHERE block = 1 AND id = {first}"
        expected = (*nodes[1].centre[0], nodes[1].size[0], nodes[1].end[0, 2])
        assert other.execute(query).fetchall() == [expected]
        other.execute(f'DELETE FROM "{RUN.name}".nodes_by_block WHERE block = 1')
    with pytest.raises(UserError, match=r"has 0 nodes of block 1; expected 50"):
        store.read_nodes()
    assert len(store.read_nodes(Roi((0, 0, 0), (200, 200, 200)))) == 100
    with psycopg.connect(f"{postgres.credentials}/sql", autocommit=True) as other:
        other.execute(f'DROP SCHEMA "{RUN.name}" CASCADE')
    assert store.blocks("nodes") == set()


@pytest.mark.system
@pytest.mark.parametrize(
    ("column", "value", "left"),
    [
        ("u", "u[1:7]", 7),
        ("v", "'{}'", 0),
        ("position_x", "'{}'", 0),
        ("contact_area", "array_append(contact_area[1:8], NULL)", 0),
    ],
)
def test_arrays_that_were_changed_by_hand_are_missed(
    postgres: PostgresServer, column: str, value: str, left: int
) -> None:
    store = GraphPostgres(postgres.address(f"changed_{column}"), RUN)
    for number in range(3):
        store.write_edges(number, some_edges(9, number))
    with psycopg.connect(f"{postgres.credentials}/changed_{column}", autocommit=True) as other:
        other.execute(f'UPDATE "{RUN.name}".edges_by_block SET {column} = {value} WHERE block = 1')
    with pytest.raises(UserError, match=rf"has {left} edges of block 1; expected 9"):
        store.read_edges()


@pytest.mark.system
def test_an_index_finds_the_blocks_of_a_region(postgres: PostgresServer) -> None:
    store = GraphPostgres(postgres.address("region"), RUN)
    nodes = some_nodes(400, 1)
    for number in range(400):  # each in a place of its own
        centre = np.array([[number * 10.0, 5.0, 5.0]])
        store.write_nodes(number, replace(nodes.select(np.array([number])), centre=centre))
        store.write_edges(number, some_edges(2, number))
    assert [number for number, _ in store.read("nodes", Roi((95, 0, 0), (30, 9, 9)))] == [10, 11, 12]
    with psycopg.connect(f"{postgres.credentials}/region", autocommit=True) as other:
        other.execute(f'ANALYZE "{RUN.name}".nodes_by_block')
        other.execute("SET enable_seqscan = off")  # few rows are read faster without
        query = f'EXPLAIN SELECT block FROM "{RUN.name}".nodes_by_block WHERE z && int8range(95, 125)'
        assert "nodes_place" in str(other.execute(query).fetchall())
        boxes = other.execute(f'SELECT lower(z), upper(z) FROM "{RUN.name}".edges_by_block ORDER BY block').fetchall()
        for number in range(400):
            found = other.execute(
                f'SELECT min(position_z), max(position_z) FROM "{RUN.name}".edges WHERE block = {number}'
            ).fetchall()
            assert boxes[number][0] <= found[0][0] <= found[0][1] < boxes[number][1]


@pytest.mark.system
def test_a_block_of_many_rows_is_cut_and_joined(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuroloom.graph.postgres.AT_ONCE", 60)
    store = GraphPostgres(postgres.address("large"), RUN)
    edges = some_edges(500, 4)
    store.write_edges(0, edges)
    store.write_edges(1, some_edges(3, 5))
    with psycopg.connect(f"{postgres.credentials}/large", autocommit=True) as other:
        arrays = f'SELECT count(*) FROM "{RUN.name}".edges_by_block WHERE block = 0'
        assert other.execute(arrays).fetchone() == (9,)
        # as after an UPDATE: the server gives rows in another order
        some = f"block = 0 AND u[1] < {int(np.median(edges.u))}"
        other.execute(f'UPDATE "{RUN.name}".edges_by_block SET block = 0 WHERE {some}')
    first, _ = store.edges()
    assert equal(first, edges.select(np.lexsort((edges.v, edges.u))))
    store.write_edges(0, some_edges(2, 6))
    assert len(store.read_edges()) == 5


@pytest.mark.system
def test_what_an_older_version_wrote_is_told(postgres: PostgresServer) -> None:
    store = GraphPostgres(postgres.address("older"), RUN)
    store.write_edges(0, some_edges(3, 0))
    with psycopg.connect(f"{postgres.credentials}/older", autocommit=True) as other:
        other.execute(f'DROP TABLE "{RUN.name}".outside_by_block CASCADE')
    with pytest.raises(UserError, match="as an older neuroloom wrote it"):
        GraphPostgres(store.address, RUN).read_edges()


@pytest.mark.system
def test_who_may_not_make_schemas_is_told(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    address = postgres.address("closed")
    with psycopg.connect(f"{postgres.credentials}/closed", autocommit=True) as other:
        other.execute(f"CREATE ROLE visitor LOGIN PASSWORD '{PASSWORD}'")
    monkeypatch.setenv("NEUROLOOM_POSTGRES", postgres.credentials.replace("tester", "visitor"))
    with pytest.raises(UserError, match=r"permission denied for database closed.*right to make schemas"):
        GraphPostgres(address, RUN).write_edges(0, some_edges(3, 0))


def test_schemas_have_names_that_a_server_keeps_whole() -> None:
    long = ["v" * 100 + end for end in ("a", "b")]
    assert schema_name(RUN.name) == RUN.name
    assert len({schema_name(name) for name in long}) == 2
    assert max(len(schema_name(name)) for name in long) <= 63


class TestSqlite:
    def test_a_file_that_is_none_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "graph.sqlite"
        file.write_bytes(b"something else, and long enough to be looked at" * 100)
        with pytest.raises(UserError, match=r"graph\.sqlite cannot be read as a SQLite database"):
            GraphSqlite(f"sqlite:{file}", RUN).blocks("nodes")
        with pytest.raises(UserError, match="cannot be used as a graph store"):
            GraphSqlite(f"sqlite:{tmp_path}", RUN).write_edges(0, some_edges(3, 0))

    def test_who_writes_is_waited_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        address = f"sqlite:{tmp_path / 'graph.sqlite'}"
        store = GraphSqlite(address, RUN)
        store.write_edges(0, some_edges(3, 0))
        monkeypatch.setattr("neuroloom.graph.sqlite.BUSY", 0.05)
        monkeypatch.setattr(retrying, "PATIENCE", 0.3)
        with sqlite3.connect(tmp_path / "graph.sqlite", isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(UserError, match=r"does not answer .*locked"):
                GraphSqlite(address, RUN).write_edges(1, some_edges(3, 1))
            assert len(GraphSqlite(address, RUN).read_edges()) == 3  # reading goes on
            threading.Timer(0.2, lambda: None).start()
            other.execute("ROLLBACK")
        GraphSqlite(address, RUN).write_edges(1, some_edges(3, 1))
        assert store.blocks("edges") == {0, 1}

    def test_rows_that_went_are_missed(self, tmp_path: Path) -> None:
        store = GraphSqlite(f"sqlite:{tmp_path / 'graph.sqlite'}", RUN)
        store.write_edges(4, some_edges(9, 0))
        with sqlite3.connect(tmp_path / "graph.sqlite") as other:
            other.execute(f'DELETE FROM "{RUN.name}_edges" WHERE row = 3')
        with pytest.raises(UserError, match="has 8 edges of block 4; expected 9"):
            store.read_edges()


class TestMongo:
    @pytest.fixture
    def client(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        import mongomock

        client = mongomock.MongoClient()
        monkeypatch.setattr("neuroloom.graph.mongo.connect", lambda address: client)
        return client

    def test_collections_and_fields_are_those_of_existing_tools(self, client: Any) -> None:
        nodes = Run(name="v_fragments-1", fingerprint="f", voxel_size=(40.0, 4.0, 4.0), offset=(80.0, 0.0, 8.0))
        edges = Run(name="v_agglomeration-2", fingerprint="a", fragments=nodes.name, merge_function="hist_quant_75")
        GraphMongo("mongodb://host/graphs", nodes).write_nodes(3, some_nodes(5, 1))
        GraphMongo("mongodb://host/graphs", edges).write_edges(0, some_edges(7, 1))
        database = client["graphs_v_fragments-1"]
        first = some_nodes(5, 1).select(np.argsort(some_nodes(5, 1).id)[:1])
        node = database["nodes"].find_one({"id": int(first.id[0])})
        z, y, x = first.centre[0]
        assert (node["center_z"], node["center_y"], node["center_x"]) == (80 + 40 * z, 4 * y, 8 + 4 * x)
        assert database["edges_hist_quant_75"].count_documents({}) == 7
        assert {"u", "v", "merge_score"} <= set(database["edges_hist_quant_75"].find_one({}))
        assert database["meta"].find_one({})["directed"] is False
        other = edges.model_copy(update={"name": "v_agglomeration-3", "fingerprint": "b"})
        with pytest.raises(UserError, match="rows of another run under the name edges_hist_quant_75"):
            GraphMongo("mongodb://host/graphs", other).write_edges(0, some_edges(7, 1))

    def test_a_service_that_rations_is_given_the_time_it_asks_for(
        self, client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from pymongo.errors import BulkWriteError, OperationFailure

        pauses: list[float] = []
        monkeypatch.setattr("time.sleep", pauses.append)
        store = GraphMongo("mongodb://host/graphs", RUN)
        store.write_edges(0, some_edges(1, 1))
        collection = type(client["x"]["y"])
        insert, find = collection.insert_many, collection.find
        refusals = [1, 2]

        def rationed(self: Any, documents: list[dict[str, Any]], **options: Any) -> Any:
            if refusals.pop(0) if refusals else 0:
                with contextlib.suppress(BulkWriteError):
                    insert(self, documents[:700], **options)  # some get through
                message = "Request rate is large. RetryAfterMs=1234, Details=..."
                raise BulkWriteError({"writeErrors": [{"index": 700, "code": 16500, "errmsg": message}]})
            return insert(self, documents, **options)

        def rationed_find(self: Any, *arguments: Any, **options: Any) -> Any:
            if self.name == "edges" and len(pauses) == 2:
                raise OperationFailure("Error=16500, RetryAfterMs=40, Details=...", 16500)
            return find(self, *arguments, **options)

        monkeypatch.setattr(collection, "insert_many", rationed)
        monkeypatch.setattr(collection, "find", rationed_find)
        edges = some_edges(2500, 2)
        store.write_edges(1, edges)
        assert pauses == [1.234, 1.234]
        _, found = store.edges()
        assert pauses[2:] == [0.25]
        assert equal(found, edges.select(np.lexsort((edges.v, edges.u))))

    def test_a_block_that_was_cut_off_does_not_count(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        store = GraphMongo("mongodb://host/graphs", RUN)
        store.write_edges(0, some_edges(20, 1))
        monkeypatch.setattr(GraphMongo, "_insert", lambda self, client, kind, documents: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.write_edges(0, some_edges(30, 2))
        monkeypatch.undo()
        monkeypatch.setattr("neuroloom.graph.mongo.connect", lambda address: client)
        assert store.blocks("edges") == set()
        store.write_edges(0, some_edges(30, 2))
        assert len(store.read_edges()) == 30

    def test_a_server_that_is_not_there_is_told_without_its_password(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import pymongo

        monkeypatch.setattr(retrying, "PATIENCE", 0.1)
        real = pymongo.MongoClient
        monkeypatch.setattr(pymongo, "MongoClient", lambda *a, **k: real(*a, **{**k, "serverSelectionTimeoutMS": 50}))
        monkeypatch.setenv("NEUROLOOM_MONGODB", f"mongodb://tester:{PASSWORD}@127.0.0.1:9")
        with pytest.raises(UserError, match="does not answer") as told:
            GraphMongo("mongodb://127.0.0.1:9/graphs", RUN).blocks("edges")
        assert PASSWORD not in "".join(traceback.format_exception(told.value))
        monkeypatch.setenv("NEUROLOOM_MONGODB", f"mongodb://tester:{PASSWORD}@127.0.0.1:nine")
        with pytest.raises(UserError, match="NEUROLOOM_MONGODB") as told:
            GraphMongo("mongodb:///graphs", RUN).blocks("edges")
        assert PASSWORD not in "".join(traceback.format_exception(told.value))


@pytest.mark.parametrize(("package", "store"), [("psycopg", GraphPostgres), ("pymongo", GraphMongo)])
def test_a_driver_that_is_not_installed_is_named(package: str, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"needs the package {package}.*pip install 'neuroloom\["):
        store("x://host/db", RUN)


def test_blocks_are_read_in_parts_that_fit_into_memory() -> None:
    rows = {9: 5, 1: 4, 4: 0, 2: 3, 7: 100, 8: 1}
    assert in_parts(rows, 8) == [[1, 2, 4], [7], [8, 9]]
    assert in_parts({}, 8) == []
    parts = in_parts(dict.fromkeys(range(1000), 3), 100)
    assert [number for part in parts for number in part] == list(range(1000))
    assert max(map(len, parts)) == 33
