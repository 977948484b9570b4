"""`neuroloom graph copy`: from store to store and back, the same rows; and what is named wrongly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.postgres import PASSWORD, PostgresServer
from neuroloom.agglomeration.stage import Agglomerate
from neuroloom.blockwise import Source
from neuroloom.fragments.stage import Fragments
from neuroloom.volume import create_volume

Call = Callable[..., tuple[int, str, str]]
SHAPE = (12, 20, 24)


@pytest.fixture
def results(tmp_path: Path) -> tuple[Fragments, Agglomerate]:
    """Two steps as they lie in a project."""
    values = np.random.default_rng(0).integers(0, 256, (3, *SHAPE)).astype(np.uint8)
    create_volume(tmp_path / "in.zarr", "affinities", values.shape, "uint8", (40, 4, 4)).write((0, 0, 0), values)
    affinities = Source(path=str(tmp_path / "in.zarr"), dataset="affinities", fingerprint="a")
    whole = tmp_path / "results" / "whole"
    fragments = Fragments(
        folder=whole / "fragments-0123456789ab", shape=SHAPE, block_shape=(6, 10, 12), affinities=affinities
    )
    agglomerate = Agglomerate(
        folder=whole / "agglomeration-ba9876543210",
        shape=SHAPE,
        block_shape=(12, 10, 12),
        context=(2, 2, 2),
        affinities=affinities,
        fragments=fragments.output,
        fragments_graph=fragments.graph_place,
    )
    for stage in (fragments, agglomerate):
        stage.describe()
        stage.prepare()
        for block in stage.blocks():
            stage.process(block)
        stage.finish()
    return fragments, agglomerate


def content(folder: Path) -> dict[str, str]:
    files = (folder / "graph").rglob("*.arrow")
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_from_files_to_sqlite_and_back(results: tuple[Fragments, Agglomerate], tmp_path: Path, call: Call) -> None:
    address = f"sqlite:{tmp_path / 'graph.sqlite'}"
    for stage in results:
        code, out, error = call("graph", "copy", stage.folder, address)
        assert code == 0, error
        assert f"to {address}#whole_{stage.folder.name}" in out
        copied = stage.model_copy(update={"store": address})
        assert not copied.graph_place.missing(*(("nodes",) if isinstance(stage, Fragments) else ("edges", "outside")))
        code, out, error = call("graph", "copy", f"{address}#whole_{stage.folder.name}", tmp_path / stage.folder.name)
        assert code == 0, error
        assert content(tmp_path / stage.folder.name) == content(stage.folder) != {}
    # the graph folder itself will do
    assert call("graph", "copy", results[0].folder / "graph", address)[0] == 0


def test_what_cannot_be_copied_is_told(results: tuple[Fragments, Agglomerate], tmp_path: Path, call: Call) -> None:
    address, folder = f"sqlite:{tmp_path / 'graph.sqlite'}", results[0].folder
    for source, target, words in (
        (tmp_path / "nothing", address, "holds no graph. Name the folder"),
        (address, tmp_path / "copy", "holds 0 runs; it has: none"),
        (folder, folder, "are the same store"),
        (folder, f"{address}#other", "names the run other, but"),
        (folder, f"postgresql://me:{PASSWORD}@host/db", "holds a user or a password"),
        (folder, "mysql://host/db", "address of a store is wrong: expected"),
    ):
        code, _, error = call("graph", "copy", source, target)
        assert code == 2
        assert words in error
        assert PASSWORD not in error
    for stage in results:
        call("graph", "copy", stage.folder, address)
    code, _, error = call("graph", "copy", address, tmp_path / "copy")
    assert code == 2
    assert f"whole_{results[1].folder.name}, whole_{results[0].folder.name}" in error
    code, _, error = call("graph", "copy", f"{address}#whole", tmp_path / "copy")
    assert code == 2
    assert "holds no run whole; it has:" in error
    assert not (tmp_path / "copy").exists()


@pytest.mark.system
def test_from_postgres_to_all_others(
    results: tuple[Fragments, Agglomerate],
    postgres: PostgresServer,
    tmp_path: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mongomock

    client = mongomock.MongoClient()
    monkeypatch.setattr("neuroloom.graph.mongo.connect", lambda address: client)
    monkeypatch.setattr(client, "close", lambda: None)
    address = postgres.address("copies")
    for stage in results:
        run = f"whole_{stage.folder.name}"
        steps = [
            stage.folder,
            f"{address}#{run}",
            f"sqlite:{tmp_path / 'graph.sqlite'}#{run}",
            f"mongodb://host/g#{run}",
        ]
        for source, target in zip(steps, [*steps[1:], tmp_path / stage.folder.name], strict=True):
            code, _, error = call("graph", "copy", source, target)
            assert code == 0, error
        assert content(tmp_path / stage.folder.name) == content(stage.folder)
    database = client["g_whole_fragments-0123456789ab"]
    assert set(database.list_collection_names()) == {
        "nodes",
        "edges_hist_quant_75",
        "outside_hist_quant_75",
        "meta",
        "neuroloom",
    }
    node = database["nodes"].find_one({})
    assert (node["center_z"], node["center_x"]) == (40 * node["centre_z"], 4 * node["centre_x"])
