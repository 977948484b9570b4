"""Thickness is measured where it is known, and proposes σ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.volume.tissue import NAMES, tissue, write

from neuroloom.volume import open_volume
from neuroloom.volume.checking import check_volumes
from neuroloom.volume.checking.advice import advise
from neuroloom.volume.checking.thickness import Thickness, local_diameters, measure_thickness


@pytest.mark.parametrize("voxel_size", [(8.0, 8.0, 8.0), (10.0, 5.0, 8.0)])
@pytest.mark.parametrize("radius", [60.0, 120.0])
def test_the_diameter_of_a_cylinder(voxel_size: tuple[float, float, float], radius: float) -> None:
    y, x = np.meshgrid(*[(np.arange(64) - 31.5) * v for v in voxel_size[1:]], indexing="ij")
    labels = np.broadcast_to(np.where(y**2 + x**2 < radius**2, 5, 0), (40, 64, 64)).astype(np.uint64)
    diameters = local_diameters(labels, voxel_size)
    assert len(diameters) >= 40
    assert abs(np.median(diameters) - 2 * radius) <= 2 * max(voxel_size)


def test_thick_sections_are_measured_one_by_one() -> None:
    labels = np.zeros((6, 64, 64), np.uint64)
    labels[:, 20:40] = 3  # a slab 20 voxels of 4 nm thick
    labels[3] = 0
    diameters = local_diameters(labels, (40, 4, 4))
    np.testing.assert_allclose(diameters, 80, atol=8)


def test_nothing_is_measured_outside_the_mask_or_without_a_border() -> None:
    labels = np.full((20, 20, 20), 4, np.uint64)
    assert len(local_diameters(labels, (8, 8, 8))) == 0
    labels = tissue((20, 40, 40))[1]
    assert len(local_diameters(labels, (8, 8, 8), np.zeros(labels.shape, np.uint8))) == 0


def test_sigma_is_never_below_three_voxels() -> None:
    assert Thickness(50, 66.3, 90).sigma((8, 8, 8)) == 80
    assert Thickness(20, 25, 30).sigma((8, 8, 8)) == 30
    assert Thickness(20, 25, 30).sigma((40, 32, 32)) == 100
    assert Thickness(0.2, 0.3, 0.4).sigma((0.1, 0.1, 0.1)) == 10


def test_nothing_to_measure(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", None, np.full((20, 20, 20), 4, np.uint64))
    assert measure_thickness([(open_volume(path, NAMES["labels"]), None)], (8, 8, 8)) is None


def test_check_proposes_the_sigma_of_a_new_project(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", *tissue())
    found = [f for f in check_volumes([path]) if f.check == "thickness"]
    assert len(found) == 1
    assert found[0].severity == "ok"
    assert found[0].numbers is not None
    advice = advise([path])
    assert found[0].numbers["sigma_nm"] == advice.sigma_nm
    assert f"sigma_nm = {advice.sigma_nm:g}" in found[0].what
    assert advice.because.partition(";")[0] in found[0].what
