"""Scores during training: those of the whole chain, with the default settings of fragments and agglomeration."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from neuroloom.agglomeration.forest import spanning_forest
from neuroloom.agglomeration.scores import merge_scores
from neuroloom.chain import Chain, open_project, scoring
from neuroloom.chain.scoring import ChainScorer, ScoredVolume
from neuroloom.errors import UserError
from neuroloom.evaluation.thresholds import evaluate_thresholds
from neuroloom.fragments.watershed import fragments
from neuroloom.prediction.predictor import Predictor
from neuroloom.project.parameters import Segmentation
from neuroloom.segmentation import lookup_tables
from slow_contacts import all_contacts
from small_project import make_project, neuroloom

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    project = make_project(tmp_path_factory.mktemp("scoring") / "p")
    for command in (["train", "lsd"], ["train", "acrlsd"], ["predict"]):
        result = neuroloom(*command, "--project", project)
        assert result.returncode == 0, result.stdout + result.stderr
    return Chain(open_project(project))


def scored(chain: Chain) -> ScoredVolume:
    volume = chain.validation_volumes[0]
    return ScoredVolume(chain.raw(volume), chain.truth(volume))


def test_scores_are_those_of_the_chain(predicted: Chain) -> None:
    trained, stage = predicted.trained("acrlsd"), predicted.predict(predicted.volumes[0])
    assert trained is not None
    assert stage is not None
    stored = stage.output.open().read()
    piece = scored(predicted)
    affinities = piece.affinities(Predictor(trained.checkpoint, "cpu", "fp32"))
    assert np.abs(affinities.astype(int) - stored).max() <= 1  # other blocks, other tiles
    labels = fragments(affinities).astype(np.uint64)
    best = {}
    for function in ("hist_quant_50", "hist_quant_75", "hist_quant_90"):
        edges = merge_scores(affinities, labels, function)
        forest = spanning_forest(*np.unique(labels, return_counts=True), edges.u, edges.v, edges.merge_score)
        around = all_contacts(labels, edges)
        tables = lookup_tables(forest, Segmentation().thresholds, around, Segmentation().enclosed)
        best[function] = evaluate_thresholds(labels, predicted.truth(predicted.validation_volumes[0]), tables).best
    function = min(best, key=lambda name: best[name].plain.voi_sum)
    expected = best[function]
    score = ChainScorer([piece], "cpu", "fp32", by_section=False)(trained.checkpoint)
    assert (score.voi, score.threshold) == (expected.plain.voi_sum, expected.threshold)
    assert score.merge_function == function
    assert expected.eroded_1 is not None
    assert score.voi_eroded == expected.eroded_1.voi_sum
    # with two volumes, means count
    assert ChainScorer([piece, piece], "cpu", "fp32", by_section=False)(trained.checkpoint) == score


def test_the_middle_of_a_large_volume_is_scored(predicted: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = predicted.trained("acrlsd")
    assert trained is not None
    predictor = Predictor(trained.checkpoint, "cpu", "fp32")
    whole = scored(predicted)
    monkeypatch.setattr(scoring, "LARGEST", 24)
    middle = scored(predicted)
    assert (middle.begin, middle.shape) == ((3, 8, 10), (24, 24, 24))
    window = (slice(3, 27), slice(8, 32), slice(10, 34))
    np.testing.assert_array_equal(middle.truth, whole.truth[window])
    # blocks that do not begin at the volume's begin: a network of factor 2 sees them at another phase in y only
    difference = middle.affinities(predictor).astype(int) - whole.affinities(predictor)[:, *window]
    assert np.abs(difference).mean() < 8


def test_the_piece_lies_where_labels_are(predicted: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = predicted.raw(predicted.volumes[0])
    truth = np.zeros((30, 40, 44), dtype=np.uint64)
    monkeypatch.setattr(scoring, "LARGEST", 12)
    with pytest.raises(UserError, match=r"val\.zarr, which training scores, holds no labelled voxel.*score_every"):
        ScoredVolume(raw, truth)
    truth[2:6, 30:40, 20:24] = 5
    piece = ScoredVolume(raw, truth)
    assert (piece.begin, piece.shape) == ((0, 28, 16), (12, 12, 12))
    assert np.count_nonzero(piece.truth) == np.count_nonzero(truth)


def test_the_checkpoint_of_lowest_voi_is_kept(predicted: Chain) -> None:
    trained = predicted.trained("acrlsd")
    assert trained is not None
    lines = [json.loads(line) for line in (trained.folder / "curve.jsonl").read_text().splitlines()]
    found = {line["step"]: line["voi"] for line in lines if "voi" in line}
    assert list(found) == [6, 12]
    assert trained.summary["best_voi"] == min(found.values())
    assert Predictor(trained.checkpoint).loaded.metadata.iteration == min(found, key=lambda step: found[step])
    lsd = predicted.trained("lsd")
    assert lsd is not None
    assert lsd.summary["best_voi"] is None


def test_without_validation_volumes_losses_decide(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", {"volumes": {"train": [{"name": "train", "path": "data/train.zarr"}]}})
    chain = Chain(open_project(project))
    assert not chain.scored_in_training("acrlsd")
    assert not chain.scored_in_training("lsd")
