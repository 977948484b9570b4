"""The picture of an error shows the right section with the labels concerned in their colours."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from neuroloom.evaluation.pictures import error_picture
from neuroloom.evaluation.positions import find_errors

GREEN, BLUE, ORANGE = (52, 199, 110), (64, 132, 255), (255, 150, 20)


def is_tinted(pixel: np.ndarray, color: tuple[int, int, int]) -> bool:
    """Whether a pixel is this colour over middle grey."""
    return bool(np.abs(pixel - (np.array(color) * 0.55 + 128 * 0.45)).max() < 3)


def draw(kind: str, voxel_size: tuple[float, float, float] = (8, 8, 8)) -> np.ndarray:
    truth = np.ones((60, 60, 60), np.uint64)
    segmentation = np.full(truth.shape, 7, np.uint64)
    (segmentation if kind == "split" else truth)[:, :, 35:] = 3
    raw = np.full(truth.shape, 128, np.uint8)
    error = next(e for e in find_errors(segmentation, truth, 1) if e.kind == kind)
    png = error_picture(raw, segmentation, truth, error, voxel_size, panel=120)
    return np.asarray(Image.open(io.BytesIO(png))).astype(int)


def test_a_split_is_green_in_truth_and_in_two_colours_in_the_segmentation() -> None:
    sheet = draw("split")
    assert sheet.shape == (150, 3 * 120 + 12, 3)
    row = 30 + 40
    assert np.abs(sheet[row, 20] - 128).max() < 3
    assert is_tinted(sheet[row, 126 + 20], GREEN)
    assert is_tinted(sheet[row, 252 + 20], BLUE)
    assert is_tinted(sheet[row, 252 + 110], ORANGE)


def test_a_merge_is_the_other_way_round() -> None:
    sheet = draw("merge")
    row = 30 + 40
    assert is_tinted(sheet[row, 126 + 20], BLUE)
    assert is_tinted(sheet[row, 126 + 110], ORANGE)
    assert is_tinted(sheet[row, 252 + 20], GREEN)


def test_an_error_across_sections_is_shown_along_z() -> None:
    truth = np.ones((60, 60, 60), np.uint64)
    segmentation = np.full(truth.shape, 7, np.uint64)
    segmentation[31:] = 3
    (error,) = find_errors(segmentation, truth, 1)
    raw = np.full(truth.shape, 128, np.uint8)
    png = error_picture(raw, segmentation, truth, error, (8, 8, 8), panel=120)
    sheet = np.asarray(Image.open(io.BytesIO(png))).astype(int)
    column = 252 + 20
    assert is_tinted(sheet[30 + 10, column], BLUE)
    assert is_tinted(sheet[30 + 110, column], ORANGE)


def test_anisotropic_volumes_keep_their_proportions() -> None:
    truth = np.ones((20, 100, 50), np.uint64)
    segmentation = truth.copy()
    segmentation[:, :, 20:] = 2
    (error,) = find_errors(segmentation, truth, 1)
    raw = np.zeros(truth.shape, np.uint8)
    png = error_picture(raw, segmentation, truth, error, (40, 4, 4), field_nm=4000, panel=100)
    assert Image.open(io.BytesIO(png)).size == (3 * 50 + 12, 130), "100 voxels of 4 nm high, 50 wide, seen along z"
