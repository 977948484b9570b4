"""What the data say about a project: voxel size, σ of the descriptors, how often to draw from each volume."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuroloom.errors import UserError
from neuroloom.volume.array import DATASETS, Nanometres, Volume, has_dataset, open_volume, same_voxel_size
from neuroloom.volume.checking.thickness import measure_thickness
from neuroloom.volume.regions import regions_of, slabs_of, stored_box
from neuroloom.volume.remote import is_url


@dataclass(frozen=True)
class Advice:
    """Settings that fit some labelled volumes.

    Attributes:
        voxel_size: nm, z y x, of all of them.
        sigma_nm: σ of the local shape descriptors.
        because: One sentence on why this σ.
        weights: How often to draw a crop from each volume, in the order given; their sum is 1.
        labelled: Voxels with a label inside the mask, of each volume.
    """

    voxel_size: Nanometres
    sigma_nm: float
    because: str
    weights: tuple[float, ...]
    labelled: tuple[int, ...]


def advise(
    paths: Sequence[str | Path],
    *,
    raw: str = DATASETS["raw"],
    labels: str = DATASETS["labels"],
    mask: str | None = DATASETS["mask"],
) -> Advice:
    """Look at labelled volumes and suggest a project's settings.

    Args:
        paths: Containers to train on.
        raw: Name of the image in each.
        labels: Name of the labels in each.
        mask: Name of the mask; where a container has none, labels count everywhere.

    Raises:
        UserError: A dataset is missing or damaged, voxel sizes differ, or there are no labels.
    """
    voxel_size = common_voxel_size(paths, raw)
    opened = [
        (
            open_volume(path, labels),
            open_volume(path, mask) if mask is not None and has_dataset(path, mask) else None,
        )
        for path in paths
    ]
    labelled = tuple(count_labelled(truth, inside) for truth, inside in opened)
    for path, count in zip(paths, labelled, strict=True):
        if count == 0:
            raise UserError(f"{path} has no labelled voxel inside its mask; look at it with `neuroloom check {path}`.")
    total = sum(labelled)
    weights = tuple(max(0.0001, round(count / total, 4)) for count in labelled)
    thickness = measure_thickness(opened, voxel_size)
    if thickness is None:
        raise UserError(
            "No labelled neurite is thick enough to be measured, with its border in sight, so that no σ can be "
            "suggested. Look at the volumes with `neuroloom check`."
        )
    because = f"{thickness}; the window must see more than the local cross-section"
    return Advice(voxel_size, thickness.sigma(voxel_size), because, weights, labelled)


def describe_volumes(
    train: Sequence[str | Path],
    validate: Sequence[str | Path],
    predict: Sequence[str | Path],
    folder: str | Path,
    datasets: Mapping[str, str] = DATASETS,
    resample: bool = False,
) -> dict[str, Any]:
    """The parts of a project file that the data decide.

    Args:
        train: Labelled containers to train on.
        validate: Labelled containers to score on.
        predict: Containers to segment.
        folder: The project's folder; paths are written as seen from there.
        datasets: Names of "raw", "labels" and "mask" in each.
        resample: Whether those to segment may have voxels of their own.

    Returns:
        Values as they nest in the project file: `voxel_size`, `volumes`, with volumes to train on their weights and
        `training.sigma_nm`, and `prediction.resample` where it is needed; under "_why", sentences on how they were
        found.

    Raises:
        UserError: A dataset is missing or damaged, voxel sizes differ, or there are no labels.
    """
    groups = {"train": train, "validate": validate, "predict": predict}
    raw, labels, mask = (datasets[key] for key in ("raw", "labels", "mask"))
    alike = [*train, *validate] or list(predict[:1]) if resample else [*train, *validate, *predict]
    voxel_size = common_voxel_size(alike, raw)
    volumes: dict[str, list[dict[str, Any]]] = {}
    names: set[str] = set()
    for kind, paths in groups.items():
        for path in paths:
            entry: dict[str, Any] = {"name": _name(Path(path), names), "path": seen_from(folder, path)}
            if raw != DATASETS["raw"]:
                entry["raw"] = raw
            if kind != "predict":
                open_volume(path, labels)  # a missing one is told now
                if labels != DATASETS["labels"]:
                    entry["labels"] = labels
                if has_dataset(path, mask):
                    entry["mask"] = mask
            volumes.setdefault(kind, []).append(entry)
    values: dict[str, Any] = {"voxel_size": list(voxel_size), "volumes": volumes}
    why = [f"voxel size {_text(voxel_size)} nm, as all volumes say"]
    if any(not same_voxel_size(open_volume(path, raw).voxel_size, voxel_size) for path in predict):
        values["prediction"] = {"resample": True}
        why = [f"voxel size {_text(voxel_size)} nm; volumes to segment that have another one are resampled"]
    if train:
        advice = advise(train, raw=raw, labels=labels, mask=mask)
        values["training"] = {"sigma_nm": advice.sigma_nm}
        why.append(f"sigma_nm {advice.sigma_nm:g}: {advice.because}")
        for entry, weight, count in zip(volumes["train"], advice.weights, advice.labelled, strict=True):
            entry["weight"] = weight
            why.append(f"weight {weight:g} for {entry['name']}: {count} labelled voxels")
    return {**values, "_why": why}


def _name(path: Path, taken: set[str]) -> str:
    """A name for a volume's results, from its path, unlike all others."""
    stem = re.sub(r"\.(zarr|n5|h5|hdf|hdf5)$", "", path.resolve().name)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-") or "volume"
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    taken.add(name)
    return name


