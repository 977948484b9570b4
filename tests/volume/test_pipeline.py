"""Reading and writing in threads, against zarr's own way."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.storage import LocalStore, MemoryStore

from neuroloom.errors import UserError
from neuroloom.volume import create_volume, open_volume
from neuroloom.volume.pipeline import SharedOut, use_shared_out

OWN = {"codec_pipeline.path": "zarr.core.codec_pipeline.BatchedCodecPipeline"}
SHAPE = (3, 11, 13)

spans = st.tuples(*(st.tuples(st.integers(0, n - 1), st.integers(1, n)) for n in SHAPE)).map(
    lambda pairs: tuple(slice(a, min(a + e, n)) for (a, e), n in zip(pairs, SHAPE, strict=True))
)


def made(store: str | Store, shards: tuple[int, int, int] | None, kind: str, fill: int, codec: Any) -> zarr.Array:
    return zarr.create_array(
        store, shape=SHAPE, chunks=(2, 4, 4), shards=shards, dtype=kind, fill_value=fill, compressors=codec
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Going zarr's own way is an error, but for whole shards, whose chunks go ours."""

    async def refuse(self: BatchedCodecPipeline, *_: Any) -> None:
        raise AssertionError("zarr's own way")

    ways = {"read": BatchedCodecPipeline.read, "write": BatchedCodecPipeline.write}
    for name, way in ways.items():

        def choose(self: BatchedCodecPipeline, *arguments: Any, way: Any = way) -> Any:
            return way(self, *arguments) if self.supports_partial_decode else refuse(self)

        monkeypatch.setattr(BatchedCodecPipeline, name, choose)


@settings(max_examples=60, deadline=None)
@given(
    shards=st.sampled_from([None, (4, 8, 8)]),
    kind=st.sampled_from(["uint8", "uint64", "float32", ">u2"]),
    fill=st.sampled_from([0, 3]),
    codec=st.sampled_from([None, zarr.codecs.ZstdCodec(level=3), zarr.codecs.BloscCodec()]),
    writes=st.lists(st.tuples(spans, st.sampled_from(["fill", "number", "array"])), min_size=1, max_size=4),
    read=spans,
    seed=st.integers(0, 99),
)
def test_gives_the_same_files_and_values(
    tmp_path_factory: pytest.TempPathFactory,
    shards: tuple[int, int, int] | None,
    kind: str,
    fill: int,
    codec: Any,
    writes: list[tuple[tuple[slice, ...], str]],
    read: tuple[slice, ...],
    seed: int,
) -> None:
    folder, random = tmp_path_factory.mktemp("arrays"), np.random.default_rng(seed)
    ours = made(str(folder / "ours"), shards, kind, fill, codec)
    with zarr.config.set(OWN):
        theirs = made(str(folder / "theirs"), shards, kind, fill, codec)
    assert isinstance(ours.async_array.codec_pipeline, SharedOut)
    assert type(theirs.async_array.codec_pipeline) is BatchedCodecPipeline
    expected: NDArray[Any] = np.full(SHAPE, fill, kind)
    for place, what in writes:
        value: Any = {"fill": fill, "number": 7}.get(what)
        if value is None:
            value = random.integers(0, 200, expected[place].shape).astype(kind)
        expected[place] = value
        for array in (ours, theirs):
            array[place] = value
    assert files(folder / "ours") == files(folder / "theirs")
    np.testing.assert_array_equal(ours[read], expected[read])
    np.testing.assert_array_equal(np.asarray(ours[0, 1:5, :]), expected[0, 1:5, :])  # an axis is dropped


@pytest.mark.usefixtures("in_threads")
@pytest.mark.parametrize("shards", [None, (8, 8, 8)])
def test_volumes_go_this_way(tmp_path: Path, shards: tuple[int, int, int] | None) -> None:
    data = np.random.default_rng(0).integers(0, 255, (2, 10, 9, 13), np.uint8)
    volume = create_volume(tmp_path / "v.zarr", "a", data.shape, data.dtype, (8, 8, 8), chunks=(4, 4, 4), shards=shards)
    volume.write((0, 0, 0), data)
    volume.write((1, 2, 3), data[:, 1:6, 2:7, 3:9])
    np.testing.assert_array_equal(
        open_volume(tmp_path / "v.zarr", "a").read((1, 1, 1), (8, 7, 9)), data[:, 1:9, 1:8, 1:10]
    )


def test_other_stores_go_zarrs_own_way() -> None:
    array = made(MemoryStore(), None, "uint8", 0, None)
    array[:] = 5
    assert (np.asarray(array[:]) == 5).all()


def test_a_damaged_chunk_is_told(tmp_path: Path) -> None:
    volume = create_volume(tmp_path / "v.zarr", "a", (8, 8, 8), np.uint64, (8, 8, 8), chunks=(4, 4, 4))
    volume.write((0, 0, 0), np.arange(512, dtype=np.uint64).reshape(8, 8, 8))
    chunk = tmp_path / "v.zarr" / "a" / "c" / "1" / "0" / "1"
    chunk.write_bytes(chunk.read_bytes()[:-7])
    with pytest.raises(UserError, match="cannot be decoded"):
        volume.read()
    assert volume.read((0, 0, 0), (4, 8, 8))[3, 7, 7] == 255


def test_after_an_error_nobody_writes_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, late = LocalStore.set_sync, []

    def slow_or_full(self: LocalStore, key: str, value: Any) -> None:
        if key.endswith("c/0/0/0"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        time.sleep(0.05)
        late.append(key)
        write(self, key, value)

    volume = create_volume(tmp_path / "v.zarr", "a", (8, 8, 8), np.uint8, (8, 8, 8), chunks=(4, 4, 4))
    monkeypatch.setattr(LocalStore, "set_sync", slow_or_full)
    with pytest.raises(UserError, match="No room left"):
        volume.write((0, 0, 0), np.ones((8, 8, 8), np.uint8))
    before = len(late)
    time.sleep(0.3)
    assert len(late) == before


def test_threads_of_the_caller_may_read_at_once(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 2**40, (32, 32, 32), np.uint64)
    volume = create_volume(tmp_path / "v.zarr", "a", data.shape, data.dtype, (8, 8, 8), chunks=(4, 4, 4))
    volume.write((0, 0, 0), data)
    wrong: list[int] = []

    def look(z: int) -> None:
        for _ in range(5):
            if not np.array_equal(volume.read((z, 1, 2), (8, 30, 29)), data[z : z + 8, 1:31, 2:31]):
                wrong.append(z)

    threads = [threading.Thread(target=look, args=(3 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_another_pipeline_that_was_asked_for_stays() -> None:
    with zarr.config.set({"codec_pipeline.path": "elsewhere.Pipeline"}):
        use_shared_out()
        assert zarr.config.get("codec_pipeline.path") == "elsewhere.Pipeline"
