"""Volumes behind URLs, from an HTTP server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import obstore
import pytest

from http_folder import served
from neuroloom.errors import UserError
from neuroloom.volume import create_volume, open_volume
from neuroloom.volume.array import volume_fingerprint
from neuroloom.volume.remote import remote_file


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with served(tmp_path) as address:
        yield address


def test_a_volume_behind_a_url_is_read_like_a_folder(tmp_path: Path, url: str) -> None:
    values = np.random.default_rng(0).integers(0, 255, (20, 30, 40), dtype=np.uint8)
    create_volume(tmp_path / "v.zarr", "a/raw", values.shape, "uint8", (8, 4, 4), (80, 0, 0), chunks=(8, 8, 8)).write(
        (0, 0, 0), values
    )
    volume = open_volume(f"{url}/v.zarr", "a/raw")
    assert volume.voxel_size == (8, 4, 4)
    assert volume.offset == (80, 0, 0)
    np.testing.assert_array_equal(volume.read((3, 4, 5), (10, 20, 30)), values[3:13, 4:24, 5:35])
    before = volume_fingerprint(f"{url}/v.zarr", "a/raw")
    assert before == volume_fingerprint(f"{url}/v.zarr", "a/raw")
    create_volume(tmp_path / "v.zarr", "a/raw", values.shape, "uint8", (9, 4, 4), overwrite=True)
    assert volume_fingerprint(f"{url}/v.zarr", "a/raw") != before


def test_single_files_of_an_array(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = create_volume(tmp_path / "v.zarr", "a/raw", (8, 8, 8), "uint8", (8, 8, 8), chunks=(8, 8, 4))
    volume.write((0, 0, 0), np.ones((8, 8, 4), np.uint8))
    array = open_volume(f"{url}/v.zarr", "a/raw").array
    for name in ("zarr.json", "c/0/0/0"):
        assert remote_file(array, name) == (tmp_path / "v.zarr/a/raw" / name).read_bytes()
    assert remote_file(array, "c/0/0/1") is None

    def fail(*_: object) -> None:
        raise obstore.exceptions.GenericError("no answer")

    monkeypatch.setattr(obstore, "get", fail)
    with pytest.raises(OSError, match="no answer"):
        remote_file(array, "zarr.json")


def test_what_cannot_be_reached_is_said(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="holds no dataset 'a/raw'"):
        open_volume(f"{url}/v.zarr", "a/raw")
    with pytest.raises(UserError, match="no URL that can be read"):
        open_volume("nonsense://x/v.zarr", "raw")
