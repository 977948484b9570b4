"""Volumes behind URLs, from an HTTP server on loopback."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import obstore
import pytest

from http_folder import served
from neuroloom.errors import UserError
from neuroloom.volume import create_volume, open_volume
from neuroloom.volume.array import has_dataset, volume_fingerprint
from neuroloom.volume.checking import check_volumes
from neuroloom.volume.checking.advice import describe_volumes
from neuroloom.volume.remote import remote_file
from small_project import make_volume


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


def test_whether_there_is_an_array(tmp_path: Path, url: str) -> None:
    create_volume(tmp_path / "v.zarr", "a/raw", (8, 8, 8), "uint8", (8, 8, 8))
    assert has_dataset(f"{url}/v.zarr", "a/raw")
    assert not has_dataset(f"{url}/v.zarr", "a/labels")
    with pytest.raises(UserError, match="cannot be read"):
        has_dataset("http://127.0.0.1:9/v.zarr", "a/raw")


def test_volumes_behind_urls_are_checked_and_give_advice_like_folders(tmp_path: Path, url: str) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        make_volume(tmp_path / f"{name}.zarr", seed, (40, 44, 48))
    folders, urls = ([f"{place}/{name}.zarr" for name in ("one", "two")] for place in (tmp_path, url))
    found, expected = (check_volumes(train=[one], validate=[two]) for one, two in (urls, folders))
    assert found == [
        dataclasses.replace(e, volume=e.volume.replace(str(tmp_path), url), what=e.what.replace(str(tmp_path), url))
        for e in expected
    ]
    described = describe_volumes(urls[:1], urls[1:], [], tmp_path / "p")
    assert [v["path"] for kind in ("train", "validate") for v in described["volumes"][kind]] == urls
    local = describe_volumes(folders[:1], folders[1:], [], tmp_path / "p")
    assert described["training"] == local["training"]
    assert described["volumes"]["train"][0]["mask"] == "volumes/labels/mask"
