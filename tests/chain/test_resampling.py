"""Projects whose volumes have other voxels than the network was trained on, and such that average networks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuroloom.chain import Chain, all_steps, open_project
from neuroloom.chain.prediction_plan import calibrate, plan_prediction
from neuroloom.errors import UserError
from neuroloom.files import write_text
from neuroloom.project import FILE_NAME
from neuroloom.project.template import render
from small_model import save_weights
from small_project import VALUES, make_project, make_volume, neuroloom

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project, weights, and a volume of voxels of 12 x 8 x 6 nm."""
    folder = make_project(tmp_path_factory.mktemp("resampled") / "p")
    make_volume(folder / "data" / "long.zarr", 3, (20, 40, 50), (12.0, 8.0, 6.0))
    save_weights(folder / "a.ckpt", "acrlsd")
    save_weights(folder / "b.ckpt", "affs", seed=3)
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "p")
    return tmp_path / "p"


def change(project: Path, prediction: dict[str, Any], **sections: Any) -> None:
    write_text(project / FILE_NAME, render({**VALUES, "prediction": prediction, **sections}))


LONG = {
    "voxel_size": [12.0, 8.0, 6.0],
    "volumes": {"validate": [{"name": "long", "path": "data/long.zarr"}]},
}


@pytest.mark.system
def test_volumes_of_other_voxels_are_segmented_in_their_own(project: Path) -> None:
    change(project, {"model": "a.ckpt"}, **LONG)
    refused = neuroloom("predict", "--project", project)
    assert refused.returncode == 2
    assert "trained on voxels of 8 x 8 x 8 nm, the project's are 12 x 8 x 6 nm. Have volumes" in refused.stderr
    predicted = neuroloom("predict", "--resample", "--project", project)
    assert predicted.returncode == 0, predicted.stderr
    assert "resample = true" in (project / FILE_NAME).read_text()
    result = neuroloom("run", "--project", project)
    assert result.returncode == 0, result.stderr
    assert "VOI sum on long" in result.stdout
    chain = Chain(open_project(project))
    assert [step.state for step in all_steps(chain)] == ["done"] * 6
    segment = chain.segment(chain.volume("long"))
    assert segment is not None
    output = segment.output.open()
    assert output.shape == (20, 40, 50)
    assert output.voxel_size == (12.0, 8.0, 6.0)


def test_a_volume_to_predict_may_have_its_own_voxels(project: Path, call: Call) -> None:
    volumes = {**VALUES["volumes"], "predict": [{"name": "long", "path": "data/long.zarr"}]}
    change(project, {}, volumes=volumes)
    code, _, error = call("predict", "--project", project)
    assert code == 2
    assert "long.zarr/volumes/raw has voxels of 12 x 8 x 6 nm, the project's `voxel_size` is 8 x 8 x 8 nm" in error
    assert "or be resampled (`neuroloom predict --resample`)" in error
    code, _, error = call("predict", "--resample", "--project", project)
    assert code == 2
    assert "needs a trained network" in error  # and so on: voxels are right now
    make_volume(project / "data" / "coarse.zarr", 3, (4, 40, 50), (40.0, 8.0, 8.0))
    volumes["predict"].append({"name": "coarse", "path": "data/coarse.zarr"})
    change(project, {"resample": True}, volumes=volumes)
    with pytest.raises(UserError, match=r"coarse.*cannot be resampled.*more than 4 times"):
        open_project(project)
    volumes["predict"].pop()
    volumes["validate"] = [{"name": "val", "path": "data/long.zarr"}]
    change(project, {"resample": True}, volumes=volumes)
    with pytest.raises(UserError, match="they must agree"):
        open_project(project)  # scores steer training, which is of one voxel size


