"""Predictions of mirror images: each affinity is that of its own edge."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from neuroloom.blockwise import run_stage
from neuroloom.errors import UserError
from neuroloom.prediction.mirrors import MIRRORS, MirroredPredictor, check_images
from neuroloom.prediction.predictor import Predictor, Report
from prediction_stage import predict_stage, save_volume
from small_model import save_weights

OFFSETS = [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (-3, 0, 0), (0, 2, 0), (-1, 0, -2)]
MARGIN, FACTOR = 3, 4


class Edges:
    """A predictor whose affinity of an edge is a function of its two ends that does not care which comes first."""

    voxel_size = (8.0, 8.0, 8.0)
    factor = (FACTOR,) * 3
    margin = (MARGIN,) * 3
    neighborhood: ClassVar = [list(offset) for offset in OFFSETS]
    channels = len(OFFSETS)

    def input_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        z, y, x = (-(-n // FACTOR) * FACTOR + 2 * MARGIN + 2 for n in shape)  # two more than is used
        return z, y, x

    def __call__(self, raw: NDArray[Any], shape: tuple[int, int, int], report: Report) -> NDArray[np.uint8]:
        assert raw.shape == self.input_shape(shape)
        report(0.5)
        report(1.0)
        return edges(raw, (MARGIN,) * 3, shape)


def edges(raw: NDArray[Any], begin: tuple[int, ...], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Of each voxel and offset, the smaller value of both ends."""
    ends = []
    for offset in ((0, 0, 0), *OFFSETS):
        ends.append(raw[tuple(slice(b + o, b + o + n) for b, o, n in zip(begin, offset, shape, strict=True))])
    return np.stack([np.minimum(ends[0], end) for end in ends[1:]])


@pytest.mark.parametrize("number", [1, 2, 4, 8, 16, 48])
def test_mirrored_edges_are_the_same_edges(number: int) -> None:
    predictor = MirroredPredictor(Edges(), number)  # type: ignore[arg-type]
    shape = (4, 7, 9)
    raw = np.random.default_rng(0).integers(0, 256, predictor.input_shape(shape), np.uint8)
    shares: list[float] = []
    np.testing.assert_array_equal(predictor(raw, shape, shares.append), edges(raw, predictor.margin, shape))
    assert shares == pytest.approx([k / (2 * number) for k in range(1, 2 * number + 1)])


def test_images_are_averaged_and_differ(tmp_path: Path) -> None:
    checkpoint = save_weights(tmp_path / "a.ckpt", "acrlsd")
    single = Predictor(checkpoint, "cpu", "fp32")
    raw = np.random.default_rng(0).integers(0, 256, (60, 60, 60), np.uint8)
    begin, shape = (24, 24, 24), (6, 8, 10)

    def at(predictor: Any, axes: tuple[int, ...], begin: tuple[int, ...], shape: tuple[int, ...]) -> NDArray[np.uint8]:
        begin = tuple(60 - b - n if axis in axes else b for axis, (b, n) in enumerate(zip(begin, shape, strict=True)))
        extents = zip(begin, predictor.margin, predictor.input_shape(shape), strict=True)
        window = tuple(slice(b - m, b - m + n) for b, m, n in extents)
        return np.flip(predictor(np.flip(raw, axes)[window], shape), [axis + 1 for axis in axes])

    expected = []
    for _, axes in MIRRORS[8]:
        # from two voxels before: one, where the edge is, would fall between the network's cells
        found = at(single, axes, tuple(b - 2 for b in begin), tuple(n + 2 for n in shape)).astype(float)
        for channel in range(3):
            if channel in axes:
                found[channel] = np.roll(found[channel], 1, axis=channel)
        expected.append(found[:, 2:, 2:, 2:])
    assert np.ptp(expected, axis=0).max() > 2  # a network knows its directions
    assert np.abs(at(MirroredPredictor(single, 8), (), begin, shape) - np.mean(expected, axis=0)).max() <= 0.51


def test_blocks_cannot_be_seen(tmp_path: Path) -> None:
    checkpoint = save_weights(tmp_path / "a.ckpt", "acrlsd")
    raw = np.random.default_rng(0).integers(0, 256, (22, 30, 34), np.uint8)
    source = save_volume(tmp_path / "v.zarr", "raw", raw)
    found = []
    for block in ((22, 30, 34), (8, 10, 34)):
        stage = predict_stage(tmp_path / f"out-{block[0]}", checkpoint, source, block, mirrors=4)
        run_stage(stage)
        found.append(stage.output.open().read().astype(int))
    assert np.abs(found[0] - found[1]).max() <= 1
    alone = stage.model_copy(update={"mirrors": 1})
    assert alone.fingerprint() != stage.fingerprint()


def test_axes_that_differ_are_not_exchanged() -> None:
    check_images(48, (4, 4, 4), (8, 8, 8))
    check_images(16, (2, 4, 4), (40, 8, 8))
    check_images(8, (1, 2, 4), (40, 8, 4))
    with pytest.raises(UserError, match=r"exchanges axes.*voxels of \(40, 8, 8\) nm.*Take 16 or fewer"):
        check_images(48, (4, 4, 4), (40, 8, 8))
    with pytest.raises(UserError, match=r"pooling by \(4, 4, 2\).*Take 8 or fewer"):
        check_images(16, (4, 4, 2), (8, 8, 8))
