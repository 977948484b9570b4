"""Sampling: kernels and tensor operations agree, on whole windows and on parts of larger arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuroloom.project import Augmentation
from neuroloom.training.augmentation.kernels import ONE
from neuroloom.training.augmentation.map import Map, draw_map, input_shape
from neuroloom.training.augmentation.sampling import (
    interpolate,
    nearest,
    nearest_descriptors,
    places_of,
    sample_descriptors,
    sample_image,
    sample_labels,
    turn_descriptors,
)
from neuroloom.training.windows import Window, whole
from neuroloom.volume.array import Triple, open_volume

CUBE = (8.0, 8.0, 8.0)
SECTIONS = (40.0, 4.0, 4.0)
shapes = st.tuples(*[st.integers(1, 14)] * 3)


def by_kernels(image: Window, labels: Window, roles: Window, places: Map, shape: Triple) -> list[torch.Tensor]:
    out = [torch.empty(shape), torch.empty(shape, dtype=torch.int64), torch.empty(shape, dtype=torch.uint8)]
    sample_image(image, places, out[0])
    sample_labels(labels, roles, places, out[1], out[2])
    return out


def by_tensors(image: Window, labels: Window, roles: Window, places: Map, shape: Triple) -> list[torch.Tensor]:
    where = places_of(places, shape, torch.device("cpu"))
    scale = 1 / 255 if image.values.dtype == np.uint8 else 1.0
    found = nearest(torch.from_numpy(labels.read().astype(np.int64)), torch.from_numpy(roles.read()), where)
    return [interpolate(torch.from_numpy(image.read_mirrored()), where, float(np.float32(scale))), *found]


def assert_agree(image: Window, labels: Window, roles: Window, places: Map, shape: Triple) -> None:
    ours, reference = (function(image, labels, roles, places, shape) for function in (by_kernels, by_tensors))
    torch.testing.assert_close(ours[0], reference[0], atol=1e-5, rtol=0)
    where = places_of(places, shape, torch.device("cpu"))
    centre = torch.tensor([(n - 1) / 2 for n in labels.shape]).reshape(3, 1, 1, 1)
    from_border = ((where + centre + 0.5) - (where + centre + 0.5).round()).abs().amin(0)
    clear = from_border > 1e-7
    assert torch.equal(ours[1][clear], reference[1][clear])
    assert torch.equal(ours[2][clear], reference[2][clear])
    assert clear.float().mean() > 0.99 or not torch.equal(ours[1], reference[1])


def arrays(shape: tuple[int, ...], dtype: Any, seed: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.uint8]]:
    random = np.random.default_rng(seed)
    raw = random.integers(0, 256, shape, np.uint8) if dtype == np.uint8 else random.random(shape, np.float32)
    return raw, random.integers(0, 2**62, shape).astype(np.uint64), random.integers(0, 3, shape, np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    shapes,
    shapes,
    st.tuples(*[st.integers(-6, 20)] * 3),
    st.sampled_from([CUBE, SECTIONS, (20.0, 9.0, 9.0)]),
    st.sampled_from([np.uint8, np.float32]),
    st.sampled_from([(0.0, 90.0), (0.0, 0.0), (90.0, 90.0), (-30.0, 200.0)]),
    st.floats(1, 50),
    st.floats(0, 4),
    st.integers(0, 2**31),
)
def test_kernels_and_tensors_agree(
    stored: Triple,
    shape: Triple,
    begin: Triple,
    voxel_size: tuple[float, float, float],
    dtype: Any,
    rotation: tuple[float, float],
    spacing: float,
    jitter: float,
    seed: int,
) -> None:
    """Also where the window leaves its array by far, and places leave the window of the labels."""
    parameters = Augmentation(
        rotation=rotation, elastic_spacing=spacing, elastic_jitter=jitter, slip=0.3, shift=0.3, largest_misalignment=3
    )
    z, y, x = (n + 2 * (seed % 3) for n in shape)
    raw, labels, roles = arrays(stored, dtype, seed)
    windows = (
        Window(raw, begin, input_shape((z, y, x), parameters, voxel_size)),
        Window(labels, begin, shape),
        Window(roles, begin, shape),
    )
    generator = torch.Generator().manual_seed(seed)
    places = draw_map(generator, parameters, voxel_size, (z, y, x), windows[0].shape)
    assert_agree(*windows, places, shape)


@settings(max_examples=40, deadline=None)
@given(shapes, shapes, st.tuples(*[st.integers(-6, 20)] * 3), st.sampled_from([CUBE, SECTIONS]), st.integers(0, 2**31))
def test_kernels_and_tensors_agree_on_descriptors(
    stored: Triple, shape: Triple, begin: Triple, voxel_size: tuple[float, float, float], seed: int
) -> None:
    parameters = Augmentation(elastic_spacing=5.0, slip=0.3, shift=0.3, largest_misalignment=3)
    values = np.random.default_rng(seed).integers(0, 256, (*stored, 11), np.uint8)
    window = Window(values, begin, input_shape(shape, parameters, voxel_size))
    places = draw_map(torch.Generator().manual_seed(seed), parameters, voxel_size, shape, window.shape)
    ours = torch.empty((10, *shape))
    sample_descriptors(window, places, ours)
    where = places_of(places, shape, torch.device("cpu"))
    found, mirrored = nearest_descriptors(window, where)
    reference = turn_descriptors(found, torch.from_numpy(places.matrix), mirrored)
    centre = torch.tensor([(n - 1) / 2 for n in window.shape]).reshape(3, 1, 1, 1)
    clear = ((where + centre + 0.5) - (where + centre + 0.5).round()).abs().amin(0) > 1e-7
    # two small variances make a Pearson coefficient of rounding errors
    tolerance = torch.where(reference[3:6].amin(0) > 0.01, 1e-3, 1.0)
    difference = (ours - reference).abs()[:, clear]
    assert (difference[[0, 1, 2, 3, 4, 5, 9]] <= 1e-4).all()
    assert (difference[6:9] <= tolerance[clear]).all()


@settings(max_examples=40, deadline=None)
@given(shapes, st.sampled_from([CUBE, SECTIONS]), st.integers(-8, 8), st.integers(0, 2**31))
def test_right_angles_mirrors_and_whole_voxels_are_copies(
    shape: Triple, voxel_size: tuple[float, float, float], quarters: int, seed: int
) -> None:
    """Every value of the result is one of the crop, bit by bit, and names its own place."""
    parameters = Augmentation(rotation=(90.0 * quarters,) * 2, elastic_jitter=0.0, slip=0.4, shift=0.4)
    needed = input_shape(shape, parameters, voxel_size)
    number = np.arange(np.prod(needed), dtype=np.float32).reshape(needed)
    image = whole(number / np.float32(2**24))
    labels, roles = whole(number.astype(np.uint64)), whole(np.ones(needed, np.uint8))
    places = draw_map(torch.Generator().manual_seed(seed), parameters, voxel_size, shape, needed)
    for function in (by_kernels, by_tensors):
        values, found, role = function(image, labels, roles, places, shape)
        assert role.all()
        assert torch.equal(values * 2**24, found.float())


@settings(max_examples=15, deadline=None)
@given(shapes, st.integers(0, 2**31))
def test_kernels_are_what_they_say(shape: Triple, seed: int) -> None:
    """Against the definition, voxel by voxel."""
    parameters = Augmentation(elastic_spacing=4.0)
    needed = input_shape(shape, parameters, CUBE)
    raw, labels, roles = arrays(needed, np.float32, seed)
    places = draw_map(torch.Generator().manual_seed(seed), parameters, CUBE, shape, needed)
    values, found, role = by_kernels(whole(raw), whole(labels), whole(roles), places, shape)
    where = places_of(places, shape, torch.device("cpu")).numpy()
    random = np.random.default_rng(seed)
    for _ in range(30):
        voxel = tuple(int(random.integers(n)) for n in shape)
        place = where[(slice(None), *voxel)] + (np.array(needed) - 1) / 2
        low = np.floor(place).astype(int)
        expected = 0.0
        for corner in np.ndindex(2, 2, 2):
            share = np.prod([w if c else 1 - w for w, c in zip(place - low, corner, strict=True)])
            if share > 0:
                expected += share * raw[tuple(low + corner)]
        assert abs(values[voxel] - expected) < 1e-5
        if np.abs(place + 0.5 - np.round(place + 0.5)).min() > 1 / ONE * 4:
            nearest_voxel = tuple(np.floor(place + 0.5).astype(int))
            assert found[voxel] == int(labels[nearest_voxel])
            assert role[voxel] == roles[nearest_voxel]


def test_a_window_into_an_array_is_like_its_copy() -> None:
    raw, labels, roles = arrays((30, 32, 34), np.uint8, 0)
    shape, begin = (12, 12, 12), (-3, 20, 11)
    parameters = Augmentation()
    places = draw_map(torch.Generator().manual_seed(1), parameters, CUBE, shape, (15, 18, 18))
    window = [Window(values, begin, (15, 18, 18)) for values in (raw, labels, roles)]
    copied = [whole(window[0].read_mirrored()), whole(window[1].read()), whole(window[2].read())]
    for there, copy in zip(by_kernels(*window, places, shape)[1:], by_kernels(*copied, places, shape)[1:], strict=True):
        assert torch.equal(there, copy)
    needed = input_shape(shape, parameters, CUBE)
    window[0] = Window(raw, begin, needed)
    copied[0] = whole(window[0].read_mirrored())
    torch.testing.assert_close(by_kernels(*window, places, shape)[0], by_kernels(*copied, places, shape)[0])


@pytest.mark.real_data
def test_they_agree_on_real_tissue(real_data: Path) -> None:
    path = real_data / "fib25-val.zarr"
    raw = open_volume(path, "volumes/raw").read()
    labels = open_volume(path, "volumes/labels/neuron_ids").read()
    parameters, shape = Augmentation(), (96, 96, 96)
    needed = input_shape(shape, parameters, CUBE)
    for seed in range(3):
        places = draw_map(torch.Generator().manual_seed(seed), parameters, CUBE, shape, needed)
        windows = [Window(values, (60, 50, 90), needed) for values in (raw, labels, np.ones(raw.shape, np.uint8))]
        assert_agree(windows[0], windows[1], windows[2], places, shape)
