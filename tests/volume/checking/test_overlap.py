"""Shared parts of two volumes are found wherever they were cut from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.volume.tissue import write

from neuroloom.volume import open_volume
from neuroloom.volume.checking.overlap import find_overlap

BIG = np.random.default_rng(0).integers(1, 255, (60, 80, 120), dtype=np.uint8)


@pytest.mark.parametrize("begin", [(0, 0, 0), (7, 11, 13), (20, 30, 50)])
@pytest.mark.parametrize("known", [True, False])
def test_a_crop_is_found(tmp_path: Path, begin: tuple[int, int, int], known: bool) -> None:
    crop = BIG[tuple(slice(b, b + 40) for b in begin)][:, :, :70]
    first = open_volume(write(tmp_path / "a.zarr", BIG, offset=(80, 0, 0)), "volumes/raw")
    place = [8 * b for b in begin] if known else [1e6, 3, 0]
    offset = (80 + place[0], place[1], place[2])
    second = open_volume(write(tmp_path / "b.zarr", np.ascontiguousarray(crop), offset=offset), "volumes/raw")
    found = find_overlap(first, second)
    assert found is not None
    assert found.shift == begin
    assert found.fraction == 1.0
    assert found.voxels == crop.size
    assert found.by_place is known
    back = find_overlap(second, first)  # the other way round, a part of the large one
    assert back is not None
    assert back.shift == tuple(-b for b in begin)
    assert back.voxels == crop.size


def test_a_partial_overlap_is_found(tmp_path: Path) -> None:
    first = open_volume(write(tmp_path / "a.zarr", BIG[:40]), "volumes/raw")
    second = open_volume(write(tmp_path / "b.zarr", BIG[25:], offset=(25 * 8 + 1, 0, 0)), "volumes/raw")
    found = find_overlap(first, second)
    assert found is not None
    assert found.shift == (25, 0, 0)
    assert found.voxels == 15 * 80 * 120


def test_others_share_nothing(tmp_path: Path) -> None:
    other = np.random.default_rng(1).integers(1, 255, (30, 80, 100), dtype=np.uint8)
    first = open_volume(write(tmp_path / "a.zarr", BIG), "volumes/raw")
    assert find_overlap(first, open_volume(write(tmp_path / "b.zarr", other), "volumes/raw")) is None
    # black padding in both is nothing in common
    black = np.zeros((64, 64, 64), np.uint8)
    first = open_volume(write(tmp_path / "c.zarr", black), "volumes/raw")
    assert find_overlap(first, open_volume(write(tmp_path / "d.zarr", black), "volumes/raw")) is None
