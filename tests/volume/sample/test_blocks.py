"""Sample data: the same bytes for any partition, exact truth, and tissue that looks like tissue."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import cc3d
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.volume import open_volume
from neuroloom.volume.sample import SampleParameters, blocks, make_block, write_sample
from neuroloom.volume.sample.cells import REACH, fill_space
from neuroloom.volume.sample.looks import _blur, _kernel, develop, halo_of
from neuroloom.volume.sample.mend import radii_needed
from neuroloom.volume.sample.neurites import LINK_MAX, Skeletons, skeletons_near
from neuroloom.volume.sample.noise import field_noise, gauss, hashed, key_of, spline_weights, uniform

Block = tuple[NDArray[np.uint8], NDArray[np.uint64]]


@pytest.fixture(scope="module")
def em() -> Block:
    """About 2.3 µm of tissue on a side, 16 nm, `em`."""
    return make_block(SampleParameters(voxel_size=(16, 16, 16)), (0, 0, 0), (144, 144, 144))


@pytest.fixture(scope="module")
def sharp() -> Block:
    """0.8 µm of tissue on a side, 8 nm, `em`."""
    return make_block(SampleParameters(), (0, 0, 0), (96, 96, 96))


def same(one: Block, other: Block) -> bool:
    return bool(np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1]))


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(
    begin=st.tuples(*[st.integers(-40_000, 40_000)] * 3),
    shape=st.tuples(*[st.integers(2, 20)] * 3),
    axis=st.integers(0, 2),
    data=st.data(),
)
def test_partition_gives_the_same_bytes(
    begin: tuple[int, int, int], shape: tuple[int, int, int], axis: int, data: st.DataObject
) -> None:
    parameters = SampleParameters(
        seed=data.draw(st.integers(0, 2**63 - 1)),
        voxel_size=data.draw(st.sampled_from([(8.0, 8.0, 8.0), (40.0, 4.0, 4.0), (22.48, 9.2, 9.2)])),
        look=data.draw(st.sampled_from(["em", "exm"])),
    )
    cut = data.draw(st.integers(1, shape[axis] - 1))
    whole = make_block(parameters, begin, shape)
    # either part; a block takes seconds, however small it is
    low, high = data.draw(st.sampled_from([(0, cut), (cut, shape[axis])]))
    corner = tuple(b + low if a == axis else b for a, b in enumerate(begin))
    extent = tuple(high - low if a == axis else s for a, s in enumerate(shape))
    part = make_block(parameters, corner, extent)  # type: ignore[arg-type]
    inside = tuple(slice(low, high) if a == axis else slice(None) for a in range(3))
    assert same((whole[0][inside], whole[1][inside]), part)


def test_far_corner_of_a_block_is_the_block_of_the_far_corner(em: Block) -> None:
    inside = (slice(101, 144), slice(7, 40), slice(90, 125))
    alone = make_block(SampleParameters(voxel_size=(16, 16, 16)), (101, 7, 90), (43, 33, 35))
    assert same((em[0][inside], em[1][inside]), alone)


def test_tile_size_does_not_matter(sharp: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "TILE", 37)
    assert same(make_block(SampleParameters(), (0, 0, 0), (96, 96, 96)), sharp)


def test_bytes_do_not_change() -> None:
    """Whoever changes the tissue must say so here: old samples can no longer be made again."""
    digests = []
    for look in ("em", "exm"):
        raw, labels = make_block(SampleParameters(seed=7, look=look), (-30, 10_000, 5), (24, 24, 24))  # type: ignore[arg-type]
        digests.append(hashlib.sha256(raw.tobytes() + labels.tobytes()).hexdigest()[:16])
    assert digests == ["aac2c40acf5cd1fb", "bb62466c50583251"]


def test_seed_makes_other_tissue_and_look_another_picture() -> None:
    shape = (24, 24, 24)
    raw, labels = make_block(SampleParameters(), (0, 0, 0), shape)
    other_raw, other_labels = make_block(SampleParameters(seed=1), (0, 0, 0), shape)
    stained, same_labels = make_block(SampleParameters(look="exm"), (0, 0, 0), shape)
    assert not np.array_equal(labels, other_labels)
    assert not np.array_equal(raw, other_raw)
    assert np.array_equal(labels, same_labels)
    assert np.corrcoef(raw.ravel(), stained.ravel())[0, 1] < -0.2


def test_skeletons_do_not_depend_on_the_box() -> None:
    low, high = np.array([-300.0, 5000.0, 100.0]), np.array([400.0, 5600.0, 700.0])
    large, small = skeletons_near(3, low - 600.0, high + 400.0), skeletons_near(3, low, high)

    def links(s: Skeletons) -> set[tuple[float, ...]]:
        last = np.flatnonzero(s.before >= 0)
        ends = np.hstack(
            [s.position[s.before[last]], s.position[last], s.radius[last, None], s.mitochondrion[last, None]]
        )
        within = np.all((ends[:, :3] >= low) & (ends[:, :3] <= high), axis=1)
        short = np.linalg.norm(ends[:, :3] - ends[:, 3:6], axis=1) <= LINK_MAX
        rows = np.column_stack([ends, s.neurite[last].astype(np.float64)])[within & short]
        return {tuple(row) for row in rows}

    assert len(links(small)) > 50
    assert links(large) == links(small)


def test_every_voxel_has_a_neurite(em: Block, sharp: Block) -> None:
    assert (em[1] > 0).all()
    assert (sharp[1] > 0).all()


def test_fill_space_against_its_definition() -> None:
    """Label and membrane from the scores of densely sampled links, without any pruning."""
    begin, shape, voxel = np.array([3, -5, 2]), np.array([9, 10, 11]), np.array([30.0, 20.0, 10.0])
    low, high = begin * voxel, (begin + shape) * voxel
    skeletons = skeletons_near(5, low - REACH, high + REACH)
    names, index = np.unique(skeletons.neurite, return_inverse=True)
    still = np.zeros((3, *shape), np.float32)
    cells = fill_space(skeletons, index, begin, shape, voxel, 1.0, still)

    last = np.flatnonzero(skeletons.before >= 0)
    first = skeletons.before[last]
    short = np.linalg.norm(skeletons.position[last] - skeletons.position[first], axis=1) <= LINK_MAX
    last, first = last[short], first[short]
    s = np.linspace(0, 1, 41)[:, None, None]
    points = (skeletons.position[first] * (1 - s) + skeletons.position[last] * s).reshape(-1, 3)
    radii = (skeletons.radius[first] * (1 - s[..., 0]) + skeletons.radius[last] * s[..., 0]).ravel()
    owner = np.tile(index[last], len(s))
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    agree, gaps = 0, []
    for at in grid[::7]:
        place = (begin + at + 0.5) * voxel
        score = np.linalg.norm(points - place, axis=1) - radii
        best = owner[score.argmin()]
        gap = score[owner != best].min() - score.min()
        found = cells.neurite[tuple(at)]
        agree += int(found == best)
        if found == best:
            # |difference of two unit gradients| is at most 2, and at least 0.35 by definition
            gaps.append(0.5 * gap - 1.0 <= cells.membrane[tuple(at)] <= gap / 0.35 + 3.0)
        else:
            assert gap < 1.0  # a tie within the sampling
    assert agree >= 0.99 * len(grid[::7])
    assert all(gaps)
    assert len(names) > 3


def test_neurites_are_in_one_piece(em: Block) -> None:
    """Only pieces that touch no face are surely torn: the others may join outside."""
    labels = em[1]
    pieces = cc3d.connected_components(np.unique(labels, return_inverse=True)[1].reshape(labels.shape) + 1)
    boxes = cc3d.statistics(pieces)["bounding_boxes"]
    counts = np.bincount(pieces.ravel())
    name_of = np.zeros(len(counts), np.uint64)
    name_of[pieces.ravel()] = labels.ravel()
    largest: dict[int, int] = {}
    for piece in range(1, len(counts)):
        largest[int(name_of[piece])] = max(largest.get(int(name_of[piece]), 0), int(counts[piece]))
    torn = sum(
        int(counts[piece])
        for piece in range(1, len(counts))
        if all(s.start > 0 and s.stop < n for s, n in zip(boxes[piece], labels.shape, strict=True))
        and counts[piece] < largest[int(name_of[piece])]
    )
    assert torn / labels.size < 0.01
    assert len(largest) > 100


def test_neurites_are_long_and_thin_with_a_few_thick(em: Block) -> None:
    labels, voxel = em[1], 16.0
    names, index = np.unique(labels, return_inverse=True)
    index = index.reshape(labels.shape)
    counts = np.bincount(index.ravel())
    radius = np.zeros(len(names))
    import edt

    distance = edt.edt((index + 1).astype(np.uint32), anisotropy=(voxel,) * 3, black_border=False)
    np.maximum.at(radius, index.ravel(), distance.ravel())
    big = counts >= 1000
    # greatest inscribed diameter: mostly 100 to 400 nm, some above 500
    assert 100 < np.median(2 * radius[big]) < 400
    assert (2 * radius[big] > 500).sum() >= 2
    assert (2 * radius[big] < 300).mean() > 0.5
    # long: the box round a neurite is several times its own inscribed diameter
    extent = np.array(
        [
            max(s.stop - s.start for s in box) * voxel
            for box in cc3d.statistics((index + 1).astype(np.uint32))["bounding_boxes"][1:]
        ]
    )
    assert np.median(extent[big] / (2 * radius[big])) > 3.5
    # as much border as real neuropil has: 0.042 of the faces at 8 nm
    for axis in range(3):
        assert 0.030 < (np.diff(index, axis=axis) != 0).mean() * 8 / voxel < 0.055


def test_membranes_are_dark_in_em_and_bright_in_exm(sharp: Block) -> None:
    raw, labels = sharp
    stained, _ = make_block(SampleParameters(look="exm"), (0, 0, 0), (96, 96, 96))
    border = np.zeros(labels.shape, bool)
    border[:, :, 1:] |= labels[:, :, 1:] != labels[:, :, :-1]
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    assert raw[border].mean() < raw[~border].mean() - 35
    assert stained[border].mean() > stained[~border].mean() + 25
    # the truth fits to the voxel: moved by two voxels, it fits less
    for axis in range(3):
        for by in (-2, 2):
            assert raw[border].mean() < raw[np.roll(border, by, axis)].mean() - 3


def test_grey_values_are_like_real_em(em: Block, real_data: Path) -> None:
    real = open_volume(real_data / "fib25-val.zarr", "volumes/raw").read()
    ours = make_block(SampleParameters(), (0, 0, 0), (128, 128, 128))[0]
    for percent in (5, 25, 50, 75, 95):
        assert abs(np.percentile(real, percent) - np.percentile(ours, percent)) < 25


def test_voxel_size_does_not_change_the_tissue() -> None:
    fine, coarse = SampleParameters(voxel_size=(8, 4, 4)), SampleParameters(voxel_size=(24, 12, 12))
    a = make_block(fine, (0, 0, 0), (24, 60, 60))[1]
    b = make_block(coarse, (0, 0, 0), (8, 20, 20))[1]
    assert np.array_equal(a[1::3, 1::3, 1::3], b)


def test_calibre_scales_the_tissue() -> None:
    a = make_block(SampleParameters(voxel_size=(8, 8, 8)), (0, 0, 0), (20, 20, 20))[1]
    b = make_block(SampleParameters(voxel_size=(16, 16, 16), calibre=400), (0, 0, 0), (20, 20, 20))[1]
    assert np.array_equal(a, b)


def test_photon_noise_is_poisson() -> None:
    """Variance over mean of flat grey is one photon, whatever the grey."""
    voxel = np.array([20.0, 20.0, 20.0])
    ratios = []
    for grey in (40.0, 160.0):
        flat = np.full(np.array([12, 60, 60]) + 2 * halo_of("exm", voxel), grey, np.float32)
        seen = develop("exm", 0, flat, np.zeros(3, np.int64), voxel).astype(float)
        seen -= seen.mean(axis=(1, 2), keepdims=True)
        ratios.append(seen.var() / grey * 70.0 / 255.0)
    assert ratios[0] == pytest.approx(1.0, abs=0.2)
    assert ratios[1] == pytest.approx(1.0, abs=0.2)


def test_field_noise_against_its_definition() -> None:
    begin, shape, voxel, spacing = np.array([-3, 5, 100]), np.array([4, 3, 5]), np.array([30.0, 8.0, 4.0]), 22.0
    key = key_of(1, 2)
    found = field_noise(key, begin, shape, voxel, spacing)
    for at in np.ndindex(*shape):
        t = (begin + at + 0.5) * voxel / spacing
        n = np.floor(t).astype(int)
        w = [spline_weights(float(f)) for f in t - n]
        value = sum(
            w[0][i]
            * w[1][j]
            * w[2][k]
            * (2 * uniform(np.uint64(hashed(key, n[0] + i - 1, n[1] + j - 1, n[2] + k - 1))) - 1)
            for i in range(4)
            for j in range(4)
            for k in range(4)
        )
        assert found[at] == pytest.approx(value, abs=1e-5)


def test_random_numbers_are_uniform_gaussian_and_uncorrelated() -> None:
    bits = [hashed(np.uint64(9), z, y, 0) for z in range(-50, 50) for y in range(-50, 50)]
    u = np.array([uniform(np.uint64(b)) for b in bits])
    g = np.array([gauss(np.uint64(b)) for b in bits])
    assert len(set(bits)) == len(bits)
    assert np.histogram(u, 10, (0, 1))[0] == pytest.approx(1000, abs=150)
    assert g.mean() == pytest.approx(0, abs=0.04)
    assert g.std() == pytest.approx(1, abs=0.03)
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.04


def test_blur_against_correlation() -> None:
    image = np.random.default_rng(0).random((9, 10, 11)).astype(np.float32)
    kernel = _kernel(0.8)
    assert kernel.sum() == pytest.approx(1.0, abs=1e-4)
    reach = len(kernel) // 2
    for axis in range(3):
        slow = np.apply_along_axis(lambda row: np.convolve(row, kernel, mode="valid"), axis, image)
        assert _blur(image, kernel, axis) == pytest.approx(slow, abs=1e-5)
        assert image.shape[axis] - slow.shape[axis] == 2 * reach


def test_radius_that_a_place_needs() -> None:
    """One straight neurite of radius 50; a place 30 nm beside its axis, and one far away."""
    position = np.array([[0.0, 0, 0], [0.0, 0, 100]])
    arguments = (position, np.array([50.0, 50.0]), np.array([1, 1], np.uint64), np.array([-1, 0]), 0, 240.0)
    points = np.array([[0.0, 30.0, 0.0], [0.0, 30.0, 0.0], [0.0, 100.0, 50.0]])
    needed = radii_needed(*arguments, points, np.array([2, 1, 2], np.uint64))
    assert needed[0] == pytest.approx(50.0)  # nearer than the clearance of 36: as wide as the other
    assert needed[1] == 0.0  # its own neurite asks for nothing
    assert needed[2] == 0.0
    clear = radii_needed(*arguments, np.array([[0.0, 60.0, 0.0]]), np.array([2], np.uint64))
    assert clear[0] == pytest.approx(50.0 - 60.0 + 36.0)


def test_write_sample(tmp_path: Path) -> None:
    parameters = SampleParameters(seed=2, voxel_size=(16, 8, 8))
    path, seen = tmp_path / "sample.zarr", []
    write_sample(path, parameters, (20, 40, 30), (5, -6, 7), block=32, progress=lambda *n: seen.append(n))
    raw, labels = make_block(parameters, (5, -6, 7), (20, 40, 30))
    written = open_volume(path, "volumes/raw")
    assert np.array_equal(written.read(), raw)
    assert np.array_equal(open_volume(path, "volumes/labels/neuron_ids").read(), labels)
    assert (open_volume(path, "volumes/labels/mask").read() == 1).all()
    assert written.voxel_size == (16, 8, 8)
    assert written.offset == (80, -48, 56)
    assert seen[-1] == (math.prod((20, 40, 30)),) * 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sample.zarr"]
    with pytest.raises(UserError, match="exists already"):
        write_sample(path, parameters, (8, 8, 8))


def test_write_sample_leaves_nothing_when_stopped(tmp_path: Path) -> None:
    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sample(tmp_path / "sample.zarr", SampleParameters(), (8, 8, 8), progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [{"look": "tem"}, {"voxel_size": (8, 0, 8)}, {"voxel_size": (8, 8)}, {"calibre": 1.0}, {"seed": -1}],
)
def test_wrong_parameters_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match="Sample"):
        SampleParameters(**wrong)  # type: ignore[arg-type]
