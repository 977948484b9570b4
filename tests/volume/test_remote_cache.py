"""What is read behind a URL stays in memory, up to a bound."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from http_folder import served
from neuroloom.volume import create_volume, open_volume, remote
from neuroloom.volume.formats import place
from neuroloom.volume.remote import RecentFiles
from other_formats import SIZE, Writer, write_n5, write_precomputed, write_zarr, write_zarr2

Limit = Callable[[int], None]


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Limit:
    def set_limit(nbytes: int) -> None:
        monkeypatch.setattr(remote, "recent", RecentFiles(nbytes))
        monkeypatch.setattr(place, "CACHE_BYTES", nbytes)

    return set_limit


def chunks_of(fetched: list[str]) -> Counter[str]:
    return Counter(path for path in fetched if re.search(r"\d[/.-]-?\d+$|/\d+$", path))


@pytest.mark.parametrize("write", [write_zarr, write_zarr2, write_n5, write_precomputed])
def test_neighbouring_blocks_fetch_shared_chunks_once(tmp_path: Path, limit: Limit, write: Writer) -> None:
    limit(1 << 20)
    voxels = np.random.default_rng(0).integers(1, 255, (16, 16, 48), dtype=np.uint8)
    path, dataset = write(tmp_path, voxels, (8, 8, 8))
    fetched: list[str] = []
    with served(tmp_path, fetched) as url:
        for begin in (0, 16):  # each block opens the volume anew, as stages do
            found = open_volume(path.replace(str(tmp_path), url), dataset).read((0, 0, begin), (16, 16, 32))
            np.testing.assert_array_equal(found, voxels[:, :, begin : begin + 32])
    counts = chunks_of(fetched)
    assert len(counts) == 2 * 2 * 6
    assert set(counts.values()) == {1}


@pytest.mark.parametrize("write", [write_zarr, write_n5])
def test_what_does_not_fit_is_fetched_again(tmp_path: Path, limit: Limit, write: Writer) -> None:
    limit(2000)  # three chunks
    path, dataset = write(tmp_path, np.random.default_rng(0).integers(1, 255, (8, 8, 64), dtype=np.uint8), (8, 8, 8))
    fetched: list[str] = []
    with served(tmp_path, fetched) as url:
        for _ in range(2):
            open_volume(path.replace(str(tmp_path), url), dataset).read()
    assert 8 + 5 <= sum(chunks_of(fetched).values()) <= 8 + 8
    assert remote.recent.nbytes <= 2000


def test_parts_of_shards_are_kept(tmp_path: Path, limit: Limit) -> None:
    limit(1 << 20)
    voxels = np.random.default_rng(0).integers(1, 255, (16, 16, 32), dtype=np.uint8)
    create_volume(tmp_path / "s.zarr", "raw", (16, 16, 32), "u1", SIZE, chunks=(8, 8, 8), shards=(16, 16, 32)).write(
        (0, 0, 0), voxels
    )
    fetched: list[str] = []
    with served(tmp_path, fetched) as url:
        counts = []
        for _ in range(2):
            read = open_volume(f"{url}/s.zarr", "raw").read((0, 0, 0), (16, 16, 16))
            np.testing.assert_array_equal(read, voxels[:, :, :16])
            counts.append(sum(chunks_of(fetched).values()))
    assert 0 < counts[0] == counts[1]


@settings(deadline=None)
@given(st.integers(0, 50), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30)), max_size=40))
def test_the_bound_holds_and_the_least_recently_used_go_first(bound: int, uses: list[tuple[int, int]]) -> None:
    files = RecentFiles(bound)
    expected: list[tuple[int, int]] = []  # key and length, the oldest first
    for key, length in uses:
        found = files.get(key)
        known = dict(expected)
        assert (None if found is None else len(found)) == known.get(key)
        if key in known:
            expected.remove((key, known[key]))
            expected.append((key, known[key]))
        if length <= bound:
            files.keep(key, bytes(length))
            expected = [e for e in expected if e[0] != key] + [(key, length)]
            while sum(e[1] for e in expected) > bound:
                expected.pop(0)
        assert files.nbytes == sum(e[1] for e in expected) <= bound


def test_one_missing_chunk_that_comes_later_is_read(tmp_path: Path, limit: Limit) -> None:
    limit(1 << 20)
    path, dataset = write_zarr(tmp_path, np.ones((8, 8, 16), np.uint8), (8, 8, 8))
    lost = Path(path) / dataset / "c/0/0/1"
    content = lost.read_bytes()
    lost.unlink()
    with served(tmp_path) as url:
        place_of = path.replace(str(tmp_path), url)
        assert open_volume(place_of, dataset).read().sum() == 8 * 8 * 8
        lost.write_bytes(content)
        assert open_volume(place_of, dataset).read().sum() == 8 * 8 * 16
