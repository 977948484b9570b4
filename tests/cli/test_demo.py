"""The demo's options; the chain it runs is tested in tests/chain, its scores are in benchmarks/results."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuroloom.cli import demo
from neuroloom.errors import UserError
from neuroloom.project import FILE_NAME, Parameters, load_project


def test_minutes_are_for_real_data_only(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--minutes goes with --data"):
        demo.demo_command(tmp_path / "demo", minutes=5.0)
    assert not (tmp_path / "demo").exists()


def test_missing_volumes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no fib25-train\.zarr"):
        demo.demo_command(tmp_path / "demo", data=tmp_path)
    assert not (tmp_path / "demo").exists()


def test_a_project_that_is_there_counts_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "run_all", lambda chain: None)
    monkeypatch.setattr(demo, "write_sample", _tiny_sample)
    demo.demo_command(tmp_path)
    before = (tmp_path / FILE_NAME).read_text()
    capsys.readouterr()
    demo.demo_command(tmp_path, baseline=True)
    assert "is there already and counts as it is" in capsys.readouterr().out
    assert (tmp_path / FILE_NAME).read_text() == before
    assert not load_project(tmp_path).parameters.training.baseline
    with pytest.raises(UserError, match="is a demo of other data"):
        demo.demo_command(tmp_path, data=tmp_path)


def test_settings_are_valid(tmp_path: Path) -> None:
    for values in (demo.SAMPLE, demo.REAL):
        volumes = {"train": [{"name": "t", "path": "t.zarr"}]}
        Parameters.model_validate({**values, "volumes": volumes})


def _tiny_sample(path: Path, parameters: object, shape: object, begin: object, progress: object) -> None:
    from small_project import make_volume

    make_volume(path, 1, (64, 64, 64))
