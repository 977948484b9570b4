"""Others' networks predict what they would give for all of a volume at once, whatever blocks, tiles and mirrors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from foreign_network import EDGES, NEAREST, TURNED, declare, declare_checkpoint, declare_edges, edges, save_script
from neuroloom.blockwise import Source
from neuroloom.errors import UserError
from neuroloom.models.foreign import read_foreign
from neuroloom.prediction import foreign_block
from neuroloom.prediction.foreign import ForeignPredictor
from neuroloom.volume import create_volume, open_volume
from prediction_stage import predict_stage, save_volume
from small_model import save_weights

RAW = np.random.default_rng(0).integers(0, 256, (23, 30, 34), np.uint8)


@pytest.fixture
def volume(tmp_path: Path) -> Source:
    return save_volume(tmp_path / "v.zarr", "raw", RAW)


def predict(model: Path, raw: Source, block: tuple[int, int, int], mirrors: int = 1) -> NDArray[np.uint8]:
    folder = model.parent / f"out-{model.stem}-{block[0]}-{mirrors}"
    stage = predict_stage(folder, model, raw, block, mirrors=mirrors)
    stage.prepare()
    for place in stage.blocks():
        stage.process(place)
    output = stage.output.open()
    assert output.array.attrs["neuroloom"]["neighborhood"] == NEAREST
    found: NDArray[np.uint8] = output.read()
    return found


@pytest.mark.parametrize("mirrors", [1, 2, 8])
@pytest.mark.parametrize(("step", "block"), [(None, (20, 18, 16)), ([1, 1, 1], (5, 21, 17)), ([0, 2, 3], (10, 8, 12))])
def test_edges_are_those_of_the_volume(
    volume: Source, tmp_path: Path, step: list[int] | None, block: tuple[int, int, int], mirrors: int
) -> None:
    found = predict(declare_edges(tmp_path / "n.toml", step=step), volume, block, mirrors)
    np.testing.assert_array_equal(found, edges(RAW, NEAREST))


@pytest.mark.parametrize("mirrors", [1, 4])
@pytest.mark.parametrize(
    ("step", "grows", "block"),
    [(None, True, (18, 16, 14)), ([2, 2, 2], True, (6, 20, 16)), ([3, 2, 2], False, (6, 20, 16))],
)
def test_edges_that_are_kept_at_their_other_end(
    volume: Source, tmp_path: Path, step: list[int] | None, grows: bool, block: tuple[int, int, int], mirrors: int
) -> None:
    model = declare_edges(tmp_path / "n.toml", TURNED, step=step, grows=grows)
    found = predict(model, volume, block, mirrors)
    np.testing.assert_array_equal(found, edges(RAW, NEAREST))


def test_farther_neighbours_stay_what_they_are(tmp_path: Path) -> None:
    model = declare_edges(tmp_path / "n.toml", [*TURNED, [0, 2, -1]], step=[1, 1, 1])
    predictor = ForeignPredictor(model, "cpu")
    assert predictor.neighborhood == [*NEAREST, [0, 2, -1]]
    padded = np.pad(RAW, 8, mode="reflect")
    begin = [8 - m for m in predictor.margin]
    wanted = predictor.input_shape((8, 9, 10))
    window = tuple(slice(b, b + n) for b, n in zip(begin, wanted, strict=True))
    found = predictor(padded[window], (8, 9, 10))
    np.testing.assert_array_equal(found, edges(RAW, predictor.neighborhood)[:, :8, :9, :10])


@pytest.mark.parametrize("mirrors", [1, 2])
@pytest.mark.parametrize("setup", ["affs", "acrlsd"])
def test_our_own_network_as_somebody_elses(volume: Source, tmp_path: Path, setup: str, mirrors: int) -> None:
    checkpoint = save_weights(tmp_path / "own.ckpt", setup)
    expected = predict(checkpoint, volume, (12, 30, 18), mirrors).astype(int)
    assert expected.std() > 20
    model = declare_checkpoint(tmp_path / "n.toml", checkpoint)
    for block in ((12, 16, 34), (24, 30, 34)):
        assert np.abs(predict(model, volume, block, mirrors) - expected).max() <= 1
    fixed = declare_checkpoint(tmp_path / "fixed.toml", checkpoint, grows=False)
    shape = (4, 6, 8)
    some, same = ForeignPredictor(model, "cpu"), ForeignPredictor(fixed, "cpu")
    raw = np.pad(RAW, 40, mode="reflect")
    found = [
        p(raw[tuple(slice(40 - m, 40 - m + n) for m, n in zip(p.margin, p.input_shape(shape), strict=True))], shape)
        for p in (some, same)
    ]
    assert np.abs(found[0].astype(int) - found[1]).max() <= 1


class Padded(nn.Module):
    """As large as its input, which it fills up with zeros: wrong by one voxel at each end; pools by two."""

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        pooled = torch.nn.functional.max_pool3d(raw, 2)
        grown = torch.nn.functional.interpolate(pooled, scale_factor=2.0, mode="nearest")
        blurred = torch.nn.functional.avg_pool3d(grown, 3, stride=1, padding=1)
        return torch.cat([blurred, blurred, blurred], 1)


def test_a_halo_is_cut_off(volume: Source, tmp_path: Path) -> None:
    save_script(Padded(), tmp_path / "edges.pt")
    model = declare(tmp_path / "n.toml", EDGES, input=[12] * 3, output=[12] * 3, step=[2] * 3, halo=[2] * 3)
    padded = torch.from_numpy(np.pad(RAW, [(8, 9), (8, 8), (8, 8)], mode="reflect").astype(np.float32) / 255)
    whole = Padded()(padded[None, None])[0, :, 8:31, 8:38, 8:42].numpy() * 255
    for block in ((6, 30, 34), (24, 8, 12)):
        assert np.abs(predict(model, volume, block) - whole).max() <= 0.51
    cut = declare(tmp_path / "cut.toml", EDGES, input=[12] * 3, output=[12] * 3, step=[2] * 3)
    assert np.abs(predict(cut, volume, (6, 30, 34)) - whole).max() > 5


def test_out_of_memory_takes_smaller_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = ForeignPredictor(declare_edges(tmp_path / "n.toml", step=[1, 1, 1]), "cpu")
    raw = np.random.default_rng(0).integers(0, 256, predictor.input_shape((20, 30, 40)), np.uint8)
    shares: list[float] = []
    whole = predictor(raw, (20, 30, 40), shares.append)
    assert shares == [1.0]
    network, asked, most = predictor.network, [], 9000

    def limited(values: torch.Tensor) -> torch.Tensor:
        asked.append(values.numel())
        if values.numel() > most:
            torch.empty(10**15)  # what torch says when a machine has not enough
        return network(values)

    monkeypatch.setattr(predictor, "network", limited)
    np.testing.assert_array_equal(predictor(raw, (20, 30, 40)), whole)
    asked.clear()
    predictor(raw, (20, 30, 40))
    assert max(asked) <= 9000  # it has learned
    most = 100
    create_volume(tmp_path / "v.zarr", "raw", RAW.shape, "uint8", (8, 8, 8))
    volume = open_volume(tmp_path / "v.zarr", "raw")
    for run in (lambda: predictor(raw, (20, 30, 40)), lambda: predictor.check_volume(volume)):
        with pytest.raises(UserError, match=r"memory of cpu does not suffice to run .*n\.toml once"):
            run()


def test_tiles_fit_the_memory_that_is_given(tmp_path: Path) -> None:
    model = declare_edges(tmp_path / "n.toml", step=[1, 1, 1])
    shares: list[float] = []
    predictor = ForeignPredictor(model, "cpu", memory_gb=2e-6 * 14**3 / 10)  # 200 bytes for a voxel
    predictor(np.zeros(predictor.input_shape((20, 20, 20)), np.uint8), (20, 20, 20), shares.append)
    assert len(shares) == 8


def test_blocks_are_cut_evenly(tmp_path: Path) -> None:
    model = read_foreign(declare_edges(tmp_path / "n.toml", step=[1, 4, 0]))
    assert foreign_block((100, 300, 600), model) == (100, 152, 200)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"output": [8, 9, 8]}, r"`output`: of \[14, 13, 12\] voxels the network gives \[10, 9, 8\]"),
        ({"input_axes": "zyx"}, r"n\.toml: the network cannot be run on \[14, 13, 12\] voxels \(.*Correct `input`"),
        ({"voxel_size": [8, 8, 9]}, r"voxels of .* nm, but .*n\.toml was trained on \(8.0, 8.0, 9.0\) nm"),
        ({"raw_range": [-1, 1]}, r"`output_is`: the network gives values from -"),
    ],
)
def test_what_does_not_fit_is_found_before_the_first_block(
    volume: Source, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        predict(declare_edges(tmp_path / "n.toml", **changed), volume, (10, 9, 8))


def test_a_step_that_the_network_does_not_take(tmp_path: Path, volume: Source) -> None:
    save_script(Padded(), tmp_path / "edges.pt")
    model = declare(tmp_path / "n.toml", EDGES, input=[12] * 3, output=[12] * 3, step=[1, 2, 2])
    with pytest.raises(UserError, match=r"`step`: of \[13, 14, 14\] voxels .* \[12, 14, 14\]; expected \[13, 14, 14\]"):
        ForeignPredictor(model, "cpu").check_volume(open_volume(volume.path, "raw"))


def test_raw_that_holds_nan(tmp_path: Path) -> None:
    predictor = ForeignPredictor(declare_edges(tmp_path / "n.toml"), "cpu")
    values = np.zeros(predictor.input_shape((4, 4, 4)), np.float32)
    values[3, 3, 3] = np.nan
    with pytest.raises(UserError, match="Raw holds NaN"):
        predictor(values, (4, 4, 4))
