"""The doctor finds what is wrong, says so in its own words, and leaves good volumes alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorstore
from tests.volume.tissue import NAMES, tissue, write

from http_folder import served
from neuroloom.volume import open_volume, regions
from neuroloom.volume.checking import check_volumes
from neuroloom.volume.checking.findings import Finding, exit_code
from other_formats import edit_json

RAW, LABELS = tissue()


def findings_of(findings: list[Finding], check: str, severity: str | None = None) -> list[Finding]:
    return [f for f in findings if f.check == check and severity in (None, f.severity)]


def one(findings: list[Finding], check: str, severity: str) -> Finding:
    """The only finding of this kind; nothing else is worse than ok."""
    found = findings_of(findings, check, severity)
    assert len(found) == 1, [(f.severity, f.check, f.what) for f in findings]
    assert found[0].why
    assert found[0].remedy
    return found[0]


def bad(findings: list[Finding]) -> list[str]:
    return [f"{f.check}: {f.what}" for f in findings if f.severity != "ok"]


def test_a_good_volume_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", RAW, LABELS, np.ones(RAW.shape, np.uint8))
    calls: list[tuple[int, int]] = []
    findings = check_volumes([path], progress=lambda done, total: calls.append((done, total)))
    assert bad(findings) == []
    assert exit_code(findings) == 0
    assert {f.check for f in findings} == {
        "shape",
        "range",
        "sections",
        "mask",
        "labels",
        "largest label",
        "thickness",
        "tiny labels",
        "pieces",
        "alignment",
    }
    assert calls[-1][0] == calls[-1][1] == calls[0][1] > RAW.size
    assert [c[0] for c in calls] == sorted(c[0] for c in calls)


def test_a_volume_to_segment_needs_no_labels_but_one_to_train_on_does(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", RAW)
    assert exit_code(check_volumes([path])) == 0
    assert "holds no dataset" in one(check_volumes(train=[path]), "labels", "error").what


def test_missing_things_are_errors(tmp_path: Path) -> None:
    assert "does not exist" in one(check_volumes([tmp_path / "none.zarr"]), "raw", "error").what
    path = write(tmp_path / "a.zarr", None, LABELS)
    found = one(check_volumes([path]), "raw", "error")
    assert "holds no dataset 'volumes/raw'; it holds volumes/labels/neuron_ids" in found.what


@pytest.mark.parametrize("what", ["shape", "voxel size", "offset"])
def test_parts_that_do_not_fit_are_errors(tmp_path: Path, what: str) -> None:
    path = write(tmp_path / "a.zarr", RAW)
    if what == "shape":
        write(path, None, LABELS[:-1])
    elif what == "voxel size":
        write(path, None, LABELS, voxel_size=(8, 8, 4))
    else:
        write(path, None, LABELS, offset=(0, 8, 0))
    findings = check_volumes([path])
    assert what in one(findings, "shape", "error").what
    assert exit_code(findings) == 2


def test_units_that_are_not_nm_are_errors(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", RAW)
    open_volume(path, NAMES["raw"]).array.attrs["units"] = "um"
    assert "'um'" in one(check_volumes([path]), "units", "error").what
    path = write(tmp_path / "b.zarr", RAW, voxel_size=(0.008, 0.008, 0.008))
    assert "0.008" in one(check_volumes([path]), "units", "warning").what
    path = write(tmp_path / "c.zarr", RAW, voxel_size=(200, 4, 4))
    assert "50 times longer" in one(check_volumes([path]), "units", "warning").what


@pytest.mark.parametrize("dtype", ["uint16", "int8", "float64"])
def test_raw_of_a_wrong_type_is_an_error(tmp_path: Path, dtype: str) -> None:
    raw = (RAW / 255).astype(dtype) if dtype == "float64" else (RAW // 2).astype(dtype)
    found = one(check_volumes([write(tmp_path / "a.zarr", raw)]), "dtype", "error")
    assert found.what == f"raw is {dtype}"
    assert "--rescale" in found.remedy


def test_float_labels_are_an_error(tmp_path: Path) -> None:
    findings = check_volumes([write(tmp_path / "a.zarr", RAW, LABELS.astype(np.float32))])
    assert one(findings, "dtype", "error").what == "labels are float32"


def test_negative_labels_are_an_error(tmp_path: Path) -> None:
    labels = LABELS.astype(np.int64)
    labels[:3] = -1
    assert "-1" in one(check_volumes([write(tmp_path / "a.zarr", RAW, labels)]), "labels", "error").what


def test_nan_and_range_of_float_raw(tmp_path: Path) -> None:
    raw = (RAW / 255).astype(np.float32)
    assert bad(check_volumes([write(tmp_path / "a.zarr", raw, LABELS)])) == []
    raw[3, 4, 5] = np.nan
    assert "1 voxels that are NaN" in one(check_volumes([write(tmp_path / "b.zarr", raw, LABELS)]), "nan", "error").what
    raw[3, 4, 5] = 7
    assert "to 7" in one(check_volumes([write(tmp_path / "c.zarr", raw, LABELS)]), "range", "error").what


def test_empty_images_and_low_contrast(tmp_path: Path) -> None:
    flat = np.full(RAW.shape, 9, np.uint8)
    assert one(check_volumes([write(tmp_path / "a.zarr", flat)]), "range", "error").what == "raw is 9 everywhere"
    dull = (RAW // 16 + 100).astype(np.uint8)
    assert "of 255 grey values" in one(check_volumes([write(tmp_path / "b.zarr", dull)]), "range", "warning").what


def test_saturation_of_all(tmp_path: Path) -> None:
    harsh = np.clip((RAW.astype(int) - 160) * 8 + 128, 0, 255).astype(np.uint8)
    assert "black or white" in one(check_volumes([write(tmp_path / "a.zarr", harsh)]), "saturation", "warning").what


def test_blank_saturated_and_repeated_sections(tmp_path: Path) -> None:
    raw = RAW.copy()
    raw[[5, 6, 20]] = 0
    raw[30] = np.where(raw[30] > 150, 255, raw[30])
    raw[41] = raw[40]
    findings = findings_of(check_volumes([write(tmp_path / "a.zarr", raw)]), "sections", "warning")
    assert [f.numbers["sections"] for f in findings if f.numbers] == [[5, 6, 20], [30], [41]]
    assert "3 of 48 sections are blank: z = 5-6, 20" in findings[0].what


def test_an_all_zero_mask_is_an_error(tmp_path: Path) -> None:
    findings = check_volumes([write(tmp_path / "a.zarr", RAW, LABELS, np.zeros(RAW.shape, np.uint8))])
    assert "0 everywhere" in one(findings, "mask", "error").what
    assert exit_code(findings) == 2


def test_masks_and_what_they_cover(tmp_path: Path) -> None:
    mask = np.zeros(RAW.shape, np.uint8)
    mask[:24] = 255
    findings = check_volumes([write(tmp_path / "a.zarr", RAW, LABELS, mask)])
    assert "up to 255" in one(findings, "mask", "warning").what
    assert "covers 50.0%, 100.0% of that is labelled" in findings_of(findings, "mask", "ok")[0].what
    sparse = np.where(LABELS < 5, LABELS, np.uint64(0))
    findings = check_volumes([write(tmp_path / "b.zarr", RAW, sparse)])
    assert "is labelled" in one(findings, "mask", "warning").what
    assert 'unlabelled = "ignore"' in one(findings, "mask", "warning").remedy
    findings = check_volumes([write(tmp_path / "c.zarr", RAW, np.zeros_like(LABELS))])
    assert "labels are 0 everywhere" in one(findings, "labels", "error").what


def test_one_label_and_one_large_label(tmp_path: Path) -> None:
    findings = check_volumes([write(tmp_path / "a.zarr", RAW, np.full_like(LABELS, 7))])
    assert "one label only, 7" in one(findings, "labels", "error").what
    labels = np.where(LABELS <= 30, np.uint64(77), LABELS)
    findings = check_volumes([write(tmp_path / "b.zarr", RAW, labels)])
    found = one(findings, "largest label", "warning")
    assert "label 77 fills" in found.what
    assert "--background 77" in found.remedy


def test_specks_and_pieces(tmp_path: Path) -> None:
    labels = LABELS.copy()
    for i in range(8):
        labels[10 + i, 10 + 4 * i, 30] = 1000 + i
    found = one(check_volumes([write(tmp_path / "a.zarr", RAW, labels)]), "tiny labels", "warning")
    assert "8 of 48 labels are specks" in found.what
    # one id for two neurons, the second wholly inside
    ids, counts = np.unique(LABELS[1:-1, 1:-1, 1:-1], return_counts=True)
    rim = np.unique(np.concatenate([np.unique(np.take(LABELS, i, axis)) for axis in range(3) for i in (0, -1)]))
    inner = next(i for i in ids[np.argsort(-counts)] if i not in rim)
    far = next(i for i in rim if not np.any((i == LABELS) & near(inner == LABELS)))
    labels = np.where(inner == LABELS, far, LABELS)
    found = one(check_volumes([write(tmp_path / "b.zarr", RAW, labels)]), "pieces", "warning")
    assert "1 of 39 labels are in several unconnected pieces; 1 pieces" in found.what
    assert found.numbers is not None
    assert found.numbers["examples"] == [int(far)]
    # two neurons that leave the volume may join outside: no reason to warn
    other = next(i for i in rim if i != far and not np.any((i == LABELS) & near(far == LABELS)))
    labels = np.where(other == LABELS, far, LABELS)
    findings = check_volumes([write(tmp_path / "c.zarr", RAW, labels)])
    assert "may join outside" in findings_of(findings, "pieces", "ok")[0].what


def near(where: Any) -> Any:
    from scipy import ndimage

    return ndimage.binary_dilation(where, np.ones((3, 3, 3), bool))


@pytest.mark.parametrize("shift", [(3, 0, 0), (0, -3, 0), (0, 2, 3)])
def test_shifted_labels_are_an_error(tmp_path: Path, shift: tuple[int, int, int]) -> None:
    labels = np.roll(LABELS, shift, (0, 1, 2))
    found = one(check_volumes([write(tmp_path / "a.zarr", RAW, labels)]), "alignment", "error")
    assert found.numbers is not None
    assert found.numbers["shift"] == [-s for s in shift]
    assert f"moved by {','.join(f'{-s:g}' for s in shift)} voxels" in found.what
    assert f"moved by {','.join(f'{-8 * s:g}' for s in shift)} nm" in found.remedy


def test_a_shift_by_one_voxel_and_labels_of_another_tissue_are_warnings(tmp_path: Path) -> None:
    found = one(check_volumes([write(tmp_path / "a.zarr", RAW, np.roll(LABELS, 1, 1))]), "alignment", "warning")
    assert "0,-1,0" in found.what
    other = np.ascontiguousarray(LABELS[:, ::-1, ::-1])
    found = one(check_volumes([write(tmp_path / "b.zarr", RAW, other)]), "alignment", "warning")
    assert "do not show in raw" in found.what


def test_leaks_between_training_and_validation_are_errors(tmp_path: Path) -> None:
    train = write(tmp_path / "train.zarr", RAW, LABELS)
    good = write(tmp_path / "good.zarr", *tissue(seed=3))
    assert bad(check_volumes(train=[train], validate=[good])) == []
    assert (
        "for training and for validation" in one(check_volumes(train=[train], validate=[train]), "leak", "error").what
    )
    copy = write(tmp_path / "copy.zarr", RAW, LABELS, offset=(8000, 0, 0))
    assert "hold the same image" in one(check_volumes(train=[train], validate=[copy]), "leak", "error").what
    crop = tuple(slice(8, n) for n in RAW.shape)
    placed = write(tmp_path / "placed.zarr", RAW[crop], LABELS[crop], offset=(64, 64, 64))
    assert "(100%) are a part of" in one(check_volumes(train=[train], validate=[placed]), "leak", "error").what
    lost = write(tmp_path / "lost.zarr", RAW[crop], LABELS[crop])
    found = one(check_volumes(train=[train], validate=[lost]), "leak", "error")
    assert "0,0,0 is 8,8,8 there; their offsets do not say so" in found.what
    assert "hold the same image" in one(check_volumes([train, copy]), "duplicate", "warning").what


def test_voxel_sizes_of_training_and_validation_must_agree(tmp_path: Path) -> None:
    train = write(tmp_path / "train.zarr", RAW, LABELS)
    other = write(tmp_path / "other.zarr", *tissue(seed=3), voxel_size=(10, 10, 10))
    found = one(check_volumes(train=[train], validate=[other]), "voxel size", "error")
    assert "8 x 8 x 8 nm" in found.what
    assert "10 x 10 x 10 nm" in found.what


@pytest.mark.parametrize("part", ["raw", "labels", "mask"])
def test_a_truncated_chunk_is_an_error_and_the_rest_is_looked_at(tmp_path: Path, part: str) -> None:
    path = write(tmp_path / "a.zarr", RAW, LABELS, np.ones(RAW.shape, np.uint8))
    chunk = next(p for p in (path / NAMES[part] / "c").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-7])
    findings = check_volumes([path])
    errors = findings_of(findings, "readable", "error")
    assert errors
    assert all("truncated or damaged" in f.what and NAMES[part] in f.what for f in errors)
    assert findings_of(findings, "range" if part != "raw" else "labels", "ok")


def test_missing_chunks_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", tissue((48, 130, 64))[0])
    shutil.rmtree(path / NAMES["raw"] / "c" / "0" / "1")
    with served(tmp_path) as url:
        for place in (path, f"{url}/a.zarr"):
            found = one(check_volumes([place]), "chunks", "warning")
            assert found.what.startswith("1 of 3 chunks")
            assert found.what.endswith("(z,y,x) 0,64,0")
            assert found.numbers == {"chunks": [[0, 64, 0]]}


@pytest.mark.parametrize("form", ["h5", "n5"])
def test_other_formats_are_checked_where_they_lie(tmp_path: Path, form: str) -> None:
    labels_of = {"raw": RAW, "labels": LABELS}
    path = tmp_path / f"a.{form}"
    for name, data in labels_of.items():
        if form == "h5":
            with h5py.File(path, "a") as file:
                file.create_dataset(name, data=data).attrs.update(resolution=(0.008,) * 3, units="um")
        else:
            spec = {"driver": "n5", "kvstore": {"driver": "file", "path": str(path / name)}}
            metadata = {"dataType": data.dtype.name, "dimensions": data.shape[::-1], "compression": {"type": "raw"}}
            tensorstore.open(spec | {"metadata": metadata}, create=True).result()[...] = data.T
            edit_json(path / name / "attributes.json", resolution=(8, 8, 8))
    found = check_volumes([path], raw="raw", labels="labels", mask="mask")
    zarr = check_volumes([write(tmp_path / "a.zarr", RAW, LABELS)])
    assert [(f.severity, f.check, f.what) for f in found] == [(f.severity, f.check, f.what) for f in zarr]


def test_large_volumes_are_sampled_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "WHOLE", 20_000)
    monkeypatch.setattr(regions, "SAMPLE", 12)
    path = write(tmp_path / "a.zarr", RAW, LABELS)
    findings = check_volumes([path])
    assert bad(findings) == []
    assert "27 regions of 12 x 12 x 12 voxels were looked at" in findings_of(findings, "sample")[0].what
    assert "(in 27 regions of" in findings_of(findings, "labels")[0].what


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["gala-a", "gala-b", "cremi-b-thin", "fib25-val"])
def test_real_volumes_are_well(real_data: Path, name: str) -> None:
    findings = check_volumes([real_data / f"{name}.zarr"])
    assert bad(findings) == []
    alignment = findings_of(findings, "alignment")[0].numbers
    assert alignment is not None
    assert alignment["shift"] == [0, 0, 0]
    assert alignment["correlation"] > 0.3


@pytest.mark.real_data
def test_the_rough_labels_of_a_real_volume_are_told(real_data: Path) -> None:
    """fib25-train has thousands of tiny ids and ids in several pieces; nothing of fib25-val is in it."""
    findings = check_volumes(train=[real_data / "fib25-train.zarr"], validate=[real_data / "fib25-val.zarr"])
    assert exit_code(findings) == 1
    specks = findings_of(findings, "tiny labels", "warning")[0]
    assert specks.numbers is not None
    assert 2000 < specks.numbers["count"] < 2700
    labels = findings_of(findings, "labels", "ok")[0].numbers
    assert labels is not None
    assert labels["labels_of_1000"] == 1056  # as the data's own description counts them
    assert findings_of(findings, "pieces", "warning")
    assert findings_of(findings, "leak", "ok")
    assert len(bad(findings)) == 2


@pytest.mark.real_data
def test_a_shifted_copy_of_a_real_volume_is_told(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "fib25-val.zarr"
    raw = open_volume(source, NAMES["raw"]).read((0, 0, 0), (120, 120, 120))
    labels = open_volume(source, NAMES["labels"]).read((0, 3, 0), (120, 120, 120))
    found = one(check_volumes([write(tmp_path / "a.zarr", raw, labels)]), "alignment", "error")
    assert found.numbers is not None
    assert found.numbers["shift"] == [0, 3, 0]
