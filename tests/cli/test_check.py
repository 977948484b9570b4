"""`neuroloom check` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from tests.volume.tissue import tissue, write
from typer.testing import CliRunner, Result

from neuroloom.cli.check import check_command
from neuroloom.errors import UserError

app = typer.Typer()
app.command()(check_command)
RAW, LABELS = tissue()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False, env={"COLUMNS": "300"})


def test_exit_codes_say_how_bad_it_is(tmp_path: Path) -> None:
    good = write(tmp_path / "good.zarr", RAW, LABELS)
    blank = RAW.copy()
    blank[7] = 0
    odd = write(tmp_path / "odd.zarr", blank, LABELS)
    wrong = write(tmp_path / "wrong.zarr", RAW, np.roll(LABELS, 3, 1))
    result = run(good)
    assert result.exit_code == 0
    assert "Nothing to complain about." in result.output
    result = run(good, odd)
    assert result.exit_code == 1
    assert "0 errors, 1 warning" in result.output
    assert "1 of 48 sections are blank: z = 7" in result.output
    assert "why: Neurites break there" in result.output
    assert "do: Set the mask to 0 there" in result.output
    assert run("--train", wrong, "--validate", odd).exit_code == 2
    assert run(tmp_path / "none.zarr").exit_code == 2


def test_json_for_scripts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", RAW, np.roll(LABELS, 3, 1))
    result = run(path, "--json")
    assert result.exit_code == 2
    content = json.loads(result.stdout)
    assert content["exit_code"] == 2
    error = next(f for f in content["findings"] if f["severity"] == "error")
    assert error["check"] == "alignment"
    assert error["numbers"]["shift"] == [0, -3, 0]
    assert {"volume", "what", "why", "remedy"} <= set(error)


def test_names_of_datasets_can_be_given(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", RAW, LABELS)
    (path / "volumes" / "raw").rename(path / "em")
    assert run(path).exit_code == 2
    assert run(path, "--raw", "em").exit_code == 0


def test_nothing_to_look_at() -> None:
    with pytest.raises(UserError, match="Nothing to look at"):
        run()