def test_plans_count_what_networks_see(project: Path) -> None:
    change(project, {"model": "a.ckpt", "resample": True, "block": [20, 40, 50]}, **LONG)
    chain = Chain(open_project(project))
    plan = plan_prediction(chain, chain.volume("long"))
    assert plan.tile[0] >= 30
    assert plan.tile[1] >= 40
    assert 36 <= plan.tile[2] <= 44  # 50 voxels of 6 nm are 37.5 of 8 nm
    found = calibrate(chain, chain.volume("long"))
    assert found.crop == (20, 40, 50)
    assert plan_prediction(chain, chain.volume("long")).voxels_per_second == pytest.approx(
        20 * 40 * 50 / sum(found.seconds.values())
    )


def test_blocks_follow_what_networks_see(project: Path) -> None:
    change(project, {"model": "a.ckpt", "resample": True}, **LONG)
    chain = Chain(open_project(project))
    predict = chain.predict(chain.volume("long"))
    assert predict is not None
    assert predict.block_shape == (20, 40, 50)


def test_init_resamples_on_request(project: Path, call: Call, tmp_path: Path) -> None:
    arguments = ("init", tmp_path / "new", "--model", project / "a.ckpt", "--predict", project / "data" / "long.zarr")
    code, _, error = call(*arguments)
    assert code == 2
    assert "Add --resample" in error
    code, out, error = call(*arguments, "--resample")
    assert code == 0, error
    assert "resample: the model was trained on voxels of 8 x 8 x 8 nm, these are 12 x 8 x 6 nm" in out
    assert open_project(tmp_path / "new").parameters.prediction.resample
    training = ("init", tmp_path / "t", "--model", project / "a.ckpt", "--from", project / "data" / "long.zarr")
    code, _, error = call(*training, "--resample")
    assert code == 2
    assert "Add --resample" not in error


def test_an_ensemble_is_planned_and_predicted(project: Path, call: Call) -> None:
    change(project, {"model": "a.ckpt", "block": [16, 24, 24]})
    chain = Chain(open_project(project))
    alone = plan_prediction(chain, chain.volume("val"))
    stage = chain.predict(chain.volume("val"))
    change(project, {"model": "a.ckpt", "ensemble": ["a.ckpt", "b.ckpt"], "block": [16, 24, 24]})
    chain = Chain(open_project(project))
    three = plan_prediction(chain, chain.volume("val"))
    assert 2 * alone.operations < three.operations < 3 * alone.operations  # the last has no descriptor network
    ensemble = chain.predict(chain.volume("val"))
    assert stage is not None
    assert ensemble is not None
    assert ensemble.fingerprint() != stage.fingerprint()
    code, _, error = call("predict", "--project", project)
    assert code == 0, error
    assert calibrate(chain, chain.volume("val")).weights == (ensemble.checkpoint_sha256, *ensemble.ensemble_sha256)


def test_what_does_not_fit_into_an_ensemble_is_told(project: Path) -> None:
    save_weights(project / "c.ckpt", "affs", voxel_size=(16.0, 8.0, 8.0))
    save_weights(project / "lsd.ckpt", "lsd")
    for name, expected in (
        ("none.ckpt", r"`prediction.ensemble`: .*none.ckpt"),
        ("c.ckpt", r"trained on voxels of 16 x 8 x 8 nm, the other network on 8 x 8 x 8 nm"),
        ("lsd.ckpt", r"`prediction.ensemble`: .*gives no affinities"),
    ):
        change(project, {"model": "a.ckpt", "ensemble": [name]})
        with pytest.raises(UserError, match=expected):
            open_project(project)


def test_init_takes_volumes_of_their_own_voxels_on_request(project: Path, call: Call, tmp_path: Path) -> None:
    volumes = ("--from", project / "data" / "train.zarr", "--predict", project / "data" / "long.zarr")
    code, _, error = call("init", tmp_path / "new", *volumes)
    assert code == 2
    assert "if it is only to be segmented, add --resample" in error
    code, out, error = call("init", tmp_path / "new", *volumes, "--resample")
    assert code == 0, error
    assert "volumes to segment that have another one are resampled" in out
    parameters = open_project(tmp_path / "new").parameters
    assert parameters.voxel_size == (8.0, 8.0, 8.0)
    assert parameters.prediction.resample
