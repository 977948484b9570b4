"""The shift between labels and raw is found, whatever the looks of the borders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from tests.volume.tissue import tissue

from neuroloom.volume import open_volume
from neuroloom.volume.checking.alignment import label_borders, measure_alignment


def shifted(shift: tuple[int, int, int], shape: tuple[int, int, int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Windows of raw and labels that are `shift` apart."""
    raw = tuple(slice(max(0, s), n + min(0, s)) for s, n in zip(shift, shape, strict=True))
    labels = tuple(slice(max(0, -s), n + min(0, -s)) for s, n in zip(shift, shape, strict=True))
    return raw, labels


@pytest.mark.parametrize("shift", [(0, 0, 0), (3, 0, 0), (0, -3, 0), (0, 0, 3), (-2, 4, -7)])
@pytest.mark.parametrize("look", ["dark", "bright", "steps", "thick"])
def test_a_known_shift_is_found(shift: tuple[int, int, int], look: str) -> None:
    raw, labels = tissue()
    if look == "bright":
        raw = 255 - raw
    if look == "steps":  # no membranes; neighbours differ in brightness
        grey = np.random.default_rng(1).integers(20, 235, 100)
        raw = (grey[labels.astype(int)] + np.random.default_rng(2).normal(0, 5, labels.shape)).astype(np.float32) / 255
    if look == "thick":  # membranes have label 0
        labels = np.where(raw < 110, np.uint64(0), labels)
    window, labels_window = shifted(shift, raw.shape)
    found = measure_alignment([(raw[window], labels[labels_window], None)], (8, 8, 8))
    assert found is not None
    # voxel v of the labels belongs to voxel v - shift of raw
    assert found.shift == tuple(-s for s in shift)
    assert found.correlation > 0.4


def test_correlation_is_that_of_the_definition() -> None:
    raw, labels = tissue((30, 32, 34), 20)
    found = measure_alignment([(raw, labels, None)], (8, 8, 8))
    assert found is not None
    grey = ndimage.gaussian_filter(raw.astype(np.float32), 1.0) - ndimage.gaussian_filter(raw.astype(np.float32), 3.0)
    grey = grey - grey.mean()
    borders = label_borders(labels) - label_borders(labels).mean()
    inner = tuple(slice(12, n - 12) for n in raw.shape)
    for shift in ((0, 0, 0), (2, -1, 12), (-12, 5, 0)):
        moved = tuple(slice(12 + s, n - 12 + s) for s, n in zip(shift, raw.shape, strict=True))
        expected = (borders[inner] * grey[moved]).sum()
        expected /= np.sqrt((borders[inner] ** 2).sum() * (grey**2).mean() * borders[inner].size)
        at = tuple(12 + s for s in shift)
        np.testing.assert_allclose(found.curve[at], abs(expected), rtol=1e-3, atol=1e-6)


def test_thick_sections_are_compared_in_their_plane() -> None:
    raw, labels = tissue((9, 80, 80), 30)
    found = measure_alignment([(raw[:, 3:], labels[:, :-3], None)], (40, 4, 4))
    assert found is not None
    assert found.shift[1:] == (-3, 0)


def test_thin_membranes_of_label_0_are_borders_and_large_gaps_are_not() -> None:
    labels = np.ones((9, 9, 20), np.uint64)
    labels[:, :, 6:9], labels[:, :, 9:12], labels[:, :, 12:] = 0, 2, 0
    along_x = label_borders(labels)[4, 4].nonzero()[0].tolist()
    assert along_x == [5, 6, 7, 8, 9, 11, 12, 13, 14]


def test_labels_of_another_tissue_correlate_with_nothing() -> None:
    found = measure_alignment([(tissue()[0], tissue(seed=5)[1], None)], (8, 8, 8))
    aligned = measure_alignment([(*tissue(), None)], (8, 8, 8))
    assert found is not None
    assert aligned is not None
    assert found.correlation < 0.3 * aligned.correlation


def test_no_borders_no_answer() -> None:
    raw, labels = tissue((20, 20, 20), 5)
    assert measure_alignment([(raw, np.ones_like(labels), None)], (8, 8, 8)) is None
    assert measure_alignment([(raw, labels, np.zeros(raw.shape, np.uint8))], (8, 8, 8)) is None


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["gala-a", "gala-b", "cremi-b-thin", "fib25-val", "fib25-train"])
def test_real_volumes_are_aligned_and_shifted_copies_are_not(real_data: Path, name: str) -> None:
    volume = open_volume(real_data / f"{name}.zarr", "volumes/raw")
    truth = open_volume(real_data / f"{name}.zarr", "volumes/labels/neuron_ids")
    size = [min(96 if name.startswith("fib") else 200, n) for n in volume.shape]
    begin = [(n - s) // 2 for n, s in zip(volume.shape, size, strict=True)]
    raw, labels = volume.read(begin, size), truth.read(begin, size)
    for shift in ((0, 0, 0), (0, 3, 0), (0, 0, -3), (0, -3, 3), *([(3, 0, 0)] if size[0] > 20 else [])):
        window, labels_window = shifted(shift, raw.shape)
        found = measure_alignment([(raw[window], labels[labels_window], None)], volume.voxel_size)
        assert found is not None
        assert found.shift == tuple(-s for s in shift)
        assert found.correlation > 0.3
