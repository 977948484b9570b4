"""The harness of the benchmarks: what it prints, how it asks peers, and that it fails when results differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import neuroloom
from benchmarks import __main__ as command
from benchmarks import agglomeration, forest, lsd, peers, prediction, training
from benchmarks.results import Disagreement, Result, alternate, as_json, as_table
from benchmarks.volumes import Options, tissue
from neuroloom.models import registry
from neuroloom.volume import open_volume
from small_model import save_weights, ship

TIMES = Result("faster", (2.0, 1.0, 4.0), (6.0, 5.0, 70.0), "s")
RATES = Result("more often", (6.0,), (2.0,), "1/s", less_is_better=False)


class TestResults:
    def test_ratio_above_one_is_better_than_the_peer(self) -> None:
        assert TIMES.ratio == 3.0
        assert RATES.ratio == 3.0

    def test_table_has_aligned_columns(self) -> None:
        head, first, second = as_table([TIMES, RATES]).splitlines()
        assert head.split() == ["what", "ours", "peer", "unit", "ratio", "n"]
        assert first.split() == ["faster", "2", "6", "s", "3", "3"]
        assert second.split() == ["more", "often", "6", "2", "1/s", "3", "1"]
        assert head.index("unit") == first.index("s", 10) == second.index("1/s")

    def test_json_is_one_line(self) -> None:
        (line,) = as_json("lsd", [TIMES, RATES]).splitlines()
        assert json.loads(line) == {
            "benchmark": "lsd",
            "results": [
                {"what": "faster", "ours": 2.0, "peer": 6.0, "unit": "s", "ratio": 3.0, "n": 3},
                {"what": "more often", "ours": 6.0, "peer": 2.0, "unit": "1/s", "ratio": 3.0, "n": 1},
            ],
        }

    def test_sides_take_turns(self) -> None:
        calls: list[str] = []

        def side(name: str) -> float:
            calls.append(name)
            return float(len(calls))

        assert alternate(lambda: side("ours"), lambda: side("peer"), 2) == ([1.0, 3.0], [2.0, 4.0])
        assert calls == ["ours", "peer"] * 2


class TestPeers:
    def test_an_environment_is_made_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(peers, "FOLDER", tmp_path)
        python = peers.environment("some", ("pip",))  # it is there already: nothing is fetched
        made = python.stat().st_ctime_ns
        assert peers.environment("some", ("pip",)) == python
        assert python.stat().st_ctime_ns == made
        script = tmp_path / "script.py"
        script.write_text(
            "import json, os, pathlib, sys\n"
            "folder = pathlib.Path(sys.argv[1])\n"
            "print('something else')\n"
            "print(json.dumps([json.loads((folder / 'parameters.json').read_text()), sys.prefix, dict(os.environ)]))\n"
        )
        monkeypatch.setenv("PYTHONPATH", "src")
        given, prefix, variables = peers.ask(python, script, tmp_path, sigma=80.0)
        assert given == {"sigma": 80.0}
        assert Path(prefix) == tmp_path / "some"
        assert "PYTHONPATH" not in variables

    def test_a_peer_that_fails_is_quoted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        script = tmp_path / "script.py"
        script.write_text("raise SystemExit('no such thing')")
        with pytest.raises(RuntimeError, match=r"script.py ended with 1:\nno such thing"):
            peers.ask(Path(peers.sys.executable), script, tmp_path)


def fake_lsds(error: float) -> Any:
    """A peer that computes as we do, and adds an error to the variances."""

    def ask(python: Path, script: Path, folder: Path, **parameters: Any) -> dict[str, Any]:
        assert script.exists()
        found = neuroloom.lsd(
            np.load(folder / "labels.npy"), parameters["sigma"], parameters["voxel_size"], parameters["downsample"]
        )
        found[3:6] += np.float32(error)
        np.save(folder / "descriptors.npy", found)
        return {"seconds": 1000.0}

    return ask


class TestCommand:
    def test_made_tissue_where_there_is_no_real_one(self, tmp_path: Path) -> None:
        what, raw, labels = tissue(Options(tmp_path, quick=True), "fib25-val", 24)
        assert what.startswith("24 x 24 x 24 voxels of made tissue (")
        assert raw.shape == labels.shape == (24, 24, 24)

    def test_lsd(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr(lsd, "environment", lambda name, requirements: Path("python"))
        monkeypatch.setattr(lsd, "ask", fake_lsds(1e-4))
        assert command.main(["lsd", "--quick", "--json", "--data", str(tmp_path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert "made tissue" in lines[0]
        full, coarse = json.loads(lines[-1])["results"]
        assert (full["what"], coarse["what"]) == ("LSD targets, full resolution", "LSD targets, downsample 2")
        assert full["ratio"] == pytest.approx(1000 / full["ours"])
        assert full["n"] == 1

    def test_lsd_fails_when_results_differ(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(lsd, "environment", lambda name, requirements: Path("python"))
        monkeypatch.setattr(lsd, "ask", fake_lsds(0.05))
        assert command.main(["lsd", "--quick", "--data", str(tmp_path)]) == 1
        assert "variance by 5.0e-02, more than 0.001, from the peer's" in capsys.readouterr().err

    def test_training(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def ask(python: Path, script: Path, folder: Path, **parameters: Any) -> dict[str, Any]:
            assert script.exists()
            assert np.load(folder / "raw.npy").shape == np.load(folder / "mask.npy").shape
            assert parameters["raw_shape"] == (60, 60, 60)
            return {"rate": 0.1, "idle": 0.5, "parameters": 69397, "loss": 0.2}

        monkeypatch.setattr(training, "environment", lambda name, requirements: Path("python"))
        monkeypatch.setattr(training, "ask", ask)
        assert command.main(["training", "--quick", "--json", "--data", str(tmp_path)]) == 0
        rate, busy = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
        assert rate["ratio"] == pytest.approx(rate["ours"] / 0.1)
        assert busy["peer"] == 50.0
        assert 0 < busy["ours"] <= 100

    @pytest.mark.parametrize("error", [0, 3])
    def test_prediction(
        self, error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The peer's answer is ours, all of it further off than may be where there is an error."""
        shipped = tmp_path / "models"
        network = {"feature_maps": 2, "growth": 2, "downsampling": [[2, 2, 2]]}
        ship(shipped, "fibsem-fly-8nm-small", save_weights(tmp_path / "a.ckpt", "acrlsd", network))
        monkeypatch.setattr(registry, "FOLDER", shipped)

        def ask(python: Path, script: Path, folder: Path, **parameters: Any) -> dict[str, Any]:
            assert script.exists()
            assert parameters["affinities"]["inputs"] == 11
            assert len(np.load(folder / "descriptors.npz")) == len(np.load(folder / "affinities.npz")) == 16
            (ours,) = folder.glob("ours-*/affinities.zarr")
            found = open_volume(ours, "affinities").read()
            np.save(folder / "affinities.npy", np.where(found < 128, found + error, found - error))
            return {"seconds": 1000.0}

        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(prediction, "environment", lambda name, requirements: Path("python"))
        monkeypatch.setattr(prediction, "ask", ask)
        code = command.main(["prediction", "--quick", "--json", "--data", str(tmp_path)])
        printed = capsys.readouterr()
        if error:
            assert code == 1
            assert "of affinities differ by more than two grey values" in printed.err
            return
        assert code == 0
        rate, share, memory = json.loads(printed.out.splitlines()[-1])["results"]
        assert rate["peer"] == pytest.approx(140**3 / 1000 / 1e6)
        assert rate["ratio"] == pytest.approx(rate["ours"] / rate["peer"])
        assert share["ratio"] > 0
        assert memory["what"] == "memory after 10 regions, after 5"

    def test_teravoxel_predicts_by_commands(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert command.main(["teravoxel", "--quick", "--json"]) == 0
        rate, hours, share, speed, memory = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
        assert rate["peer"] == pytest.approx(1e6 / 5 / 3600)
        assert hours["ours"] == pytest.approx(1e6 / rate["ours"] / 3600)
        assert 0 < share["ratio"] < 1
        assert speed["ours"] == pytest.approx(rate["ours"])
        assert 0 < memory["ours"] < 5
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert command.main(["teravoxel"]) == 2
        assert "needs a GPU" in capsys.readouterr().err

    @pytest.fixture
    def real_looking(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Affinities of made tissue, as a small random network would give them."""
        shipped = tmp_path / "models"
        ship(shipped, "fibsem-fly-8nm-small", save_weights(tmp_path / "a.ckpt", "acrlsd"))
        monkeypatch.setattr(registry, "FOLDER", shipped)

    @pytest.mark.usefixtures("real_looking")
    def test_fragments(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert command.main(["fragments", "--quick", "--json", "--data", str(tmp_path)]) == 0
        printed = capsys.readouterr().out
        assert "the same" in printed
        (result,) = json.loads(printed.splitlines()[-1])["results"]
        assert result["ratio"] > 1

    @pytest.mark.usefixtures("real_looking")
    def test_agglomeration(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def ask(python: Path, script: Path, folder: Path, **parameters: Any) -> dict[str, Any]:
            assert script.exists()
            assert np.load(folder / "affinities.npy").shape == (3, 100, 100, 100)
            return {"seconds": {"all": 1000.0}, "segments": 5}

        monkeypatch.setattr(agglomeration, "environment", lambda name, requirements: Path("python"))
        monkeypatch.setattr(agglomeration, "ask", ask)
        assert command.main(["agglomeration", "--quick", "--json", "--data", str(tmp_path)]) == 0
        scores, everything, more = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
        assert scores["what"] == "merge scores"
        assert everything["ratio"] == pytest.approx(1000 / everything["ours"])
        assert 0 < more["ours"] < everything["ours"]

    @pytest.mark.usefixtures("real_looking")
    def test_blocks(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert command.main(["blocks", "--quick", "--json", "--data", str(tmp_path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[2].startswith("eight workers: the same")
        assert lines[3].startswith("shuffled: the same")
        results = json.loads(lines[-1])["results"]
        assert [r["what"] for r in results] == [
            f"VOI, blocks of {one} against {other}" for one, other in ((40, 100), (40, 48), (100, 48))
        ]
        assert all(result["ours"] >= 0 for result in results)

    @pytest.mark.system
    def test_forest(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert command.main(["forest", "--quick", "--json"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("0.008 million fragments in 64 blocks")
        assert [entry["unit"] for entry in json.loads(lines[-1])["results"]] == ["s", "GB", "s", "GB"]

    def test_segments_of_a_table_are_compared(self) -> None:
        table = np.array([[3, 5, 8, 9], [3, 3, 8, 3]], np.uint64)
        forest.compare(table, np.array([0, 0, 1, 0], np.int32))
        for other in ([0, 0, 1, 1], [0, 0, 1, 2], [0, 0, 0, 0]):
            with pytest.raises(Disagreement, match="segments"):
                forest.compare(table, np.array(other, np.int32))

    def test_relabel(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert command.main(["relabel", "--quick", "--json", "--data", str(tmp_path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert "made tissue" in lines[0]
        assert [entry["unit"] for entry in json.loads(lines[-1])["results"]] == ["Mvoxel/s"] * 2
