"""The graph in files: the same bytes, and what is damaged."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from graph_rows import some_edges, some_nodes, some_outside
from neuroloom.errors import UserError
from neuroloom.graph import GraphFiles, files


def test_same_rows_in_any_order_are_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for order in (np.arange(9), np.arange(9)[::-1]):
        store = GraphFiles(tmp_path)
        store.write_nodes(5, some_nodes(9, 1).select(order))
        store.write_edges(5, some_edges(9, 1).select(order))
        store.write_outside(5, some_outside(9, 1).select(order))
        contents.append([file.read_bytes() for file in sorted(tmp_path.rglob("*.arrow"))])
    assert contents[0] == contents[1]
    assert len(contents[0]) == 3


def test_a_truncated_file_is_named_and_half_written_ones_are_not_read(tmp_path: Path) -> None:
    store = GraphFiles(tmp_path)
    store.write_edges(4, some_edges(9, 1))
    (tmp_path / "edges" / ".000000000005.arrow.x.part").write_bytes(b"half")
    assert len(store.read_edges()) == 9
    file = tmp_path / "edges" / "000000000004.arrow"
    file.write_bytes(file.read_bytes()[:-40])
    for rows in (store.edges, store.scores):
        with pytest.raises(UserError, match=r"000000000004\.arrow .*damaged"):
            list(rows())


def test_columns_are_found_by_their_names(tmp_path: Path) -> None:
    store = GraphFiles(tmp_path)
    store.write_edges(4, some_edges(9, 1))
    expected = next(store.scores())
    file = tmp_path / "edges" / "000000000004.arrow"
    table = files.read_table(file)
    files.write_table(file, table.select(table.column_names[::-1]))
    (found,) = store.scores()
    assert np.array_equal(found.merge_score, expected.merge_score, equal_nan=True)
    assert np.array_equal(found.v, expected.v)
    files.write_table(file, table.select(["u", "v"]))
    with pytest.raises(UserError, match=r"000000000004\.arrow .*damaged"):
        list(store.scores())


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux counts what a process reads")
def test_columns_that_nobody_asked_for_stay_on_the_disk(tmp_path: Path) -> None:
    store = GraphFiles(tmp_path)
    store.write_edges(0, some_edges(200_000, 1))
    size = (tmp_path / "edges" / "000000000000.arrow").stat().st_size

    def bytes_read(rows: Iterable[object]) -> int:
        before = _read_so_far()
        assert len(list(rows)) == 1
        return _read_so_far() - before

    assert bytes_read(store.edges()) > 0.99 * size
    assert bytes_read(store.scores()) < 0.6 * size


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells which file is meant")
def test_every_file_is_asked_for_once_and_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = GraphFiles(tmp_path)
    for block in range(5 * files.AHEAD // 2):
        store.write_edges(block, some_edges(3, block))
    asked: list[str] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, *_: asked.append(os.readlink(f"/proc/self/fd/{fd}")))
    for read, _ in enumerate(store.edges()):
        assert min(5 * files.AHEAD // 2, read + files.AHEAD) <= len(asked) <= read + 2 * files.AHEAD
    assert [Path(path).stem for path in asked] == [f"{block:012d}" for block in range(5 * files.AHEAD // 2)]


def _read_so_far() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])
