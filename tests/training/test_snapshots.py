"""Snapshots: arrays that open as volumes, and a picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from neuroloom.training.snapshots import write_snapshot
from neuroloom.volume import open_volume
from neuroloom.volume.array import datasets


def test_arrays_and_picture(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {
        "raw": random.random((8, 9, 10), np.float32),
        "labels": random.integers(0, 2**40, (8, 9, 10)).astype(np.uint64),
        "affinities predicted": random.random((3, 8, 9, 10), np.float32) * 1.5 - 0.25,
    }
    picture = write_snapshot(tmp_path, 120, arrays, (20.0, 8.0, 8.0))
    assert picture == tmp_path / "0000120.png"
    assert Image.open(io.BytesIO(picture.read_bytes())).width > 3 * 200
    container = tmp_path / "0000120.zarr"
    assert datasets(container) == sorted(arrays)
    assert np.array_equal(open_volume(container, "labels").read(), arrays["labels"])
    predicted = open_volume(container, "affinities predicted")
    assert predicted.voxel_size == (20.0, 8.0, 8.0)
    expected = np.clip(arrays["affinities predicted"], 0, 1) * 255
    np.testing.assert_allclose(predicted.read(), expected, atol=0.5)


def test_a_repeated_snapshot_replaces_the_first(tmp_path: Path) -> None:
    for value in (0.2, 0.4):
        write_snapshot(tmp_path, 1, {"raw": np.full((4, 4, 4), value, np.float32)}, (8.0, 8.0, 8.0))
    assert (open_volume(tmp_path / "0000001.zarr", "raw").read() == 102).all()
