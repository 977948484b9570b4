"""Every setup through the whole chain: trained for a few steps, predicted, segmented, told of in the report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from neuroloom.chain import Chain, all_steps, open_project
from neuroloom.chain.report import collect
from neuroloom.errors import UserError
from neuroloom.files import write_text
from neuroloom.networks.checkpoint import load_checkpoint
from neuroloom.networks.setups import SETUPS, Setup
from neuroloom.prediction.predictor import Predictor
from neuroloom.project import FILE_NAME
from neuroloom.project.template import render
from small_project import VALUES, make_project, make_volume

DOCS = Path(__file__).parents[2] / "docs"
FAST = {"lsd": {"iterations": 2}, "affinities": {"iterations": 3}, "validate_every": 2, "snapshot_every": 3}
LONG_RANGE = [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [-3, 0, 0], [0, -5, 4]]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("setups") / "p")


def change(project: Path, training: dict[str, Any], **sections: Any) -> Chain:
    """The project with other sections; volumes stay, so that descriptor networks are trained once only."""
    resources = {**VALUES["resources"], "workers": 1}
    values = {**VALUES, "resources": resources, "training": {**VALUES["training"], **FAST, **training}}
    values |= {"segmentation": {"thresholds": [0.3, 0.6]}, **sections}
    write_text(project / FILE_NAME, render(values))
    return Chain(open_project(project))


def run(chain: Chain) -> list[str]:
    """Do all that is missing; the names of the steps in order."""
    names = [step.name for step in all_steps(chain)]
    for name in names:
        step = next(step for step in all_steps(chain) if step.name == name)
        if step.state != "done":
            step.run(lambda done, total, words: None)
    return names


def affinities(chain: Chain) -> Any:
    stage = chain.predict(chain.volume("val"))
    assert stage is not None
    return stage.output.open()


@pytest.mark.parametrize("setup", [name for name, setup in SETUPS.items() if setup.gives_affinities])
def test_every_setup_segments(template: Path, setup: str) -> None:
    chain = change(template, {"setup": setup})
    names = run(chain)
    trained = ["train lsd"] if SETUPS[setup].needs_lsd_network else []
    assert [name for name in names if name.startswith("train")] == [*trained, f"train {setup}"]
    assert all(step.state == "done" for step in all_steps(chain))
    assert affinities(chain).array.shape == (3, 30, 40, 44)
    segment = chain.segment(chain.volume("val"))
    assert segment is not None
    assert segment.output.open().read().max() > 0
    content = collect(chain)
    assert any(curve.network.endswith(f"({setup})") for curve in content.curves)
    assert any(figure.title.endswith(f"({setup})") for figure in content.sheets)
    assert any(time.stage == f"train {setup}" for time in content.timings)


def test_descriptors_alone_cannot_segment(template: Path) -> None:
    with pytest.raises(
        UserError, match=r"line \d+: `training.setup` is 'lsd', which gives no affinities; expected one"
    ):
        change(template, {"setup": "lsd"})
    with pytest.raises(UserError, match=r"line \d+: `training.setup` is 'acrls'; expected .*did you mean 'acrlsd'\?"):
        change(template, {"setup": "acrls"})
    chain = change(template, {"setup": "affs"})
    chain.train("lsd", lambda done, total, words: None)
    assert chain.trained("lsd") is not None


@pytest.mark.parametrize("setup", ["acrlsd", "mtlsd"])
def test_any_neighbourhood(template: Path, setup: str) -> None:
    nearest = change(template, {"setup": setup})
    chain = change(template, {"setup": setup, "neighborhood": LONG_RANGE})
    assert chain.job("lsd") == nearest.job("lsd")  # descriptors do not depend on it
    run(chain)
    output = affinities(chain)
    assert output.array.shape == (5, 30, 40, 44)
    assert output.array.attrs["neuroloom"]["neighborhood"] == LONG_RANGE
    assert any("Results on val" in figure.title for figure in collect(chain).sheets)
    # agglomeration does not ask which network made the affinities
    for method in ("hierarchical", "mutex_watershed", "multicut") if setup == "acrlsd" else ():
        section = {**VALUES["agglomeration"], "method": method, "long_range": True}
        other = change(template, {"setup": setup, "neighborhood": LONG_RANGE}, agglomeration=section)
        run(other)
        volume = other.validation_volumes[0]
        made, before = other.agglomerate(volume), chain.agglomerate(volume)
        assert made is not None
        assert before is not None
        assert made.fingerprint() != before.fingerprint()
        assert len(made.graph.read_edges()) == len(before.graph.read_edges()) > 0


@pytest.mark.parametrize("setup", ["acrlsd", "affs"])
def test_an_anisotropic_network(tmp_path: Path, setup: str) -> None:
    voxel_size = (40.0, 8.0, 8.0)
    make_volume(tmp_path / "data" / "train.zarr", 1, (16, 60, 64), voxel_size)
    make_volume(tmp_path / "data" / "val.zarr", 2, (9, 40, 44), voxel_size)
    network = {
        "feature_maps": 4,
        "growth": 2,
        "downsampling": [[1, 3, 3], [3, 2, 2]],
        "kernels": [[1, 3, 3], [1, 3, 3], [3, 3, 3]],
    }
    chain = change(
        tmp_path,
        {"setup": setup, "crop": [6, 20, 20]},
        voxel_size=list(voxel_size),
        network=network,
        prediction={},
        fragments={"block": [9, 40, 44], "context": [1, 4, 4], "min_seed_distance": 4},
        agglomeration={"block": [9, 40, 44], "context": [1, 8, 8]},
    )
    run(chain)
    predict, fragments, segment = (
        stage(chain.volume("val")) for stage in (chain.predict, chain.fragments, chain.segment)
    )
    assert predict is not None
    assert fragments is not None
    assert segment is not None
    assert fragments.in_xy
    assert load_checkpoint(predict.checkpoint).network.geometry.kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3))
    assert predict.output.open().voxel_size == voxel_size
    assert segment.output.open().read().shape == (9, 40, 44)


def test_a_setup_is_one_declaration(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (DOCS / "how-to" / "add-a-setup.md").read_text()
    declarations = re.findall(r'^    "(\w+)": (Setup\(.*\)),$', page, re.MULTILINE)
    assert declarations
    for name, declaration in declarations:
        monkeypatch.setitem(SETUPS, name, eval(declaration, {"Setup": Setup}))
        chain = change(template, {"setup": name})
        for setup in chain.setups:
            chain.train(setup, lambda done, total, words: None)
        predict = chain.predict(chain.volume("val"))
        assert predict is not None
        # here, not in another process: only this one knows the declaration
        predict.prepare()
        predict.process(next(predict.blocks()))
        assert affinities(chain).array.shape == (3, 30, 40, 44)
    monkeypatch.undo()
    with pytest.raises(UserError, match=rf"is of setup {name!r}, which is not among lsd, affs"):
        Predictor(predict.checkpoint)
