"""Volumes of other voxels than the network's: raw and affinities resampled, the same whatever the blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloom.blockwise import run_stage
from neuroloom.errors import UserError
from neuroloom.prediction.resampling import Resampling, _mean, _weights
from neuroloom.volume import open_volume
from prediction_stage import predict_stage, save_volume
from small_model import save_weights

ratios = st.sampled_from([0.25, 0.4, 0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 3.9])


@settings(deadline=None)
@given(step=ratios, begin=st.integers(-9, 9), size=st.integers(1, 20))
def test_weights_are_what_a_mean_covers(step: float, begin: int, size: int) -> None:
    """Against counting thousandths of voxels."""
    centres = (np.arange(begin, begin + size) + 0.5) * step - 0.5
    first, voxels = int(np.floor(centres[0])) - 4, int(np.ceil(centres[-1] - centres[0])) + 9
    weights = _weights(centres, step, first, voxels)
    assert (weights.sum(1) == 4096).all()
    for centre, row in zip(centres, weights, strict=True):
        points = centre + max(step, 1) * ((np.arange(1000) + 0.5) / 1000 - 0.5)
        covered = np.bincount(np.floor(points + 0.5).astype(int) - first, minlength=voxels) / 1000
        assert np.abs(row / 4096 - covered).max() < 0.003


@pytest.mark.parametrize(("own", "trained"), [((8, 8, 8), (8, 16, 4)), ((10, 6, 8), (8, 8, 8)), ((7, 9, 8), (8, 8, 8))])
def test_a_ramp_stays_a_ramp(tmp_path: Path, own: tuple[float, ...], trained: tuple[float, ...]) -> None:
    """Raw and, for any two regions, affinities: their values are where they were in nanometres."""
    resampling = Resampling.between(own, trained)  # type: ignore[arg-type]
    slope = np.array([0.11, 0.05, 0.08])  # per nm
    centres = [(np.arange(n) + 0.5) * size for n, size in zip((40, 44, 48), own, strict=True)]
    z, y, x = (centre * s for centre, s in zip(centres, slope, strict=True))
    ramp = z[:, None, None] + y[:, None] + x
    save_volume(tmp_path / "v.zarr", "raw", ramp.astype(np.float32), voxel_size=own)
    begin, shape = (4, 8, 6), (9, 8, 7)
    found = resampling.read(open_volume(tmp_path / "v.zarr", "raw"), begin, shape)
    z, y, x = (
        (np.arange(b, b + n) + 0.5) * size * s for b, n, size, s in zip(begin, shape, trained, slope, strict=True)
    )
    np.testing.assert_allclose(found, z[:, None, None] + y[:, None] + x, atol=0.1 * max(slope * own))

    place, extent = (6, 5, 4), (7, 6, 9)
    seen = resampling.region(place, extent, (4, 2, 4))
    assert all(b % f == 0 for b, f in zip(seen.begin, (4, 2, 4), strict=True))
    networks, expected = [], []
    for axis in range(3):
        for out, first, size, nm in ((networks, seen.begin, seen.shape, trained), (expected, place, extent, own)):
            at = [(np.arange(b, b + n) + 0.5) * v for b, n, v in zip(first, size, nm, strict=True)]
            at[axis] = at[axis] - nm[axis] / 2  # the middle of an edge
            z, y, x = (a * s for a, s in zip(at, slope, strict=True))
            out.append(z[:, None, None] + y[:, None] + x)
    back = resampling.back(np.rint(networks).astype(np.uint8), seen, place, extent)
    assert np.abs(back - np.array(expected)).max() < 1.01


def test_sums_are_exact_in_any_order() -> None:
    values = np.random.default_rng(0).integers(0, 256, (70, 21, 22), np.uint8)
    weights = [_weights(np.arange(n - 2) * 0.9 + 0.3, 0.9, 0, n) for n in values.shape]
    whole = _mean(values, weights)
    parts = [_mean(values, [weights[0][:33], *weights[1:]]), _mean(values, [weights[0][33:], *weights[1:]])]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    definition = np.einsum("zi,yj,xk,ijk->zyx", *weights, values.astype(float)) / 4096**3
    np.testing.assert_array_equal(whole, np.rint(definition))


def test_blocks_cannot_be_seen(tmp_path: Path) -> None:
    checkpoint = save_weights(tmp_path / "a.ckpt", "acrlsd")
    raw = save_volume(
        tmp_path / "v.zarr",
        "raw",
        np.random.default_rng(0).integers(0, 256, (18, 30, 34), np.uint8),
        voxel_size=(11, 8, 6),
    )
    found = []
    for block in ((18, 30, 34), (7, 11, 34)):
        stage = predict_stage(tmp_path / f"out-{block[0]}", checkpoint, raw, block, resample=True, mirrors=2)
        run_stage(stage)
        output = stage.output.open()
        assert output.voxel_size == (11, 8, 6)
        found.append(output.read().astype(int))
        assert found[-1].shape == (3, 18, 30, 34)
    assert np.abs(found[0] - found[1]).max() <= 1
    refused = stage.model_copy(update={"folder": tmp_path / "refused", "resample": False})
    with pytest.raises(UserError, match=r"voxels of \(11.0, 8.0, 6.0\) nm, but .* Predict with `--resample`"):
        run_stage(refused)


def test_voxels_of_the_size_are_left_alone(tmp_path: Path) -> None:
    checkpoint = save_weights(tmp_path / "a.ckpt", "acrlsd")
    raw = save_volume(tmp_path / "v.zarr", "raw", np.random.default_rng(0).integers(0, 256, (16, 16, 16), np.uint8))
    stages = [
        predict_stage(tmp_path / str(resample), checkpoint, raw, (16, 16, 16), resample=resample)
        for resample in (False, True)
    ]
    assert stages[0].fingerprint() == stages[1].fingerprint()
    for stage in stages:
        run_stage(stage)
    np.testing.assert_array_equal(*(stage.output.open().read() for stage in stages))


def test_what_would_show_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"Voxels of \(40.0, 8.0, 8.0\) nm cannot be resampled.*more than 4 times"):
        Resampling.between((40.0, 8.0, 8.0), (8.0, 8.0, 8.0))


def test_blocks_are_about_as_large_as_those_of_networks() -> None:
    resampling = Resampling.between((16.0, 8.0, 4.0), (8.0, 8.0, 8.0))
    assert resampling.block((100, 100, 100), (50, 300, 200), 32) == (50, 128, 200)
    assert resampling.block((64, 100, 100), (50, 300, 700), 32) == (32, 128, 192)
