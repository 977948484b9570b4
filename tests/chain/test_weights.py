"""Given weights: predicting without any training, starting from them, and every way in which they do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from neuroloom.chain import Chain, all_steps, open_project
from neuroloom.chain.report import collect
from neuroloom.errors import UserError
from neuroloom.files import write_text
from neuroloom.models import registry
from neuroloom.networks.architecture import parameter_count
from neuroloom.networks.checkpoint import load_checkpoint
from neuroloom.project import FILE_NAME
from neuroloom.project.template import render
from small_model import save_weights, ship
from small_project import VALUES, make_project, neuroloom

Call = Callable[..., tuple[int, str, str]]
QUICK = {"lsd": {"iterations": 1}, "affinities": {"iterations": 1}, "learning_rate": 1e-12}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("weights") / "p")
    save_weights(folder / "acrlsd.ckpt", "acrlsd")
    return folder


@pytest.fixture
def shipped(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ship(tmp_path, "fibsem-8nm", project / "acrlsd.ckpt", text="Read me.\n")
    monkeypatch.setattr(registry, "FOLDER", tmp_path)


def change(project: Path, **sections: Any) -> None:
    training = {**VALUES["training"], **QUICK, **sections.pop("training", {})}
    prediction = {**VALUES["prediction"], **sections.pop("prediction", {})}
    write_text(project / FILE_NAME, render({**VALUES, "training": training, "prediction": prediction, **sections}))


def train(chain: Chain, setup: str) -> dict[str, torch.Tensor]:
    chain.train(setup, lambda done, total, words: None)
    trained = chain.trained(setup)
    assert trained is not None
    return load_checkpoint(trained.checkpoint).network.state_dict()


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float = 1e-6) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=tolerance, rtol=0)


@pytest.mark.system
def test_given_weights_segment_without_training(project: Path, shipped: None) -> None:
    volumes = {"predict": [{"name": "val", "path": "data/val.zarr"}]}
    # neither setup, size nor neighbourhood of the project count
    other = {"feature_maps": 7, "growth": 3, "downsampling": [[2, 2, 2], [3, 3, 3]]}
    change(project, volumes=volumes, prediction={"model": "fibsem-8nm"}, network=other, training={"setup": "affs"})
    chain = Chain(open_project(project))
    steps = {step.name: step for step in all_steps(chain)}
    assert list(steps) == ["predict val", "fragments val", "agglomerate val", "segment val"]
    assert chain.setup == "acrlsd"
    for name in list(steps)[:-1]:
        next(step for step in all_steps(chain) if step.name == name).run(lambda done, total, words: None)
    predict = chain.predict(chain.volume("val"))
    assert predict is not None
    assert predict.output.open().array.shape == (3, 30, 40, 44)
    refused = r"needs a threshold, and there is no validation volume.*`segmentation\.thresh"
    with pytest.raises(UserError, match=refused):
        all_steps(chain)[-1].run(lambda done, total, words: None)
    with pytest.raises(UserError, match=refused):
        chain.check_threshold()  # by which `run` begins
    facts = collect(chain).facts
    assert (facts["weights"], facts["setup"], facts["trained on"]) == ("fibsem-8nm", "acrlsd", "nothing")
    with pytest.raises(UserError, match=r"predicts with given weights \(`prediction.model`\), so nothing is trained"):
        chain.train("affs", lambda done, total, words: None)
    # other weights, other results
    save_weights(project / "other.ckpt", "mtlsd")
    change(project, volumes=volumes, prediction={"model": "other.ckpt"})
    changed = Chain(open_project(project)).predict(chain.volume("val"))
    assert changed is not None
    assert changed.fingerprint() != predict.fingerprint()


def test_training_starts_from_given_weights(project: Path, tmp_path: Path) -> None:
    given = load_checkpoint(project / "acrlsd.ckpt")
    assert given.lsd is not None
    change(project)
    fresh = Chain(open_project(project)).job("lsd")
    change(project, training={"start": "acrlsd.ckpt", "baseline": True})
    chain = Chain(open_project(project))
    job = chain.job("lsd")
    assert fresh is not None
    assert job is not None
    assert job.start_sha256 == given.sha256
    assert job.fingerprint() != fresh.fingerprint()
    # so slow that weights stay what they were at first
    assert_close(train(chain, "lsd"), given.lsd.network.state_dict())
    assert_close(train(chain, "acrlsd"), given.network.state_dict())
    baseline, other = chain.baseline(), chain.job("affs")
    assert baseline is not None
    assert other is not None
    assert other.start_sha256 is None
    assert baseline.parameters.training.start is None
    # moved, they are the same weights
    (tmp_path / "moved.ckpt").write_bytes((project / "acrlsd.ckpt").read_bytes())
    change(project, training={"start": str(tmp_path / "moved.ckpt")})
    assert Chain(open_project(project)).trained("acrlsd") is not None


def test_a_descriptor_network_alone_starts_the_descriptors_only(project: Path) -> None:
    lsd = save_weights(project / "lsd.ckpt", "lsd", seed=9)
    change(project, training={"start": "lsd.ckpt"})
    chain = Chain(open_project(project))
    assert_close(train(chain, "lsd"), load_checkpoint(lsd).network.state_dict())
    job = chain.job("acrlsd")
    assert job is not None
    assert job.start_sha256 is None


def test_the_command_writes_what_it_starts_from(
    project: Path, shipped: None, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(project, training={"seed": 3})  # so that nothing is trained yet
    code, _, error = call("train", "affs", "--from", "fibsem-8nm", "--project", project)
    assert code == 2
    assert "--from is for the networks of the project (lsd, acrlsd), and affs is not among them" in error
    code, _, error = call("train", "lsd", "--from", "fibsem", "--project", project)
    assert code == 2
    assert "no model 'fibsem'; expected the path of a checkpoint, or one of fibsem-8nm; did you mean" in error
    assert open_project(project).parameters.training.start is None
    code, out, error = call("train", "lsd", "--from", "fibsem-8nm", "--project", project)
    assert code == 0, error
    assert "Next: neuroloom train acrlsd" in out
    assert open_project(project).parameters.training.start == "fibsem-8nm"
    monkeypatch.chdir(project / "data")  # a path is taken from where the command is given
    save_weights(project / "affinities.ckpt", "lsd")
    code, _, error = call("train", "acrlsd", "--from", "../affinities.ckpt", "--project", project)
    assert code == 2
    assert "holds no network of setup acrlsd" in error
    code, _, error = call("train", "acrlsd", "--from", "../acrlsd.ckpt", "--project", project)
    assert code == 2
    assert "Run `neuroloom train lsd` first" in error
    assert open_project(project).parameters.training.start == str(project / "acrlsd.ckpt")


@pytest.mark.parametrize(
    ("setup", "saved", "said"),
    [
        ("affs", {}, r"is of setup 'affs'; expected 'lsd' or 'acrlsd', as the project trains them"),
        ("acrlsd", {"network": {**VALUES["network"], "feature_maps": 5}}, r"`network.feature_maps` 5 instead of 4"),
        ("lsd", {"network": {**VALUES["network"], "kernels": [[1, 3, 3], [3, 3, 3]]}}, r"`network.kernels` \[\[1, 3"),
        ("acrlsd", {"sigma_nm": 80.0}, r"`training.sigma_nm` 80 instead of 40"),
        ("acrlsd", {"voxel_size": (8.0, 8.0, 9.0)}, r"voxels of 8 x 8 x 9 nm instead of 8 x 8 x 8 nm"),
        (
            "acrlsd",
            {"neighborhood": ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (-3, 0, 0))},
            r"`training.neighborhood` \[.*\[-3, 0, 0\]\] instead of \[",
        ),
    ],
)
def test_weights_that_do_not_fit_are_no_start(project: Path, setup: str, saved: dict[str, Any], said: str) -> None:
    save_weights(project / "odd.ckpt", setup, **saved)
    change(project, training={"start": "odd.ckpt"})
    with pytest.raises(UserError, match=rf"line \d+: `training.start`: .*odd\.ckpt .*{said}"):
        open_project(project)


def test_given_descriptors_are_used_as_they_are(project: Path, call: Call, tmp_path: Path) -> None:
    # of another size, in a checkpoint that has an affinity network as well
    larger = {**VALUES["network"], "feature_maps": 6}
    given = load_checkpoint(save_weights(project / "larger.ckpt", "acrlsd", larger, seed=5))
    assert given.lsd is not None
    values = {"descriptors": "larger.ckpt", "start": "acrlsd.ckpt", "seed": 8}
    change(project, training={**values, "keep_descriptors": True, "baseline": True})
    code, out, error = call("train", "acrlsd", "--plan", "--json", "--project", project)
    assert code == 0, error
    assert json.loads(out)["frozen_weights"] == parameter_count(given.lsd.metadata.network)
    chain = Chain(open_project(project))
    assert [step.name for step in all_steps(chain)][:2] == ["train acrlsd", "predict val"]
    assert [network.feature_maps for network in chain.networks] == [6, 4]
    trained = train(chain, "acrlsd")
    assert_close(trained, load_checkpoint(project / "acrlsd.ckpt").network.state_dict())
    weights = chain.weights()
    assert weights is not None
    used = load_checkpoint(weights[0])
    assert used.lsd is not None
    assert used.lsd.metadata == given.lsd.metadata
    assert used.metadata.lsd_sha256 == given.lsd.sha256
    assert_close(used.lsd.network.state_dict(), given.lsd.network.state_dict(), 0)
    predict = chain.predict(chain.volume("val"))
    assert predict is not None  # and what was trained can be predicted with
    next(step for step in all_steps(chain) if step.name == "predict val").run(lambda done, total, words: None)
    assert collect(chain).facts["descriptor network"] == "larger.ckpt"
    with pytest.raises(UserError, match=r"uses a given descriptor network \(`training.descriptors`\), so none is trai"):
        chain.train("lsd", lambda done, total, words: None)
    baseline = chain.baseline()
    assert baseline is not None
    assert next(step.name for step in all_steps(baseline)) == "train affs"
    # moved, it is the same; another one is another training
    (tmp_path / "moved.ckpt").write_bytes((project / "larger.ckpt").read_bytes())
    change(project, training={**values, "keep_descriptors": True, "descriptors": str(tmp_path / "moved.ckpt")})
    assert Chain(open_project(project)).trained("acrlsd") is not None
    save_weights(project / "larger.ckpt", "lsd", larger, seed=6)
    change(project, training={**values, "keep_descriptors": True})
    assert Chain(open_project(project)).trained("acrlsd") is None


@pytest.mark.parametrize(
    ("setup", "saved", "said"),
    [
        ("mtlsd", {}, r"`training.descriptors`: .*odd\.ckpt is of setup 'mtlsd' and has no descriptor network"),
        (
            "lsd",
            {"sigma_nm": 80.0},
            r"`training.descriptors`: .*odd\.ckpt differs .* `training.sigma_nm` 80 instead of",
        ),
        ("acrlsd", {"voxel_size": (8.0, 8.0, 9.0)}, r"`training.descriptors`: .* voxels of 8 x 8 x 9 nm instead of"),
        (
            "lsd",
            {"network": {**VALUES["network"], "downsampling": [[3, 3, 3]]}},
            r"`prediction.block` is \[16, 24, 24\]; expected multiples of the descriptor network's factor \[3, 3, 3\]",
        ),
    ],
)
def test_weights_that_give_no_descriptors(project: Path, setup: str, saved: dict[str, Any], said: str) -> None:
    save_weights(project / "odd.ckpt", setup, **saved)
    change(project, training={"descriptors": "odd.ckpt"})
    with pytest.raises(UserError, match=rf"line \d+: .*{said}"):
        open_project(project)


def test_weights_that_cannot_predict(project: Path, shipped: None) -> None:
    def refused(model: str, said: str, **prediction: Any) -> None:
        change(project, prediction={"model": model, **prediction})
        with pytest.raises(UserError, match=said):
            open_project(project)

    refused("fibsem-9nm", r"line \d+: `prediction.model`: There is no model 'fibsem-9nm'; .* did you mean 'fibsem-8nm'")
    refused("none.ckpt", r"line \d+: `prediction.model`: The checkpoint .*none\.ckpt does not exist")
    (project / "text.ckpt").write_text("no weights")
    refused("text.ckpt", r"line \d+: `prediction.model`: The checkpoint .*text\.ckpt cannot be read")
    save_weights(project / "far.ckpt", "affs", voxel_size=(8.0, 8.0, 9.0))
    refused("far.ckpt", r"trained on voxels of 8 x 8 x 9 nm, the project's are 8 x 8 x 8 nm")
    save_weights(project / "odd.ckpt", "affs", neighborhood=((0, 0, -1), (0, -1, 0), (-1, 0, 0)))
    refused("odd.ckpt", r"gives affinities at \[\[0, 0, -1\], .*; expected \[\[-1, 0, 0\], .* first")
    save_weights(project / "lsd.ckpt", "lsd")
    refused("lsd.ckpt", r"is of setup 'lsd', which gives no affinities; name an affinity network")
    refused(
        "fibsem-8nm", r"`prediction.block` is \[15, 24, 24\]; expected multiples of .* \[2, 2, 2\]", block=[15, 24, 24]
    )


def test_nothing_to_train_on_and_no_weights(project: Path) -> None:
    change(project, volumes={"validate": VALUES["volumes"]["validate"]})
    with pytest.raises(UserError, match=r"`volumes.train` is missing .*or name weights with `prediction.model`"):
        open_project(project)


def test_models_are_listed_and_shown(shipped: None, call: Call) -> None:
    code, out, _ = call("models")
    assert code == 0
    assert [line.split()[:5] for line in out.splitlines()[1:2]] == [["fibsem-8nm", "acrlsd", "8", "x", "8"]]
    assert "4.25" in out
    code, out, _ = call("models", "fibsem-8nm")
    assert code == 0
    for said in ("Random weights", "sigma       40 nm", "Ada Lovelace", "4.25 bits (made up)", "CC0-1.0", "Read me."):
        assert said in out
    code, _, error = call("models", "fibsem")
    assert code == 2
    assert "did you mean 'fibsem-8nm'?" in error


def test_there_may_be_no_models(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "FOLDER", tmp_path)
    code, out, _ = call("models")
    assert code == 0
    assert "No models come with this version yet" in out


@pytest.mark.system
def test_a_threshold_that_is_set_is_the_one_that_is_scored(project: Path) -> None:
    # not among those that are tried; whatever the scores say
    change(project, prediction={"model": "acrlsd.ckpt"}, segmentation={"threshold": 0.333})
    result = neuroloom("run", "--project", project)
    assert result.returncode == 0, result.stderr
    chain = Chain(open_project(project))
    evaluation = chain.evaluation(chain.validation_volumes[0])
    assert evaluation is not None
    used = evaluation.used
    assert used.threshold == 0.333 != evaluation.best_threshold
    assert f"{used.plain.voi_sum:.3f}, truth eroded" in result.stdout
    assert f"threshold 0.333: the best for it would be {evaluation.best_threshold:g}, with" in result.stdout
    report = chain.project.report_file.read_text()
    assert "at threshold 0.333 (the best for it" in report
    assert "by given weights (what they were trained on, their card says)" in report
    assert "which was never trained on" not in report
