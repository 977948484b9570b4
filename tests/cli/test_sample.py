"""`neuroloom sample` from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from neuroloom.cli.sample import sample_command
from neuroloom.errors import UserError
from neuroloom.volume import open_volume
from neuroloom.volume.sample import SampleParameters, make_block

app = typer.Typer()
app.command()(sample_command)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_block_asked_for_is_written(tmp_path: Path) -> None:
    out = tmp_path / "s.zarr"
    options = ["--shape", "8,24,32", "--voxel-size", "40,8,8", "--look", "exm", "--seed", "3", "--begin", "5,-7,9"]
    assert "8 x 24 x 32 voxels" in run(out, *options)
    raw, labels = make_block(SampleParameters(seed=3, voxel_size=(40, 8, 8), look="exm"), (5, -7, 9), (8, 24, 32))
    volume = open_volume(out, "volumes/raw")
    np.testing.assert_array_equal(volume.read(), raw)
    np.testing.assert_array_equal(open_volume(out, "volumes/labels/neuron_ids").read(), labels)
    assert volume.offset == (200.0, -56.0, 72.0)
    with pytest.raises(UserError, match="exists already"):
        run(out, *options)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--shape", "8,8", "three whole numbers"), ("--shape", "0", "at least 1"), ("--voxel-size", "900", "1 to 200")],
)
def test_wrong_numbers_are_told(tmp_path: Path, option: str, value: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path / "s.zarr", option, value)
    assert not (tmp_path / "s.zarr").exists()


def test_unknown_looks_are_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path / "s.zarr"), "--look", "mri"])
    assert result.exit_code == 2
