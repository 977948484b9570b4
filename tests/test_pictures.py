"""Pictures of volumes: colours, sections, scale bars, contact sheets."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from neuroloom.pictures import (
    channels_to_rgb,
    contact_sheet,
    draw_scale_bar,
    encode_png,
    format_length,
    gray,
    label_borders,
    label_colors,
    nice_length,
    overlay_borders,
    overlay_labels,
    pick_sections,
    scale_picture,
)

COLORS = [[31, 219, 64], [110, 219, 113], [59, 137, 184]]


def decode(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_label_colors_depend_on_the_id_alone() -> None:
    first = label_colors(np.array([[0, 5], [2**64 - 1, 9]], np.uint64))
    second = label_colors(np.array([9, 5], np.uint32))
    assert first.shape == (2, 2, 3)
    assert np.array_equal(first[1, 1], second[0])
    assert np.array_equal(first[0, 1], second[1])
    assert first[0, 0].tolist() == [0, 0, 0]
    # The colours themselves are part of the promise: the same on every machine and in every version.
    assert label_colors(np.array([1, 2, 3], np.uint64)).tolist() == COLORS


def test_neighbouring_ids_get_distinct_bright_colors() -> None:
    colors = label_colors(np.arange(1, 200, dtype=np.uint64)).astype(int)
    assert colors.max(axis=1).min() >= 180
    distances = np.abs(np.diff(colors, axis=0)).sum(axis=1)
    assert np.median(distances) > 150
    assert len(np.unique(colors, axis=0)) >= 195


def test_grey_scales() -> None:
    assert gray(np.array([[0, 200]], np.uint8)).tolist() == [[[0, 0, 0], [200, 200, 200]]]
    assert gray(np.array([[-1.0, 0.5, 2.0, np.nan]]))[0, :, 0].tolist() == [0, 128, 255, 0]
    assert gray(np.array([[True, False]]))[0, :, 1].tolist() == [255, 0]


def test_channels_become_red_green_blue() -> None:
    channels = np.stack([np.full((2, 2), v) for v in (0.0, 1.0, 0.2, 0.9)])
    assert channels_to_rgb(channels)[0, 0].tolist() == [0, 255, 51]
    assert channels_to_rgb(channels[:2])[1, 1].tolist() == [0, 255, 0]


def test_borders_and_overlays() -> None:
    labels = np.array([[1, 1, 2], [1, 1, 2], [0, 0, 0]], np.uint64)
    border = label_borders(labels)
    assert border.tolist() == [[False, False, True], [False, False, True], [True, True, True]]
    raw = np.full((3, 3), 100, np.uint8)
    drawn = overlay_borders(gray(raw), labels, (1, 2, 3))
    assert (drawn[border] == (1, 2, 3)).all()
    assert (drawn[~border] == 100).all()
    assert np.array_equal(overlay_labels(raw, labels, 0.0), gray(raw))
    assert np.array_equal(overlay_labels(raw, labels, 1.0)[:2], label_colors(labels)[:2])
    assert (overlay_labels(raw, labels, 1.0)[2] == 100).all()


@given(st.integers(1, 1000), st.integers(1, 10))
def test_sections_are_spread(size: int, number: int) -> None:
    picked = pick_sections(size, number)
    assert len(picked) == min(size, number) == len(set(picked))
    assert picked == sorted(picked)
    assert picked[0] >= 0
    assert picked[-1] < size
    assert abs(picked[0] - (size - 1 - picked[-1])) <= 1, "as far from either end"


@given(st.floats(0.01, 1e9))
def test_nice_lengths(largest: float) -> None:
    length = nice_length(largest)
    assert largest / 2.51 < length <= largest * 1.0001
    assert f"{length:e}"[0] in "125"
    assert nice_length(length) == pytest.approx(length)


def test_scale_bar_has_the_length_it_says() -> None:
    black = np.full((200, 300, 3), 60, np.uint8)
    drawn = draw_scale_bar(black, 8.0)  # a third of 300 pixels is 800 nm: the bar is 500 nm
    bar = (drawn == 255).all(axis=2)
    longest = max(int(row.sum()) for row in bar)
    assert longest == round(500 / 8)
    assert (drawn[:100] == 60).all()
    assert format_length(500) == "500 nm"
    assert format_length(2000) == "2 µm"


def test_png_is_the_picture_and_always_the_same_bytes() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(decode(encode_png(picture)), picture)
    assert encode_png(picture) == encode_png(np.asfortranarray(picture))
    assert scale_picture(picture, 10, 14, smooth=False)[::2, ::2].tolist() == picture.tolist()


def test_contact_sheet_shows_the_common_centre_of_every_column() -> None:
    labels = np.zeros((9, 10, 10), np.uint64)
    labels[4, 5, 5] = 3
    raw = np.zeros((13, 20, 20), np.uint8)
    raw[6, 10, 10] = 250
    sheet = decode(contact_sheet({"raw": raw, "labels": labels}, sections=1, panel=100))
    left, top = 34, 30
    # Voxel (5, 5) of 10 lies at 50 … 60 of 100 pixels in both columns.
    assert sheet[top + 55, left + 55, 0] > 180
    assert sheet[top + 55, left + 106 + 55].tolist() == label_colors(labels)[4, 5, 5].tolist()
    assert sheet[top + 20, left + 106 + 20].tolist() == [0, 0, 0]


def test_contact_sheet_of_everything() -> None:
    generator = np.random.default_rng(0)
    columns = {
        "raw": generator.integers(0, 256, (6, 30, 40), dtype=np.uint8),
        "descriptors": generator.random((10, 4, 20, 30)),
        "affinities": generator.random((3, 4, 20, 30)).astype(np.float32),
        "truth <b>": generator.integers(0, 9, (4, 20, 30)).astype(np.uint64),
    }
    png = contact_sheet(columns, voxel_size=(40, 4, 4), sections=9, panel=90)
    sheet = decode(png)
    assert sheet.shape == (30 + 4 * (60 + 6) - 6 + 12, 34 + 4 * 96 - 6 + 12, 3), "four sections, 20 : 30 voxels"
    assert png == contact_sheet(columns, voxel_size=(40, 4, 4), sections=9, panel=90)


def test_contact_sheet_refuses_what_it_cannot_draw() -> None:
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet({})
    with pytest.raises(ValueError, match="'flat' has 2 axes"):
        contact_sheet({"flat": np.zeros((3, 3))})
