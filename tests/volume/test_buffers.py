"""What zarr is told of chunks, against its own buffer; empty chunks have no file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.buffer import cpu
from zarr.registry import get_ndbuffer_class

from neuroloom.volume import create_volume
from neuroloom.volume.buffers import QuickBuffer, use_quick_buffers


@pytest.mark.parametrize("kind", ["uint8", "int32", "uint64", "bool", "float32"])
@pytest.mark.parametrize(
    "values", [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 1, 1], [np.nan, np.nan, np.nan], [-0.0, 0.0, 0.0]]
)
def test_is_zarrs_own_answer(kind: str, values: list[float]) -> None:
    if kind != "float32" and (np.isnan(values).any() or np.signbit(values).any()):
        return
    data = np.array(values, dtype=kind)
    for fill in (0, 1, np.nan) if kind == "float32" else (0, 1):
        for array in (data, data.reshape(1, 3), np.tile(data, (4, 2))[:, ::2]):
            expected = cpu.NDBuffer(array).all_equal(np.array(fill, kind)[()])
            assert QuickBuffer(array).all_equal(np.array(fill, kind)[()]) == expected


def test_zarr_uses_them_unless_it_was_told_otherwise() -> None:
    assert get_ndbuffer_class() is QuickBuffer
    with zarr.config.set({"ndbuffer": "zarr.buffer.gpu.NDBuffer"}):
        use_quick_buffers()
        assert zarr.config.get("ndbuffer") == "zarr.buffer.gpu.NDBuffer"


@pytest.mark.parametrize("shards", [None, (8, 8, 8)])
def test_empty_chunks_have_no_file(tmp_path: Path, shards: tuple[int, int, int] | None) -> None:
    data = np.zeros((8, 8, 16), np.uint64)
    data[0, 3, 15] = 7
    volume = create_volume(tmp_path / "v.zarr", "a", data.shape, data.dtype, (8, 8, 8), chunks=(4, 4, 4), shards=shards)
    volume.write((0, 0, 0), data)
    written = [file for file in (tmp_path / "v.zarr" / "a" / "c").rglob("*") if file.is_file()]
    assert len(written) == 1
    np.testing.assert_array_equal(volume.read(), data)
    volume.write((0, 0, 0), np.zeros_like(data))
    assert not any(file.is_file() for file in (tmp_path / "v.zarr" / "a" / "c").rglob("*"))
