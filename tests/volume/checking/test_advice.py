"""Advice follows the data: voxel size, thickness of neurites, number of labelled voxels."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.volume.tissue import NAMES, tissue, write

from neuroloom.errors import UserError
from neuroloom.project import load_project
from neuroloom.project.template import render
from neuroloom.volume import open_volume, regions
from neuroloom.volume.checking.advice import (
    advise,
    common_voxel_size,
    count_labelled,
    describe_volumes,
)
from neuroloom.volume.checking.thickness import SIGMA_PER_DIAMETER, local_diameters


def test_sigma_grows_with_the_neurites(tmp_path: Path) -> None:
    found = []
    for cells in (400, 20):
        path = write(tmp_path / f"{cells}.zarr", *tissue(cells=cells))
        advice = advise([path])
        diameters = local_diameters(tissue(cells=cells)[1], (8, 8, 8))
        assert advice.sigma_nm == max(30, round(SIGMA_PER_DIAMETER * float(np.median(diameters)), -1))
        assert f"{np.median(diameters):.0f} nm" in advice.because
        found.append(advice.sigma_nm)
    assert found[0] < found[1]


def test_weights_are_labelled_voxels(tmp_path: Path) -> None:
    raw, labels = tissue()
    mask = np.zeros(raw.shape, np.uint8)
    mask[:12] = 1
    half = labels.copy()
    half[:, :32] = 0
    paths = [write(tmp_path / "a.zarr", raw, labels), write(tmp_path / "b.zarr", raw, half, mask)]
    advice = advise(paths)
    assert advice.labelled == (raw.size, raw.size // 8)
    assert advice.weights == (0.8889, 0.1111)


def test_counts_of_large_volumes_are_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = tissue()[1]
    labels[:, ::2] = 0
    path = write(tmp_path / "a.zarr", None, labels)
    exact = count_labelled(open_volume(path, NAMES["labels"]), None)
    assert exact == np.count_nonzero(labels)
    monkeypatch.setattr(regions, "WHOLE", 20_000)
    monkeypatch.setattr(regions, "SAMPLE", 12)
    estimate = count_labelled(open_volume(path, NAMES["labels"]), None)
    assert abs(estimate - exact) < 0.1 * exact


def test_voxel_sizes_must_agree(tmp_path: Path) -> None:
    raw = tissue()[0]
    paths = [write(tmp_path / "a.zarr", raw), write(tmp_path / "b.zarr", raw, voxel_size=(8, 8, 10))]
    assert common_voxel_size(paths[:1]) == (8, 8, 8)
    with pytest.raises(UserError, match=r"b.zarr has voxels of 8 x 8 x 10 nm, but .*a.zarr of 8 x 8 x 8"):
        common_voxel_size(paths)


def test_volumes_without_labels_are_refused(tmp_path: Path) -> None:
    raw, labels = tissue()
    with pytest.raises(UserError, match="holds no dataset 'volumes/labels/neuron_ids'"):
        advise([write(tmp_path / "a.zarr", raw)])
    with pytest.raises(UserError, match="no labelled voxel inside its mask"):
        advise([write(tmp_path / "b.zarr", raw, labels, np.zeros(raw.shape, np.uint8))])


def test_datasets_of_other_names_go_into_the_project_file(tmp_path: Path) -> None:
    raw, labels = tissue()
    for name, size in (("a", 8.0), ("b", 8.0)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            for dataset, data in (("em", raw), ("truth", labels), ("where", np.ones(raw.shape, np.uint8))):
                file.create_dataset(dataset, data=data).attrs["resolution"] = [size] * 3
    names = {"raw": "em", "labels": "truth", "mask": "where"}
    values = describe_volumes([tmp_path / "a.h5"], [], [tmp_path / "b.h5"], tmp_path, names)
    train, predict = values["volumes"]["train"][0], values["volumes"]["predict"][0]
    assert train == {"name": "a", "path": "a.h5", "weight": 1.0, **names}
    assert predict == {"name": "b", "path": "b.h5", "raw": "em"}


def test_a_project_file_is_filled_in(tmp_path: Path) -> None:
    raw, labels = tissue()
    (tmp_path / "x").mkdir()
    train = write(tmp_path / "data 1.zarr", raw, labels, np.ones(raw.shape, np.uint8))
    validate = write(tmp_path / "val.zarr", raw, labels)
    predict = write(tmp_path / "x" / "val.zarr", raw)
    values = describe_volumes([train], [validate], [predict], tmp_path / "project")
    assert len(values.pop("_why")) == 3
    assert values["volumes"]["predict"] == [{"name": "val-2", "path": "../x/val.zarr"}]
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "neuroloom.toml").write_text(render(values))
    project = load_project(tmp_path / "project")
    assert project.parameters.voxel_size == (8.0, 8.0, 8.0)
    assert project.parameters.training.sigma_nm == advise([train]).sigma_nm
    volume = project.parameters.volumes.train[0]
    assert (volume.name, volume.weight, volume.mask) == ("data-1", 1.0, NAMES["mask"])
    assert Path(project.locate(volume.path)) == train
    assert project.parameters.volumes.validate_[0].mask is None


@pytest.mark.real_data
def test_the_published_sigma_is_suggested_for_its_tissue(real_data: Path) -> None:
    """80 nm was published for FIB-25; two annotations of it, of different quality, lead there."""
    for name in ("fib25-train", "fib25-val"):
        assert advise([real_data / f"{name}.zarr"]).sigma_nm == 80.0
