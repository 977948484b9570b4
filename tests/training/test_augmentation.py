"""Augmentation: exact where it can be, the same everywhere, and never a label from outside the crop."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import convolve1d, gaussian_filter

from neuroloom.project import Augmentation
from neuroloom.training.affinities import affinities
from neuroloom.training.augmentation import NO_AUGMENTATION, augment, input_shape, margin
from neuroloom.training.windows import whole
from neuroloom.volume.array import Triple as Shape

CUBE = (8.0, 8.0, 8.0)
SECTIONS = (40.0, 4.0, 4.0)
NEIGHBORHOOD = [(-1, 0, 0), (0, -1, 0), (0, 0, -1)]


def crop(raw_shape: Shape, label_shape: Shape, batch: int = 1, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Raw and labels that agree: the low digits of an id are raw's grey value at the same place."""
    generator = torch.Generator().manual_seed(seed)
    whole = tuple(max(a, b) for a, b in zip(raw_shape, label_shape, strict=True))
    grey = torch.randint(0, 256, (batch, *whole), generator=generator)
    labels = middle(grey, label_shape) + 2**61
    mask = torch.ones_like(labels, dtype=torch.uint8)
    return (middle(grey, raw_shape) / 255)[:, None], labels.contiguous(), mask


def middle(array: torch.Tensor, shape: Shape) -> torch.Tensor:
    for axis, size in enumerate(shape, start=array.ndim - 3):
        array = array.narrow(axis, (array.shape[axis] - size) // 2, size)
    return array


def run(
    inputs: tuple[torch.Tensor, ...],
    parameters: Augmentation,
    raw_shape: Shape,
    label_shape: Shape,
    voxel_size: tuple[float, ...] = CUBE,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return augment_all(inputs, generator, parameters, voxel_size, raw_shape, label_shape)


def augment_all(
    inputs: tuple[torch.Tensor, ...],
    generator: torch.Generator,
    parameters: Augmentation,
    voxel_size: tuple[float, ...],
    raw_shape: Shape,
    label_shape: Shape,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Augment whole arrays; what counts as truth values."""
    raw, labels, mask = inputs
    windows = [[whole(part.numpy()) for part in parts] for parts in (raw[:, 0].float(), labels, mask.to(torch.uint8))]
    found = augment(
        *(windows[0], windows[1], windows[2], [generator] * len(raw), parameters, voxel_size, raw_shape, label_shape),
        torch.device("cpu"),
    )
    return found[0], found[1], found[2] != 0


def changed(**values: object) -> Augmentation:
    return Augmentation.model_validate(NO_AUGMENTATION.model_dump() | values)


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(0, 3)] * 3), st.tuples(*[st.integers(-2, 2)] * 3))
def test_nothing_on_is_the_middle_of_the_crop(shape: Shape, more: Shape, other: Shape) -> None:
    raw_shape = (shape[0] + 4, shape[1] + 4, shape[2] + 4)
    label_shape = tuple(n + 2 * o for n, o in zip(raw_shape, other, strict=True))
    inputs = crop(
        tuple(n + 2 * m for n, m in zip(raw_shape, more, strict=True)),
        tuple(n + 2 * m for n, m in zip(label_shape, more, strict=True)),
    )
    assert input_shape(raw_shape, NO_AUGMENTATION, CUBE) == raw_shape
    raw, labels, mask = run(inputs, NO_AUGMENTATION, raw_shape, label_shape)
    assert torch.equal(raw, middle(inputs[0], raw_shape))
    assert torch.equal(labels, middle(inputs[1], label_shape))
    assert labels.dtype == torch.int64
    assert mask.dtype == torch.bool
    assert mask.all()


@pytest.mark.parametrize("voxel_size", [CUBE, SECTIONS])
def test_mirrors_and_transpositions_are_exact(voxel_size: tuple[float, ...]) -> None:
    """Labels, raw and the affinities computed afterwards are those of the flipped and transposed arrays."""
    shape = (6, 8, 8) if voxel_size == SECTIONS else (8, 8, 8)
    inputs = crop(shape, shape)
    possible = {}
    for order in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]:
        if voxel_size == SECTIONS and order[0] != 0:
            continue
        for flips in range(8):
            axes = [axis for axis in range(3) if flips >> axis & 1]
            turned = inputs[1][0].permute(order).flip(axes)
            possible[turned.numpy().tobytes()] = (order, axes)
    parameters = changed(mirror=True, transpose=True)
    assert input_shape(shape, parameters, voxel_size) == shape
    seen = set()
    for seed in range(200 if voxel_size == CUBE else 80):
        raw, labels, mask = run(inputs, parameters, shape, shape, voxel_size, seed)
        key = labels[0].contiguous().numpy().tobytes()
        assert key in possible
        seen.add(key)
        order, axes = possible[key]
        assert torch.equal(raw[0, 0], inputs[0][0, 0].permute(order).flip(axes))
        assert mask.all()
        # the edge between two voxels is the same edge, whichever way it now points
        before, _ = affinities(inputs[1], [*NEIGHBORHOOD, (1, 0, 0), (0, 1, 0), (0, 0, 1)])
        after, _ = affinities(labels, NEIGHBORHOOD)
        for channel, axis in enumerate(order):
            source = before[0, axis + 3 if channel in axes else axis].permute(order).flip(axes)
            assert torch.equal(after[0, channel], source)
    assert len(seen) == len(possible)


@pytest.mark.parametrize("turns", [1, 2, 3, 4])
@pytest.mark.parametrize("odd", [0, 1])
def test_right_angles_are_exact(turns: int, odd: int) -> None:
    shape = (9, 20 + odd, 20 + odd)
    inputs = crop(shape, shape)
    parameters = changed(rotation=(turns * 90.0,) * 2)
    assert input_shape(shape, parameters, SECTIONS) == shape
    raw, labels, mask = run(inputs, parameters, shape, shape, SECTIONS)
    assert mask.all()
    assert any(torch.equal(labels[0], torch.rot90(inputs[1][0], sign * turns, (1, 2))) for sign in (-1, 1))
    assert torch.equal(raw[:, 0], (labels - 2**61) / 255)


def test_odd_and_even_extents_may_be_exchanged() -> None:
    """Voxels stay voxels, although the centres of odd and even extents differ."""
    wanted = (7, 8, 9)
    parameters = changed(transpose=True, mirror=True)
    needed = input_shape(wanted, parameters, CUBE)
    inputs = crop(needed, needed)
    for seed in range(20):
        raw, labels, mask = run(inputs, parameters, wanted, wanted, CUBE, seed)
        assert mask.all()
        assert torch.equal(raw[:, 0], (labels - 2**61) / 255)
        assert len(labels.unique()) > 100


def test_raw_and_labels_stay_together() -> None:
    """With everything on, a smooth raw tells the position that the label names."""
    wanted_raw, wanted_labels = (40, 40, 40), (24, 26, 44)
    parameters = changed(
        mirror=True, transpose=True, rotation=(0, 90), elastic_jitter=2.0, elastic_spacing=10.0,
        slip=0.2, shift=0.2,
    )  # fmt: skip
    raw_shape, label_shape = (input_shape(wanted, parameters, CUBE) for wanted in (wanted_raw, wanted_labels))
    for axis in range(3):
        position = torch.arange(raw_shape[axis]) - (raw_shape[axis] - 1) / 2
        raw = (position / 200 + 0.5).reshape([-1 if a == axis else 1 for a in range(3)]).expand(1, 1, *raw_shape)
        position = torch.arange(label_shape[axis]) - (label_shape[axis] - 1) / 2 + 200.5
        labels = position.long().reshape([-1 if a == axis else 1 for a in range(3)]).expand(1, *label_shape)
        inputs = (raw.contiguous(), labels.contiguous(), torch.ones_like(labels))
        for seed in range(3):
            new_raw, new_labels, mask = run(inputs, parameters, wanted_raw, wanted_labels, CUBE, seed)
            assert mask.all()
            common = (24, 26, 40)
            place = middle(new_raw[:, 0], common) * 200 - 100
            named = middle(new_labels, common) - 200.5
            assert (place - named).abs().max() <= 0.501


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.integers(4, 20)] * 3),
    st.sampled_from([CUBE, SECTIONS, (20.0, 9.0, 9.0), (7.0, 8.0, 9.0)]),
    st.integers(0, 2**31),
    st.tuples(st.floats(-400, 400), st.floats(-400, 400)),
)
def test_a_crop_of_the_input_shape_is_large_enough(
    wanted: Shape, voxel_size: tuple[float, ...], seed: int, rotation: tuple[float, float]
) -> None:
    low, high = sorted(rotation)
    parameters = Augmentation(elastic_spacing=5, rotation=(low, high), slip=0.3, shift=0.3, elastic_jitter=1.5)
    needed = input_shape(wanted, parameters, voxel_size)
    assert all(n >= w and (n - w) % 2 == 0 for n, w in zip(needed, wanted, strict=True))
    _, labels, mask = run(crop(needed, needed), parameters, wanted, wanted, voxel_size, seed)
    assert mask.all()
    assert (labels >= 2**61).all()


def test_outside_the_crop_nothing_is_learned() -> None:
    inputs = crop((10, 10, 10), (6, 6, 6))
    inputs[2][0, 0] = 0
    raw, labels, mask = run(inputs, NO_AUGMENTATION, (14, 14, 14), (10, 12, 8))
    assert torch.equal(middle(labels, (6, 6, 6)), inputs[1])
    assert mask.sum() == 5 * 6 * 6
    assert not mask[0, 2].any()
    assert mask[0, 3:8, 3:9, 1:7].all()
    assert (labels != 0).sum() == 6**3
    reflected = np.pad(inputs[0][0, 0].numpy(), 2, mode="reflect")
    np.testing.assert_array_equal(raw[0, 0], reflected)


def test_the_seed_decides_and_samples_differ() -> None:
    wanted = (16, 16, 16)
    parameters = Augmentation(noise=0.5, defocused_sections=0.3, missing_sections=0.1)
    needed = input_shape(wanted, parameters, CUBE)
    one = tuple(torch.cat([part, part]) for part in crop(needed, needed))
    first, again, other = (run(one, parameters, wanted, wanted, CUBE, seed) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1])
    assert not torch.equal(first[1][0], first[1][1])
    assert first[0].shape == (2, 1, *wanted)


def test_a_generator_goes_on_where_it_was_stopped() -> None:
    wanted = (12, 12, 12)
    parameters = Augmentation()
    inputs = crop(input_shape(wanted, parameters, CUBE), input_shape(wanted, parameters, CUBE))
    generator = torch.Generator().manual_seed(1)
    augment_all(inputs, generator, parameters, CUBE, wanted, wanted)
    state = generator.get_state()
    expected = augment_all(inputs, generator, parameters, CUBE, wanted, wanted)
    resumed = torch.Generator()
    resumed.set_state(state)
    found = augment_all(inputs, resumed, parameters, CUBE, wanted, wanted)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_ids_beyond_what_floats_can_tell_apart_survive() -> None:
    wanted = (12, 12, 12)
    parameters = Augmentation()
    needed = input_shape(wanted, parameters, CUBE)
    raw, labels, mask = crop(needed, needed)
    labels = torch.where(labels % 2 == 0, 2**63 - 1, 2**63 - 2)
    _, found, _ = run((raw, labels, mask), parameters, wanted, wanted)
    assert set(found.unique().tolist()) == {2**63 - 1, 2**63 - 2}


@pytest.mark.parametrize(("slip", "shift"), [(0.2, 0.0), (0.0, 0.1)])
def test_sections_are_misaligned_by_whole_voxels(slip: float, shift: float) -> None:
    shape = (80, 12, 12)
    parameters = changed(slip=slip, shift=shift, largest_misalignment=2)
    needed = input_shape(shape, parameters, SECTIONS)
    assert needed == (80, 16, 16)
    inputs = crop(needed, needed)
    _, labels, mask = run(inputs, parameters, shape, shape, SECTIONS, 3)
    assert mask.all()
    moves = []
    for z in range(80):
        found = [
            (y - 2, x - 2)
            for y in range(5)
            for x in range(5)
            if torch.equal(labels[0, z], inputs[1][0, z, y : y + 12, x : x + 12])
        ]
        assert len(found) == 1
        moves.append(found[0])
    still = sum(move == (0, 0) for move in moves)
    changes = sum(a != b for a, b in itertools.pairwise(moves))
    assert len(set(moves)) >= 4
    assert moves[40] == (0, 0) or slip
    if slip:  # there and back again
        assert 50 < still < 75
        assert changes > 80 - still
    else:  # there to stay
        assert still < 50
        assert 3 <= changes <= 16


def test_elastic_moves_by_its_jitter() -> None:
    wanted = (40, 40, 40)
    parameters = changed(elastic_jitter=2.0, elastic_spacing=10.0)
    needed = input_shape(wanted, parameters, CUBE)
    assert needed == (52, 52, 52)
    position = (torch.arange(52) - 25.5).expand(1, 52, 52, 52)
    inputs = ((position / 100 + 0.5)[:, None].contiguous(), position.long(), torch.ones(1, 52, 52, 52))
    moved = run(inputs, parameters, wanted, wanted)[0] * 100 - 50
    displacement = moved[0, 0] - (torch.arange(40) - 19.5)
    at_points = displacement[::10, ::10, ::10]
    assert 1.2 < at_points.std() < 2.8
    assert displacement.abs().max() < 6.01
    # linear between control points, along every axis
    between = (at_points[1:] + at_points[:-1]) / 2
    torch.testing.assert_close(displacement[5::10, ::10, ::10][: len(between)], between, atol=1e-3, rtol=0)


def test_the_farthest_displacements_are_cut_off() -> None:
    wanted = (40, 40, 40)
    parameters = changed(elastic_jitter=2.0, elastic_spacing=4.0)  # thousands of draws
    needed = input_shape(wanted, parameters, CUBE)
    _, _, mask = run(crop(needed, needed), parameters, wanted, wanted)
    assert mask.all()
    short = (needed[0] - 4, needed[1] - 4, needed[2] - 4)
    assert not run(crop(short, short), parameters, wanted, wanted)[2].all()


def test_serial_sections_are_bent_within_the_plane_only() -> None:
    wanted = (8, 40, 40)
    parameters = changed(elastic_jitter=2.0)
    needed = input_shape(wanted, parameters, SECTIONS)
    assert needed == (8, 52, 52)
    labels = torch.arange(1, 9).reshape(1, 8, 1, 1).expand(1, 8, 52, 52)
    inputs = (torch.zeros(1, 1, *needed), labels, torch.ones(1, *needed))
    _, found, _ = run(inputs, parameters, wanted, wanted, SECTIONS)
    assert torch.equal(found, labels[:, :, :40, :40])
    assert margin(parameters, SECTIONS) == (0, 6, 6)
    assert margin(parameters, (7.0, 4.0, 4.0)) == (4, 6, 6)


@pytest.mark.parametrize("voxel_size", [CUBE, SECTIONS])
def test_intensity_stays_within_its_ranges(voxel_size: tuple[float, ...]) -> None:
    serial = voxel_size == SECTIONS
    shape = (20, 6, 6)
    raw, labels, mask = crop(shape, shape)
    # far from the limits 0 and 1, and brighter from section to section
    raw = raw * 0.1 + torch.linspace(0.2, 0.7, 20)[:, None, None]
    parameters = changed(intensity_scale=(0.8, 1.2), intensity_shift=(-0.1, 0.1))
    found, _, _ = run((raw, labels, mask), parameters, shape, shape, voxel_size)
    scales, shifts = [], []
    for z in range(20):
        scale, offset = np.polyfit(raw[0, 0, z].flatten(), found[0, 0, z].flatten(), 1)
        np.testing.assert_allclose(found[0, 0, z], raw[0, 0, z] * scale + offset, atol=1e-4)
        scales.append(scale)
        mean = raw[0, 0, z].mean() if serial else raw.mean()
        shifts.append(float(offset - mean * (1 - scale)))
    assert 0.8 <= min(scales) <= max(scales) <= 1.2
    assert -0.1001 <= min(shifts) <= max(shifts) <= 0.1001
    assert np.ptp(shifts) > 0.05 if serial else np.ptp(shifts) < 1e-4
    assert (np.ptp(scales) > 0.1) == serial
    stretched, _, _ = run((raw, labels, mask), changed(intensity_scale=(0.8, 1.2)), shape, shape, voxel_size)
    means = (2, 3, 4) if serial else (0, 1, 2, 3, 4)
    torch.testing.assert_close(stretched.mean(means), raw.mean(means), atol=1e-4, rtol=0)
    limited, _, _ = run((raw, labels, mask), changed(intensity_scale=(50, 50)), shape, shape, voxel_size)
    assert limited.min() == 0
    assert limited.max() == 1


class TestDamage:
    """Missing, dark, blurred sections and noise: as often and as strong as asked, and labels stay as they are."""

    shape = (200, 10, 10)

    def test_missing_sections_are_black(self) -> None:
        inputs = crop(self.shape, self.shape)
        found, labels, _ = run(inputs, changed(missing_sections=0.2, noise=1.0), self.shape, self.shape)
        gone = (found[0, 0] == 0).all((1, 2))
        assert 20 < gone.sum() < 60
        assert torch.equal(labels, inputs[1])
        found, _, _ = run(inputs, changed(missing_sections=0.2), self.shape, self.shape)
        assert torch.equal(found[0, 0, ~gone], inputs[0][0, 0, ~gone])

    def test_dark_sections_lose_brightness_and_contrast(self) -> None:
        inputs = crop(self.shape, self.shape)
        parameters = changed(dark_sections=0.2, dark_scale=(0.1, 0.5))
        found, labels, _ = run(inputs, parameters, self.shape, self.shape)
        factor = (found[0, 0].sum((1, 2)) / inputs[0][0, 0].sum((1, 2))).numpy()
        dark = factor < 0.9
        assert 20 < dark.sum() < 60
        assert 0.1 <= factor[dark].min() < 0.2
        assert 0.4 < factor[dark].max() <= 0.5
        torch.testing.assert_close(found[0, 0], inputs[0][0, 0] * factor[:, None, None], atol=1e-5, rtol=0)
        assert torch.equal(found[0, 0, ~dark], inputs[0][0, 0, ~dark])
        assert torch.equal(labels, inputs[1])

    def test_defocused_sections_are_smooth(self) -> None:
        inputs = crop(self.shape, self.shape)
        raw = inputs[0][0, 0]
        found = run(inputs, changed(defocused_sections=0.2), self.shape, self.shape)[0][0, 0]
        soft = (found != raw).any(-1).any(-1)
        assert 20 < soft.sum() < 60
        assert (found[soft].std((1, 2)) < raw[soft].std((1, 2)) * 0.95).all()
        for z in soft.nonzero()[:5, 0].tolist():  # each is blurred by itself, with one width
            errors = [
                np.abs(gaussian_filter(raw[z].numpy(), sigma, mode="nearest", truncate=3) - found[z].numpy()).max()
                for sigma in np.linspace(0.5, 2, 301)
            ]
            assert min(errors) < 0.02

    @pytest.mark.parametrize("voxel_size", [CUBE, SECTIONS, (12.0, 8.0, 8.0)])
    def test_a_whole_crop_may_be_out_of_focus(self, voxel_size: tuple[float, ...]) -> None:
        shape = (16, 16, 16)
        inputs = crop(shape, shape)
        parameters = changed(defocus=1.0, defocus_sigma=(1.5, 1.5))
        found = run(inputs, parameters, shape, shape, voxel_size)[0][0, 0]
        sigma = [1.5 * min(voxel_size) / size for size in voxel_size]
        if voxel_size == SECTIONS:
            sigma[0] = 0
        padded = np.pad(inputs[0][0, 0].numpy(), 8, mode="edge")
        kernels = [np.exp(-0.5 * (np.arange(-math.ceil(3 * s), math.ceil(3 * s) + 1) / max(s, 1)) ** 2) for s in sigma]
        for axis, kernel in enumerate(kernels):
            if sigma[axis]:
                kernel = np.exp(-0.5 * (np.arange(len(kernel)) - len(kernel) // 2) ** 2 / sigma[axis] ** 2)
                padded = convolve1d(padded, kernel / kernel.sum(), axis)
        np.testing.assert_allclose(found, padded[8:-8, 8:-8, 8:-8], atol=1e-5)
        half = [run(inputs, changed(defocus=0.5), shape, shape, CUBE, seed)[0] for seed in range(40)]
        assert 8 < sum(torch.equal(one, inputs[0]) for one in half) < 32

    @pytest.mark.parametrize("voxel_size", [CUBE, SECTIONS])
    def test_noise_is_as_strong_as_asked(self, voxel_size: tuple[float, ...]) -> None:
        shape = (60, 20, 20)
        inputs = (torch.full((1, 1, *shape), 0.5), torch.ones(1, *shape, dtype=torch.int64), torch.ones(1, *shape))
        parameters = changed(noise=0.5, noise_deviation=(0.02, 0.06))
        deviations = []
        for seed in range(30):
            found = run(inputs, parameters, shape, shape, voxel_size, seed)[0][0, 0]
            deviations += found.std((1, 2)).tolist() if voxel_size == SECTIONS else [float(found.std())]
        noisy = np.array([value for value in deviations if value > 0])
        assert 0.2 * len(deviations) < len(noisy) < 0.8 * len(deviations)
        assert 0.018 < noisy.min() < 0.035
        assert 0.045 < noisy.max() < 0.068
        assert abs(float(found.mean()) - 0.5) < 0.01

    def test_sections_are_damaged_by_default_only_where_they_were_cut(self) -> None:
        shape = (400, 4, 4)
        inputs = (torch.full((1, 1, *shape), 0.5), torch.ones(1, *shape, dtype=torch.int64), torch.ones(1, *shape))
        parameters = changed(missing_sections=None, dark_sections=None, defocused_sections=None)
        assert torch.equal(run(inputs, parameters, shape, shape, CUBE)[0], inputs[0])
        found = run(inputs, parameters, shape, shape, SECTIONS)[0][0, 0, :, 0, 0]
        assert 1 <= (found == 0).sum() <= 24
        assert 1 <= ((found > 0) & (found < 0.3)).sum() <= 24
        off = changed(missing_sections=0.0, dark_sections=0.0, defocused_sections=0.0)
        assert torch.equal(run(inputs, off, shape, shape, SECTIONS)[0], inputs[0])

    def test_one_kind_does_not_alter_the_others(self) -> None:
        inputs = crop(self.shape, self.shape)
        missing = run(inputs, changed(missing_sections=0.2), self.shape, self.shape)[0]
        both = run(inputs, changed(missing_sections=0.2, dark_sections=0.3), self.shape, self.shape)[0]
        assert torch.equal((missing[0, 0] == 0).all((1, 2)), (both[0, 0] == 0).all((1, 2)))


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="smallest"):
        Augmentation(rotation=(1.0, 0.0))
    with pytest.raises(ValueError, match="finite"):
        Augmentation(rotation=(0.0, math.inf))
    with pytest.raises(ValueError, match="dark_scale"):
        Augmentation(dark_scale=(-0.1, 0.5))
    with pytest.raises(ValueError, match="slip"):
        Augmentation(slip=1.5)
    with pytest.raises(ValueError, match="elastic"):
        Augmentation.model_validate({"elastic": 3})
    inputs = crop((10, 10, 10), (8, 8, 8))
    with pytest.raises(ValueError, match="centre"):
        run(inputs, NO_AUGMENTATION, (9, 9, 9), (8, 8, 8))
    with pytest.raises(ValueError, match="centre"):
        run((inputs[0][..., :9], *inputs[1:]), NO_AUGMENTATION, (8, 8, 8), (8, 8, 8))


@pytest.mark.real_data
def test_membranes_stay_at_label_borders(real_data: Path) -> None:
    """On real tissue raw and labels move together: borders of labels are darker than insides, before and after."""
    volume = zarr.open_group(str(real_data / "fib25-val.zarr"), mode="r")
    wanted = (48, 48, 48)
    parameters = Augmentation(intensity_scale=(1, 1), intensity_shift=(0, 0))
    n = input_shape(wanted, parameters, CUBE)[0]
    raw = torch.from_numpy(np.asarray(volume["volumes/raw"][:n, :n, :n], dtype=np.float32) / 255)[None, None]
    labels = torch.from_numpy(np.asarray(volume["volumes/labels/neuron_ids"][:n, :n, :n]).view(np.int64))[None]
    contrasts = []
    for seed in range(4):
        new_raw, new_labels, mask = run((raw, labels, torch.ones_like(labels)), parameters, wanted, wanted, CUBE, seed)
        assert mask.all()
        assert set(new_labels.unique().tolist()) <= set(labels.unique().tolist())
        border = (affinities(new_labels, NEIGHBORHOOD)[0] == 0).any(1)[:, 1:, 1:, 1:]
        inner = new_raw[:, 0, 1:, 1:, 1:]
        contrasts.append(float(inner[~border].mean() - inner[border].mean()))
    border = (affinities(labels, NEIGHBORHOOD)[0] == 0).any(1)[:, 1:, 1:, 1:]
    before = float(raw[:, 0, 1:, 1:, 1:][~border].mean() - raw[:, 0, 1:, 1:, 1:][border].mean())
    assert before > 0.03
    assert min(contrasts) > 0.6 * before
