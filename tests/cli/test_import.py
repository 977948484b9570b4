"""`neuroloom import` from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from neuroloom.cli.import_ import import_command
from neuroloom.errors import UserError
from neuroloom.volume import open_volume

app = typer.Typer()
app.command()(import_command)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_import_with_every_option(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).integers(0, 4096, (20, 30, 40)).astype(np.uint16)
    labels = np.full((8, 9, 10), -1, np.int32)
    labels[2:] = 5
    np.save(tmp_path / "raw.npy", raw.transpose(2, 1, 0))
    np.save(tmp_path / "labels.npy", labels.transpose(2, 1, 0))
    arguments = [tmp_path / "o.zarr", "--raw", tmp_path / "raw.npy", "--labels", tmp_path / "labels.npy"]
    arguments += ["--axes", "xyz", "--voxel-size", "40,8,8", "--offset", "40,0,0", "--label-offset", "80,16,8"]
    arguments += ["--rescale", "0,4095", "--background", "-1"]
    text = run(*arguments)
    assert "20 x 30 x 40 voxels of 40 x 8 x 8 nm" in text
    assert "volumes/labels/neuron_ids: uint64" in text
    assert "raw values 0 … 4095 became 0 … 255" in text
    volume = open_volume(tmp_path / "o.zarr", "volumes/raw")
    np.testing.assert_array_equal(volume.read(), np.rint(raw / 4095 * 255))
    assert volume.offset == (40.0, 0.0, 0.0)
    got = open_volume(tmp_path / "o.zarr", "volumes/labels/neuron_ids").read()
    assert (got[3:9, 2:11, 1:11] == 5).all()
    assert got.sum() == 5 * 6 * 9 * 10
    with pytest.raises(UserError, match="--overwrite"):
        run(*arguments)
    run(*arguments, "--overwrite")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--voxel-size", "8,8", "expected three numbers"),
        ("--voxel-size", "8;8;8", "expected three numbers"),
        ("--voxel-size", "0,8,8", "expected three numbers above 0"),
        ("--offset", "a,b,c", "expected three numbers"),
        ("--rescale", "5", "expected MIN,MAX"),
        ("--rescale", "9,5", "expected MIN below MAX"),
        ("--background", "3", "no --labels is named"),
    ],
)
def test_wrong_numbers_are_told(tmp_path: Path, option: str, value: str, message: str) -> None:
    np.save(tmp_path / "raw.npy", np.ones((4, 4, 4), np.uint8))
    size = () if option == "--voxel-size" else ("--voxel-size", "8")
    with pytest.raises(UserError, match=message):
        run(tmp_path / "o.zarr", "--raw", tmp_path / "raw.npy", *size, option, value)
    assert not (tmp_path / "o.zarr").exists()
