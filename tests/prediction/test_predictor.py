"""The fused predictor against its definition, and the stage that uses it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from neuroloom.blockwise import run_stage
from neuroloom.errors import UserError
from neuroloom.networks.checkpoint import load_checkpoint, save_checkpoint
from neuroloom.networks.metadata import Metadata
from neuroloom.networks.setups import NEIGHBORHOOD, network_parameters
from neuroloom.networks.unet import UNet, crop
from neuroloom.prediction import sweep
from neuroloom.prediction.planning import prediction_workers
from neuroloom.prediction.predictor import Predictor
from neuroloom.project import Network
from neuroloom.volume import create_volume, open_volume
from prediction_stage import predict_stage, save_volume

NETWORK = Network(feature_maps=3, growth=2, downsampling=((2, 2, 2),))


def save(path: Path, setup: str, lsd: Path | None = None, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    network = UNet(network_parameters(setup, NETWORK))
    loaded = load_checkpoint(lsd) if lsd else None
    metadata = Metadata(
        setup=setup,
        network=network.geometry,
        voxel_size=(8, 8, 8),
        sigma_nm=80.0,
        neighborhood=() if setup == "lsd" else NEIGHBORHOOD,
        iteration=1,
        lsd_sha256=loaded.sha256 if loaded else None,
    )
    save_checkpoint(path, metadata, network.state_dict(), loaded)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(tmp_path / "acrlsd.ckpt", "acrlsd", save(tmp_path / "lsd.ckpt", "lsd"), seed=1)


@pytest.fixture
def raw() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (34, 40, 46), dtype=np.uint8)


def definition(checkpoint: Path, raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Both networks over all of a reflected volume at once, descriptors rounded to uint8 between them."""
    loaded = load_checkpoint(checkpoint)
    assert loaded.lsd is not None
    padded = np.pad(raw, 16, mode="reflect")
    # valid extents: cut to what both networks take
    values = torch.from_numpy(padded.astype(np.float32) / 255 * 2 - 1)[None, None]
    with torch.inference_mode():
        descriptors = (loaded.lsd.network(values) * 255).round() / 255
        both = torch.cat([crop(values, descriptors.shape[-3:]), descriptors], dim=1)
        return loaded.network(both)[0].numpy()


def test_fused_prediction_is_both_networks_after_each_other(checkpoint: Path, raw: NDArray[np.uint8]) -> None:
    predictor = Predictor(checkpoint, "cpu", "fp32")
    assert predictor.margin == (16, 16, 16)
    assert predictor.factor == (2, 2, 2)
    padded = np.pad(raw, 16, mode="reflect")
    expected = definition(checkpoint, raw)
    assert expected.shape[1:] == raw.shape
    wanted = predictor.input_shape(raw.shape)  # type: ignore[arg-type]
    grown = np.pad(padded, [(0, max(0, w - p)) for w, p in zip(wanted, padded.shape, strict=True)], mode="reflect")
    found = predictor(grown[: wanted[0], : wanted[1], : wanted[2]], raw.shape)  # type: ignore[arg-type]
    assert found.dtype == np.uint8
    assert np.abs(found / 255 - expected).max() <= 1.01 / 255


@pytest.mark.parametrize("block", [(12, 20, 24), (34, 40, 46)])
def test_stage_gives_the_definition_whatever_the_blocks(
    checkpoint: Path, raw: NDArray[np.uint8], tmp_path: Path, block: tuple[int, int, int]
) -> None:
    source = save_volume(tmp_path / "v.zarr", "raw", raw, offset=(80, 0, 16))
    stage = predict_stage(tmp_path / "out", checkpoint, source, block)
    run_stage(stage)
    found = stage.output.open()
    assert found.voxel_size == (8, 8, 8)
    assert found.offset == (80, 0, 16)
    assert found.channels == 3
    assert np.abs(found.read() / 255 - definition(checkpoint, raw)).max() <= 1.01 / 255
    checkpoint.write_bytes(checkpoint.read_bytes() + b"x")
    with pytest.raises(UserError, match="not the file it was when training ended"):
        stage.model_copy(update={"folder": tmp_path / "other"}).prepare()