def seen_from(folder: str | Path, path: str | Path) -> str:
    """A path relative to a folder, or as it is where the two share nothing but the root; URLs as they are."""
    if is_url(path):
        return str(path)
    base, target = Path(folder).resolve(), Path(path).resolve()
    if len(Path(os.path.commonpath([base, target])).parts) < 2:
        return str(target)
    return Path(os.path.relpath(target, base)).as_posix()


def common_voxel_size(paths: Sequence[str | Path], raw: str = DATASETS["raw"]) -> Nanometres:
    """The voxel size that all volumes have, in nm, z y x.

    Raises:
        UserError: They differ, or a dataset is missing.
    """
    sizes = [open_volume(path, raw).voxel_size for path in paths]
    for path, size in zip(paths, sizes, strict=True):
        if not np.allclose(size, sizes[0], rtol=1e-3):
            raise UserError(
                f"{path} has voxels of {_text(size)} nm, but {paths[0]} of {_text(sizes[0])} nm (z, y, x). One network "
                "sees one voxel size: make two projects, or, if it is only to be segmented, add --resample."
            )
    return sizes[0]


def count_labelled(labels: Volume, mask: Volume | None) -> int:
    """Voxels that have a label and lie inside the mask; estimated from regions where a volume is too large to read.

    Args:
        labels: `(z, y, x)` ids.
        mask: `(z, y, x)`, not 0 where labels may be used; None for everywhere.

    Raises:
        UserError: A chunk is damaged, or the mask has another shape.
    """
    if mask is not None and mask.shape != labels.shape:
        raise UserError(
            f"{mask.location} has shape {mask.shape}, {labels.location} {labels.shape}; they must be equal."
        )
    box = stored_box(mask or labels)
    count = seen = 0
    for region in regions_of(box):
        for begin, shape in slabs_of(region, labels.array.chunks[-3]):
            inside = labels.read(begin, shape) != 0
            if mask is not None:
                inside &= mask.read(begin, shape) != 0
            count += int(np.count_nonzero(inside))
            seen += inside.size
    return round(count * (math.prod(box[1]) / seen))


def _text(values: Sequence[float]) -> str:
    return " x ".join(f"{v:g}" for v in values)
