"""A project that predicts with somebody else's network: to the segmentation, and every way in which it does not fit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreign_network import NEAREST, TURNED, declare_edges, edges
from neuroloom.chain import Chain, all_steps, open_project
from neuroloom.chain.report import collect
from neuroloom.errors import UserError
from neuroloom.files import write_text
from neuroloom.models import find_weights
from neuroloom.project import FILE_NAME
from neuroloom.project.template import render
from neuroloom.volume import open_volume
from small_project import VALUES, make_project

Call = Callable[..., tuple[int, str, str]]
VOLUMES = {"predict": [{"name": "val", "path": "data/val.zarr"}]}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("foreign") / "p")


def change(project: Path, prediction: dict[str, Any], **sections: Any) -> None:
    write_text(project / FILE_NAME, render({**VALUES, "volumes": VOLUMES, "prediction": prediction, **sections}))


@pytest.mark.system
def test_it_segments(project: Path, call: Call) -> None:
    declare_edges(project / "their-model.toml", TURNED, step=[1, 1, 1])
    change(project, {"model": "their-model.toml"}, segmentation={"threshold": 0.3})
    code, out, error = call("run", "--dry-run", "--project", project)
    assert code == 0, error
    assert "time not known" in out
    assert "and what somebody else's network takes to predict" in out
    code, out, error = call("run", "--project", project)
    assert code == 0, error
    chain = Chain(open_project(project))
    assert [step.state for step in all_steps(chain)] == ["done"] * 4
    stages = chain.predict(chain.volume("val")), chain.segment(chain.volume("val"))
    assert stages[0] is not None
    assert stages[1] is not None
    raw = open_volume(project / "data" / "val.zarr", "volumes/raw").read()
    np.testing.assert_array_equal(stages[0].output.open().read(), edges(raw, NEAREST))
    assert len(np.unique(stages[1].output.open().read())) > 2
    facts = collect(chain).facts
    assert (facts["weights"], facts["setup"]) == ("their-model.toml", "somebody else's network")
    # another declaration, another result; another time is known now
    declare_edges(project / "their-model.toml", TURNED, step=[1, 1, 1], raw_range=[0, 0.9])
    changed = Chain(open_project(project)).predict(chain.volume("val"))
    assert changed is not None
    assert changed.fingerprint() != stages[0].fingerprint()


def test_blocks_fit_the_network(project: Path, call: Call) -> None:
    declare_edges(project / "fixed.toml")
    change(project, {"model": "./fixed.toml"}, segmentation={"threshold": 0.3})
    chain = Chain(open_project(project))
    predict = chain.predict(chain.volume("val"))
    assert predict is not None
    assert all(b % f == 0 for b, f in zip(predict.block_shape, (10, 9, 8), strict=True))
    code, out, _ = call("status", "--json", "--project", project)
    assert code == 0
    steps = {step["name"]: step["seconds"] for step in json.loads(out)["steps"]}
    assert steps["predict val"] is None
    assert math.isfinite(steps["segment val"])
    with pytest.raises(UserError, match=r"predicts with given weights \(`prediction.model`\), so nothing is trained"):
        chain.train("lsd", lambda done, total, words: None)


def test_what_does_not_fit(project: Path) -> None:
    def refused(said: str, **prediction: Any) -> None:
        change(project, prediction)
        with pytest.raises(UserError, match=said):
            open_project(project)

    refused(r"line \d+: `prediction.model`: The declaration .*none\.toml does not exist", model="none.toml")
    declare_edges(project / "n.toml", voxel_size=[8, 8, 9])
    refused(r"`prediction.model`: .*n\.toml was trained on voxels of 8 x 8 x 9 nm, the project's are", model="n.toml")
    declare_edges(project / "n.toml", voxelsize=[8, 8, 8])
    refused(r"`prediction.model`: .*n\.toml, line \d+: unknown key `voxelsize`; did you mean", model="n.toml")
    declare_edges(project / "n.toml")
    refused(
        r"`prediction.block` is \[10, 9, 9\]; expected multiples of .* \[10, 9, 8\]", model="n.toml", block=[10, 9, 9]
    )


def test_nothing_else_is_possible_with_it(project: Path, call: Call) -> None:
    model = declare_edges(project / "n.toml")
    with pytest.raises(UserError, match="somebody else's network: it can predict"):
        find_weights(str(model))
    change(project, {}, volumes=VALUES["volumes"], training={**VALUES["training"], "start": "n.toml"})
    with pytest.raises(UserError, match=r"`training.start`: n\.toml is somebody else's network"):
        open_project(project)
    code, _, error = call("models", "export", model, project / "n.zip")
    assert code == 2
    assert "is somebody else's network" in error


def test_a_new_project(project: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    declare_edges(tmp_path / "model.toml")  # the name that cards have too
    volume = project / "data" / "val.zarr"
    code, out, error = call("init", "q", "--predict", volume, "--model", "model.toml")
    assert code == 0, error
    assert "the network that model.toml declares predicts; nothing is trained" in out
    assert open_project(tmp_path / "q").parameters.prediction.model == "../model.toml"
    code, _, error = call("run", "--project", "q")
    assert code == 2
    assert "set `segmentation.threshold`" in error
    code, _, error = call("init", "r", "--from", project / "data" / "train.zarr", "--model", "model.toml")
    assert code == 2
    assert "is somebody else's network" in error
    declare_edges(tmp_path / "far.toml", voxel_size=[4, 4, 40])
    code, _, error = call("init", "s", "--predict", volume, "--model", "far.toml")
    assert code == 2
    assert "was trained on voxels of 4 x 4 x 40 nm" in error
