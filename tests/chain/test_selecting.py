"""Some blocks instead of all, stages at the same time and deleted affinities, as a user asks for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from funlib.geometry import Roi

from neuroloom.blockwise import Source, Stage
from neuroloom.blockwise.failures import record_failure
from neuroloom.chain import Chain, all_steps, open_project
from neuroloom.chain.selecting import Selection, parse_selection
from neuroloom.errors import UserError
from small_model import save_weights
from small_project import make_project, neuroloom

CUT = {"block": [16, 24, 24]}


class Reads(Stage):
    """Has an input."""

    source: Source


@pytest.fixture
def stages(tmp_path: Path) -> tuple[Stage, Reads]:
    first = Stage(folder=tmp_path / "a", shape=(10, 10, 20), block_shape=(5, 5, 5))
    made = Source(path="a", dataset="d", fingerprint=first.fingerprint())
    reader = Reads(folder=tmp_path / "b", shape=(10, 10, 20), block_shape=(10, 10, 5), context=(1, 1, 1), source=made)
    return first, reader


def test_blocks_by_number_and_region(stages: tuple[Stage, Reads]) -> None:
    first, _ = stages
    assert parse_selection(None, None, False) is None
    for only, numbers in (("3", {3}), ("0,2-4", {0, 2, 3, 4}), (" 7 - 7 ", {7})):
        assert blocks_of(first, only, None, False) == numbers
    for roi, numbers in (("0:5,0:5,0:5", {0}), ("4:6,0:1,15:99", {3, 11}), ("9:10,0:10,0:5", {8, 12})):
        assert blocks_of(first, None, roi, False) == numbers


def test_a_region_needs_what_its_blocks_read(stages: tuple[Stage, Reads]) -> None:
    selection = Selection(roi=Roi((0, 0, 6), (1, 1, 1)))
    read, wanted = selection.to_edges(stages)
    assert wanted == {1}  # x from 5 to 10, of which x from 4 to 11 is read
    assert read == {0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14}


def test_blocks_that_failed(stages: tuple[Stage, Reads]) -> None:
    first, _ = stages
    assert Selection(failed=True).blocks(first) == frozenset()
    record_failure(first, 5, "node", "boo")
    assert Selection(failed=True).blocks(first) == {5}


@pytest.mark.parametrize(
    ("only", "roi", "failed", "message"),
    [
        ("3-", None, False, "--only 3-: expected numbers of blocks and ranges of them, such as --only 3,7-9"),
        ("5-3", None, False, "--only 5-3: expected"),
        ("", None, False, "--only : expected"),
        ("1-99999999999", None, False, "There is no block 99999999999: stage has 16 blocks"),
        ("16", None, False, "There is no block 16: stage has 16 blocks, from 0 to 15"),
        (None, "0:5,0:5", False, "--roi 0:5,0:5: expected begin and end along z, y, x"),
        (None, "5:5,0:5,0:5", False, "--roi 5:5,0:5,0:5: expected"),
        (None, "10:12,0:5,0:5", False, r"--roi lies outside of the volume, which has \(10, 10, 20\) voxels"),
        ("1", None, True, "Give one of --only, --roi and --retry-failed"),
    ],
)
def test_mistakes(stages: tuple[Stage, Reads], only: str | None, roi: str | None, failed: bool, message: str) -> None:
    with pytest.raises(UserError, match=message):
        blocks_of(stages[0], only, roi, failed)


def blocks_of(stage: Stage, only: str | None, roi: str | None, failed: bool) -> frozenset[int]:
    """Numbers of the blocks that are asked for so."""
    selection = parse_selection(only, roi, failed)
    assert selection is not None
    return selection.blocks(stage)


def affinities_left(project: Path) -> int:
    return sum(file.is_file() for file in project.glob("results/val/affinities-*/affinities.zarr/affinities/c/**/*"))


def results(project: Path) -> tuple[np.ndarray, np.ndarray, bytes]:
    """Fragments, segmentation and forest."""
    chain = Chain(open_project(project))
    volume = chain.volume("val")
    fragments, agglomerate, segment = chain.fragments(volume), chain.agglomerate(volume), chain.segment(volume)
    assert fragments is not None
    assert agglomerate is not None
    assert segment is not None
    return fragments.output.open().read(), segment.output.open().read(), agglomerate.forest_file.read_bytes()


def affinities(project: Path) -> Source:
    chain = Chain(open_project(project))
    predict = chain.predict(chain.volume("val"))
    assert predict is not None
    return predict.output


@pytest.mark.system
def test_single_blocks_then_the_rest_while_affinities_go(tmp_path: Path) -> None:
    projects = []
    for name in ("plain", "spare"):
        weights = save_weights(tmp_path / name / "weights.ckpt", "affs")
        values = {
            "prediction": {**CUT, "model": str(weights)},
            "fragments": {**CUT, "context": [4, 4, 4], "min_seed_distance": 4},
            "agglomeration": {"block": [16, 24, 48], "context": [8, 8, 8]},
        }
        projects.append(make_project(tmp_path / name, values))
    plain, spare = projects
    assert neuroloom("run", "--project", plain).returncode == 0
    said = [
        neuroloom(*command, "--project", spare)
        for command in (
            ("run", "--only", "1"),
            ("predict", "val", "--only", "0-1,3"),
            ("run", "--roi", "0:4,0:4,0:4"),
            ("predict", "--retry-failed"),
        )
    ]
    assert "predict val: 1 of 8 blocks are done" in said[0].stdout, said[0]
    assert "predict val: 3 of 8 blocks are done" in said[1].stdout, said[1]
    assert "agglomerate val: 1 of 4 blocks are done" in said[2].stdout, said[2]
    assert "no block failed the last time" in said[3].stdout, said[3]
    ran = neuroloom("run", "--project", spare, "--delete-intermediate")
    assert ran.returncode == 0, ran.stderr
    for ours, theirs in zip(results(spare), results(plain), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert affinities_left(spare) == 0
    assert affinities_left(plain) == 8
    steps = {step.name: step for step in all_steps(Chain(open_project(spare)))}
    assert "affinities of 8 are deleted, since no step is to read them" in steps["predict val"].why
    assert all(step.state == "done" for step in steps.values())
    # other fragments are wanted: affinities are made again, and nothing else is lost
    file = spare / "neuroloom.toml"
    file.write_text(file.read_text().replace("min_seed_distance = 4", "min_seed_distance = 6"))
    steps = {step.name: step for step in all_steps(Chain(open_project(spare)))}
    assert "affinities of 8 are deleted, and wanted again" in steps["predict val"].why
    assert (steps["predict val"].state, steps["fragments val"].state) == ("begun", "to do")
    ran = neuroloom("run", "--project", spare)
    assert ran.returncode == 0, ran.stderr
    assert all(step.state == "done" for step in all_steps(Chain(open_project(spare))))
    np.testing.assert_array_equal(affinities(spare).open().read(), affinities(plain).open().read())
    assert affinities_left(spare) == 8
    # fragments as this process makes them of affinities that were never deleted
    chain = Chain(open_project(spare))
    fragments = chain.fragments(chain.volume("val"))
    assert fragments is not None
    again = fragments.model_copy(update={"folder": tmp_path / "again", "affinities": affinities(plain)})
    again.prepare()
    for block in again.blocks():
        again.process(block)
    np.testing.assert_array_equal(fragments.output.open().read(), again.output.open().read())