def test_blank_parts_and_what_is_no_tissue_are_left_out(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (32, 32, 64), dtype=np.uint8)
    raw[:, :, 48:] = 0
    raw[:16, :16, :16] = 255
    source = save_volume(tmp_path / "v.zarr", "raw", raw)
    tissue = np.ones((4, 4, 8), np.uint8)
    tissue[:, 3] = 0
    mask = save_volume(tmp_path / "v.zarr", "tissue", tissue, voxel_size=(64, 64, 64))
    expected = np.ones(raw.shape, bool)
    expected[:, :, 48:] = expected[:16, :16, :16] = expected[:, 24:] = False
    found = []
    for block in ((32, 32, 64), (16, 16, 16)):
        stage = predict_stage(tmp_path / f"out-{block[2]}", checkpoint, source, block, tissue=mask)
        run_stage(stage)
        found.append(stage.output.open().read())
        np.testing.assert_array_equal(stage.predicted.open().read(), expected)
        assert not found[-1][:, ~expected].any()
        assert (found[-1][:, expected] > 0).mean() > 0.99
        assert stage.measured.voxels == raw.size
        assert stage.measured.predicted == expected.sum()
    assert np.abs(found[0].astype(int) - found[1]).max() <= 1

    def never(*_: object) -> None:
        raise AssertionError("the networks are run where there is nothing")

    monkeypatch.setattr(Predictor, "__call__", never)
    stage.process(stage.block_at((0, 0, 3)))  # blank
    with pytest.raises(AssertionError, match="the networks are run"):
        stage.process(stage.block_at((1, 0, 0)))


def test_workers_of_several_devices_give_the_same(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (32, 32, 48), dtype=np.uint8)
    source = save_volume(tmp_path / "v.zarr", "raw", raw)
    found = []
    for device in ("cpu", "cpu,cpu"):
        stage = predict_stage(tmp_path / device, checkpoint, source, (16, 16, 16)).model_copy(update={"device": device})
        run_stage(stage, len(prediction_workers(device)))
        found.append(stage.output.open().read())
        assert stage.measured.took <= sum(stage.measured.seconds.values()) + 0.1 * stage.block_count
    np.testing.assert_array_equal(*found)
    chosen = []
    monkeypatch.setattr("neuroloom.prediction.stage._predictor", lambda checkpoints, device, *_: chosen.append(device))
    for number in range(3):
        monkeypatch.setenv("DAISY_CONTEXT", f"worker_id={number}")
        stage.model_copy(update={"device": "cuda:0,cuda:1"})._predictor()
    assert chosen == ["cuda:0", "cuda:1", "cuda:0"]


def test_missing_chunks_are_named_and_zero_or_refused(checkpoint: Path, tmp_path: Path) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (32, 32, 48), dtype=np.uint8)
    source = save_volume(tmp_path / "v.zarr", "raw", raw, chunks=(16, 16, 16))
    (tmp_path / "v.zarr/raw/c/0/1/1").unlink()
    stage = predict_stage(tmp_path / "out", checkpoint, source, (32, 32, 48), zarr_format=2)
    run_stage(stage)
    assert stage.measured.missing == [(0, 16, 16)]
    assert "chunks of raw without a file were taken for zeros: (0, 16, 16)" in str(stage.measured)
    assert not stage.predicted.open().read()[:16, 16:, 16:32].any()
    assert (tmp_path / "out/affinities.zarr/affinities/.zarray").exists()  # as asked for
    strict = stage.model_copy(update={"folder": tmp_path / "strict", "missing_chunks": "abort"})
    assert strict.fingerprint() == stage.fingerprint()
    with pytest.raises(UserError, match=r"chunks without a file begin at \(0, 16, 16\).*Copy them again"):
        run_stage(strict)


