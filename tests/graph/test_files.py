"""The graph in files: the same bytes, and what is damaged."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from graph_rows import some_edges, some_nodes, some_outside
from neuroloom.errors import UserError
from neuroloom.graph import GraphFiles


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
    with pytest.raises(UserError, match=r"000000000004\.arrow .*damaged"):
        store.read_edges()


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


def _read_so_far() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])
