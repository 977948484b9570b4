"""What a project's keys mean for its trainings and scores, without running anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuroloom.chain import Chain, open_project
from neuroloom.errors import UserError
from neuroloom.files import write_text
from neuroloom.project import FILE_NAME, Augmentation
from neuroloom.project.template import render
from small_model import save_weights
from small_project import VALUES, make_project


def chain(folder: Path, training: dict[str, Any] | None = None, **keys: Any) -> Chain:
    """A small project with keys for all its volumes."""
    volumes = {kind: [{**volume, **keys} for volume in group] for kind, group in VALUES["volumes"].items()}
    values = {"volumes": volumes, "training": {**VALUES["training"], **(training or {})}}
    return Chain(open_project(make_project(folder, values)))


@pytest.mark.parametrize("keys", [{"unlabelled": "ignore"}, {"zero_ids": (3,)}, {"ignore_ids": (3,)}])
def test_what_labels_mean_reaches_the_training_and_its_fingerprint(tmp_path: Path, keys: dict[str, Any]) -> None:
    job = chain(tmp_path / "p", **keys).job("lsd")
    assert job is not None
    for volume in (*job.volumes, *job.validation):
        assert {key: getattr(volume, key) for key in keys} == keys
    plain = {"unlabelled": "background", "zero_ids": (), "ignore_ids": ()}
    same = job.model_copy(update={"volumes": tuple(volume.model_copy(update=plain) for volume in job.volumes)})
    assert same.fingerprint() != job.fingerprint()


def test_augmentation_reaches_the_training_and_its_fingerprint(tmp_path: Path) -> None:
    first = chain(tmp_path / "p").job("lsd")
    assert first is not None
    assert first.augmentation == Augmentation()
    job = chain(tmp_path / "p2", {"augmentation": {"noise": 0.5}}).job("lsd")
    assert job is not None
    assert job.augmentation == Augmentation(noise=0.5)
    assert job.fingerprint() != first.fingerprint()


def test_ids_that_are_no_neurons_are_not_scored(tmp_path: Path) -> None:
    with_ids = chain(tmp_path / "p", zero_ids=[3, 2**63 - 1], ignore_ids=[5])
    plain = chain(tmp_path / "p2")
    expected = plain.truth(plain.validation_volumes[0])
    assert {3, 5} <= set(np.unique(expected).tolist())
    expected[(expected == 3) | (expected == 5)] = 0
    np.testing.assert_array_equal(with_ids.truth(with_ids.validation_volumes[0]), expected)


def test_crops_are_drawn_into_the_project(tmp_path: Path) -> None:
    made = chain(tmp_path / "p", zero_ids=[77777])
    drawn = made.draw_crops(2)
    assert drawn.path == tmp_path / "p" / "pictures" / "crops.png"
    assert drawn.absent == {"train": [77777]}
    first = drawn.path.read_bytes()
    assert made.draw_crops(2, seed=5).path.read_bytes() != first


def test_damaged_sections_get_no_fragments(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    save_weights(project / "a.ckpt", "affs")

    def sections(*numbers: int) -> Chain:
        volumes = {"validate": [{"name": "val", "path": "data/val.zarr", "replace_sections": list(numbers)}]}
        write_text(project / FILE_NAME, render({**VALUES, "prediction": {"model": "a.ckpt"}, "volumes": volumes}))
        return Chain(open_project(project))

    fragments, others = (chain.fragments(chain.volume("val")) for chain in (sections(3, 7), sections()))
    assert fragments is not None
    assert others is not None
    assert fragments.replace_sections == (3, 7)
    assert fragments.fingerprint() != others.fingerprint()
    with pytest.raises(UserError, match=r"names 30, but .*val.zarr/volumes/raw has sections 0 to 29"):
        sections(3, 30)


def test_the_graph_store_reaches_every_step_and_no_fingerprint(tmp_path: Path) -> None:
    weights = save_weights(tmp_path / "a.ckpt", "affs")
    given = {"prediction": {"block": [16, 24, 24], "model": str(weights)}, "segmentation": {"threshold": 0.5}}
    files, database, deep = (
        Chain(open_project(make_project(tmp_path / name, {**given, "graph": {"store": store}})))
        for name, store in (("p", "files"), ("q", "postgresql://127.0.0.1:9/db"), ("r", "sqlite:deep/graph.sqlite"))
    )
    stages = []
    for chain in (files, database, deep):
        (volume,) = chain.validation_volumes
        made = chain.fragments(volume), chain.agglomerate(volume), chain.segment(volume)
        stages.append([stage for stage in made if stage is not None])
    for plain, other, third in zip(*stages, strict=True):
        names = {stage.folder.name.split("-")[0] for stage in (plain, other, third)}
        assert len(names) == 1
        addresses = {stage.model_dump_json().count("postgresql://127.0.0.1:9/db") for stage in (plain, third)}
        assert addresses == {0}
        assert "postgresql://127.0.0.1:9/db" in other.model_dump_json()
        assert f"sqlite:{tmp_path / 'r' / 'deep' / 'graph.sqlite'}" in third.model_dump_json()
        same = plain.model_copy(update={"folder": other.folder})
        assert type(same).model_validate_json(same.model_dump_json()).fingerprint() == plain.fingerprint()
        moved = {name: getattr(other, name) for name in ("store", "edges") if hasattr(other, name)}
        assert plain.model_copy(update=moved).fingerprint() == plain.fingerprint()


@pytest.mark.system
def test_scores_need_the_whole_graph(tmp_path: Path) -> None:
    weights = save_weights(tmp_path / "a.ckpt", "affs")
    given = {"prediction": {"block": [16, 24, 24], "model": str(weights)}, "graph": {"store": "sqlite:graph.sqlite"}}
    made = Chain(open_project(make_project(tmp_path / "p", given)))
    (volume,) = made.validation_volumes

    def nothing(done: float, total: int, words: str) -> None:
        pass

    for stage in (made.predict(volume), made.fragments(volume), made.agglomerate(volume)):
        made.run_stage(stage, "it", nothing)
    made.evaluate(volume, nothing)
    file = made.evaluation_file(volume)
    assert file is not None
    before = file.read_bytes()
    file.unlink()
    (tmp_path / "p" / "graph.sqlite").unlink()
    for left in (tmp_path / "p").glob("graph.sqlite-*"):
        left.unlink()
    # another process finds no file
    agglomerate = made.agglomerate(volume)
    assert agglomerate is not None
    agglomerate.graph.close()
    with pytest.raises(UserError, match=r"holds none of the .*Delete .*run `neuroloom agglomerate val` again"):
        made.evaluate(volume, nothing)
    plain = Chain(open_project(make_project(tmp_path / "q", {**given, "graph": {"store": "files"}})))
    for stage in (plain.predict(volume), plain.fragments(volume), plain.agglomerate(volume)):
        plain.run_stage(stage, "it", nothing)
    plain.evaluate(volume, nothing)
    file = plain.evaluation_file(volume)
    assert file is not None
    assert file.read_bytes() == before


def test_long_range_affinities_take_part_only_where_they_are_learned(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    far = {"training": {**VALUES["training"], "neighborhood": [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [-3, 0, 0]]}}
    asked = {"agglomeration": {**VALUES["agglomeration"], "long_range": True}}
    write_text(project / FILE_NAME, render({**VALUES, **far, **asked}))
    open_project(project)
    write_text(project / FILE_NAME, render({**VALUES, **asked}))
    with pytest.raises(UserError, match=r"line \d+: `agglomeration.long_range` is true, but `training.neighborhood`"):
        open_project(project)
