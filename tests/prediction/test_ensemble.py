"""Predictions averaged over networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foreign_network import declare_edges, edges
from neuroloom.blockwise import run_stage
from neuroloom.errors import UserError
from neuroloom.files import hash_file
from neuroloom.models.foreign import read_foreign
from neuroloom.prediction.ensemble import EnsemblePredictor
from neuroloom.prediction.predictor import Predictor
from neuroloom.project import NEAREST
from prediction_stage import predict_stage, save_volume
from small_model import save_weights

RAW = np.random.default_rng(0).integers(0, 256, (24, 30, 36), np.uint8)
LONG = (*NEAREST, (-3, 0, 0), (0, -3, 0), (0, 0, -3))


def test_members_of_any_kind_are_averaged_where_they_agree(tmp_path: Path) -> None:
    """One of other pooling and more affinities, and somebody else's."""
    raw = save_volume(tmp_path / "v.zarr", "raw", RAW)
    first = save_weights(tmp_path / "a.ckpt", "acrlsd")
    network = {"feature_maps": 2, "growth": 2, "downsampling": [[2, 2, 2]]}
    second = save_weights(tmp_path / "b.ckpt", "affs", network, seed=5, neighborhood=LONG)
    third = declare_edges(tmp_path / "n.toml", step=[1, 1, 1])
    expected = []
    for member in (first, second, third):
        alone = predict_stage(tmp_path / f"alone-{member.stem}", member, raw, (24, 32, 36))
        run_stage(alone)
        expected.append(alone.output.open().read()[:3].astype(float))
    assert np.ptp(expected, axis=0).max() > 10
    np.testing.assert_array_equal(expected[2], edges(RAW, NEAREST))
    contents = (hash_file(second), read_foreign(third).sha256)
    for block in ((24, 32, 36), (12, 16, 36)):
        stage = predict_stage(
            tmp_path / f"all-{block[0]}", first, raw, block, ensemble=(second, third), ensemble_sha256=contents
        )
        run_stage(stage)
        assert stage.fingerprint() != alone.fingerprint()
        found = stage.output.open()
        assert found.array.attrs["neuroloom"]["neighborhood"] == [list(offset) for offset in NEAREST]  # type: ignore[index]
        assert np.abs(found.read() - np.mean(expected, axis=0)).max() <= 1.5
    second.write_bytes(second.read_bytes() + b"x")
    with pytest.raises(UserError, match=r"b.ckpt is not the file it was"):
        stage.model_copy(update={"folder": tmp_path / "again"}).prepare()


def test_offsets_that_all_give_are_kept(tmp_path: Path) -> None:
    members = [
        Predictor(save_weights(tmp_path / f"{seed}.ckpt", "affs", seed=seed, neighborhood=LONG), "cpu", "fp32")
        for seed in (1, 2)
    ]
    both = EnsemblePredictor(members)
    assert both.channels == 6
    shares: list[float] = []
    values = np.random.default_rng(0).integers(0, 256, both.input_shape((8, 8, 8)), np.uint8)
    found = both(values, (8, 8, 8), shares.append)
    single = [member(values, (8, 8, 8)).astype(float) for member in members]
    assert np.abs(found - np.mean(single, axis=0)).max() <= 0.5
    assert shares == sorted(shares)
    assert shares[-1] == 1
