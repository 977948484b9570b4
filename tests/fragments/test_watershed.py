"""The chain from affinities to fragments against the reference's chain of scipy and mahotas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mahotas
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from neuroloom.errors import UserError
from neuroloom.fragments import fragments
from neuroloom.fragments.watershed import connected, expand_mask, watershed


def noise(shape: tuple[int, int, int] = (24, 50, 60), seed: int = 0) -> NDArray[np.uint8]:
    """Affinities that are high in blobs of some ten voxels."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((3, *shape)), (0, 2, 2, 2))
    return np.clip(127.5 * (1.4 + field / field.std()), 0, 255).astype(np.uint8)


def reference(inside: NDArray[np.bool_], min_seed_distance: int) -> NDArray[Any]:
    """The published chain, on two or three axes."""
    distance = ndimage.distance_transform_edt(inside)
    seeds, _ = ndimage.label(ndimage.maximum_filter(distance, min_seed_distance) == distance)
    return mahotas.cwatershed(distance.max() - distance, seeds)


def same_partition(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two labellings differ in names only."""
    pairs = np.unique(np.stack([a.reshape(-1), b.reshape(-1)]), axis=1)
    return len(np.unique(pairs[0])) == pairs.shape[1] == len(np.unique(pairs[1]))


@pytest.mark.parametrize("min_seed_distance", [5, 10])
def test_watershed_is_the_reference_voxel_by_voxel(min_seed_distance: int) -> None:
    inside = noise().mean(axis=0) > 127.5
    labels = watershed(inside, min_seed_distance)
    assert labels.max() > 20
    np.testing.assert_array_equal(labels, reference(inside, min_seed_distance))


def test_fragments_are_the_reference_s() -> None:
    affinities = noise(seed=1)
    labels = fragments(affinities)
    assert same_partition(labels, reference(affinities.mean(axis=0) > 127.5, 10))
    assert labels.dtype == np.uint32
    assert np.array_equal(np.unique(labels), np.arange(1, labels.max() + 1))


def test_sections_are_the_reference_s_and_never_share_a_fragment() -> None:
    affinities = noise(seed=2)
    labels = fragments(affinities, in_xy=True)
    for z, section in enumerate(labels):
        assert same_partition(section, reference(0.5 * (affinities[1, z].astype(float) + affinities[2, z]) > 127.5, 10))
    assert sum(len(np.unique(section)) for section in labels) == labels.max()


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 999),
    fill=st.booleans(),
    in_xy=st.booleans(),
    filter_fragments=st.sampled_from([0.0, 0.6]),
    epsilon=st.sampled_from([0.0, 0.5]),
)
def test_fragments_hang_together_and_are_numbered_without_gaps(
    seed: int, fill: bool, in_xy: bool, filter_fragments: float, epsilon: float
) -> None:
    affinities = noise((8, 20, 20), seed)
    mask = np.random.default_rng(seed).random((4, 5, 10)) > 0.3
    labels = fragments(
        affinities,
        fill=fill,
        in_xy=in_xy,
        mask=mask,
        filter_fragments=filter_fragments,
        epsilon_agglomerate=epsilon,
        replace_sections=(3,),
    )
    present = np.unique(labels[labels > 0])
    assert np.array_equal(present, np.arange(1, len(present) + 1))
    assert all(ndimage.label(labels == i)[1] == 1 for i in present)
    assert not labels[~expand_mask(mask, labels.shape)].any()
    assert not labels[3].any()


def test_without_fill_only_the_inside_is_labelled() -> None:
    affinities = noise(seed=5)
    assert np.array_equal(fragments(affinities, fill=False) > 0, affinities.mean(axis=0) > 127.5)
    assert fragments(affinities).all()


def test_low_fragments_are_dropped() -> None:
    affinities = noise(seed=6)
    every, kept = fragments(affinities), fragments(affinities, filter_fragments=0.65)
    mean = ndimage.mean(affinities.mean(axis=0) / 255, every, np.arange(1, every.max() + 1))
    assert 0 < (mean < 0.65).sum() < len(mean)
    assert np.array_equal(kept > 0, (mean >= 0.65)[every.astype(np.int64) - 1])


def test_merging_at_once_makes_fewer_fragments_that_hold_the_others() -> None:
    affinities = noise(seed=7)
    every, merged = fragments(affinities), fragments(affinities, epsilon_agglomerate=0.4)
    assert 1 < merged.max() < every.max()
    assert np.unique(np.stack([every.reshape(-1), merged.reshape(-1)]), axis=1).shape[1] == every.max()


def test_volume_without_membranes_is_one_fragment_and_an_empty_one_fits() -> None:
    assert np.array_equal(fragments(np.full((3, 4, 5, 6), 255, np.uint8)), np.ones((4, 5, 6)))
    assert fragments(np.zeros((3, 4, 5, 6), np.uint8), fill=False).max() == 0
    assert fragments(np.zeros((3, 0, 5, 6), np.uint8)).shape == (0, 5, 6)


def test_pieces_are_numbered_in_z_major_order() -> None:
    assert connected(np.array([[[9, 9, 0, 4, 9]]])).tolist() == [[[1, 1, 0, 2, 3]]]


def test_a_mask_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match=r"mask of \(3, 5, 6\)"):
        fragments(np.zeros((3, 4, 5, 6), np.uint8), mask=np.ones((3, 5, 6)))


@pytest.mark.real_data
def test_fragments_of_ideal_affinities_of_real_tissue_stay_within_neurites(real_data: Path) -> None:
    import zarr

    truth: Any = zarr.open(str(real_data / "fib25-val.zarr"), path="volumes/labels/neuron_ids", mode="r")
    ids = np.asarray(truth[50:114, 50:150, 50:150])
    affinities = np.zeros((3, *ids.shape), dtype=np.uint8)
    for axis in range(3):
        same = np.diff(ids.astype(np.int64), axis=axis) == 0
        inner = [slice(None)] * 3
        inner[axis] = slice(1, None)
        affinities[axis][tuple(inner)] = 255 * same
    labels = fragments(affinities, fill=False).reshape(-1)
    pairs, counts = np.unique(np.stack([labels, ids.reshape(-1)]), axis=1, return_counts=True)
    best = np.zeros(int(labels.max()) + 1, dtype=np.int64)
    np.maximum.at(best, pairs[0].astype(np.int64), counts)
    assert best[1:].sum() / (labels > 0).sum() > 0.95