def test_what_does_not_fit_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gives no affinities"):
        Predictor(tmp_path / "lsd.ckpt")
    predictor = Predictor(checkpoint, "cpu", "fp32")
    create_volume(tmp_path / "v.zarr", "coarse", (8, 8, 8), "uint8", (16, 8, 8))
    with pytest.raises(UserError, match=r"voxels of \(16.0, 8.0, 8.0\) nm.*trained on \(8.0, 8.0, 8.0\)"):
        predictor.check_volume(open_volume(tmp_path / "v.zarr", "coarse"))
    create_volume(tmp_path / "v.zarr", "wide", (8, 8, 8), "uint16", (8, 8, 8))
    with pytest.raises(UserError, match=r"is uint16.*expected uint8"):
        predictor.check_volume(open_volume(tmp_path / "v.zarr", "wide"))
    values = np.zeros(predictor.input_shape((4, 4, 4)), dtype=np.float32)
    values[5, 5, 5] = np.nan
    with pytest.raises(UserError, match="NaN"):
        predictor(values, (4, 4, 4))


def test_raw_in_float_is_raw_of_8_bits_and_stays_as_it_is(checkpoint: Path, raw: NDArray[np.uint8]) -> None:
    predictor = Predictor(checkpoint, "cpu", "fp32")
    shape = (4, 6, 8)
    needed = predictor.input_shape(shape)
    values = np.pad(raw, 16, mode="reflect")[tuple(slice(0, n) for n in needed)]
    scaled = values.astype(np.float32) / 255
    before = scaled.copy()
    found = predictor(scaled, shape).astype(int)
    np.testing.assert_array_equal(scaled, before)
    assert np.abs(found - predictor(values, shape)).max() <= 1


def test_a_volume_smaller_than_the_context_is_reflected(checkpoint: Path, tmp_path: Path) -> None:
    raw = np.random.default_rng(1).integers(0, 256, (3, 5, 40), dtype=np.uint8)
    stage = predict_stage(tmp_path / "out", checkpoint, save_volume(tmp_path / "v.zarr", "raw", raw), (4, 6, 16))
    run_stage(stage)
    assert stage.output.open().read().shape == (3, 3, 5, 40)


def test_out_of_memory_takes_smaller_tiles_and_remembers(
    checkpoint: Path, raw: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "MOST_PLANES", 8)
    shape = (24, 30, 36)
    predictor = Predictor(checkpoint, "cpu", "fp32")
    needed = predictor.input_shape(shape)
    values = np.pad(raw, 16, mode="reflect")[tuple(slice(0, n) for n in needed)]
    shares: list[float] = []
    whole = predictor(values, shape, shares.append)
    assert shares == sorted(shares)
    assert 0 == shares[0] < shares[1] < 0.2  # told from the first slab on
    assert shares[-1] == pytest.approx(1)
    asked: list[int] = []

    def limited(network: UNet, most: int) -> None:
        forward = network.head.forward

        def narrow(values: torch.Tensor) -> torch.Tensor:
            asked.append(values[0, 0, 0].numel())
            if asked[-1] > most:
                torch.empty(10**15)  # what torch says when a machine has not enough
            return forward(values)

        monkeypatch.setattr(network.head, "forward", narrow)

    assert predictor.loaded.lsd is not None
    limited(predictor.loaded.lsd.network, 45**2)
    limited(predictor.loaded.network, 45**2)
    smaller = predictor(values, shape)
    assert np.abs(smaller.astype(int) - whole).max() <= 1
    assert any(voxels > 45**2 for voxels in asked)
    asked.clear()
    np.testing.assert_array_equal(predictor(values, shape), smaller)
    assert max(asked) <= 45**2  # it has learned
    limited(predictor.loaded.lsd.network, 100)
    with pytest.raises(UserError, match=r"memory of cpu does not suffice to predict \(24, 2, 2\) voxels at once"):
        predictor(values, shape)


def test_other_errors_of_the_network_are_not_taken_for_it(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(checkpoint, "cpu", "fp32")

    def broken(values: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("another error")

    monkeypatch.setattr(predictor.loaded.network.head, "forward", broken)
    with pytest.raises(RuntimeError, match="another error"):
        predictor(np.zeros(predictor.input_shape((4, 4, 4)), np.uint8), (4, 4, 4))
