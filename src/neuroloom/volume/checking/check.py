"""The doctor: is a volume fit to be trained on, scored on or segmented?

    check_volumes -> for each volume: layout -> raw -> labels and mask -> alignment      } findings
                  -> for each pair of training and validation volumes: shared content    }

Each finding says what was found, why it matters and what to do. Nothing is changed. Volumes of more than 2**28 voxels
are sampled, and the findings say so; labelled blocks within them are found by the chunks that were written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from neuroloom.errors import UserError
from neuroloom.volume.array import DATASETS
from neuroloom.volume.checking.borders import check_alignment, cubes
from neuroloom.volume.checking.findings import Finding
from neuroloom.volume.checking.labels import check_labels
from neuroloom.volume.checking.layout import open_patient
from neuroloom.volume.checking.pairs import check_pairs
from neuroloom.volume.checking.patient import Patient
from neuroloom.volume.checking.raw import check_raw
from neuroloom.volume.regions import regions_of
from neuroloom.volume.remote import is_url

Progress = Callable[[int, int], None]


def check_volumes(
    volumes: Sequence[str | Path] = (),
    *,
    train: Sequence[str | Path] = (),
    validate: Sequence[str | Path] = (),
    raw: str = DATASETS["raw"],
    labels: str = DATASETS["labels"],
    mask: str = DATASETS["mask"],
    progress: Progress | None = None,
) -> list[Finding]:
    """Look at volumes and say what is right and wrong with them.

    Args:
        volumes: zarr containers; those without labels are taken as volumes to segment.
        train: Containers to train on; they must have labels.
        validate: Containers to score on; they must have labels and share nothing with `train`.
        raw: Name of the image in each.
        labels: Name of the labels in each.
        mask: Name of the mask in each.
        progress: Called with (voxels looked at, voxels to look at).

    Returns:
        The findings, volume by volume, then those about pairs.
    """
    paths = list(dict.fromkeys(_place(p) for p in (*volumes, *train, *validate)))
    needed = {_place(p) for p in (*train, *validate)}
    patients = {path: open_patient(path, raw, labels, mask, path in needed) for path in paths}
    work = sum(_effort(patient) for patient in patients.values())
    done = 0

    def advance(voxels: int) -> None:
        nonlocal done
        done += voxels
        if progress is not None:
            progress(min(done, work), work)

    for patient in patients.values():
        for look in (check_raw, check_labels, check_alignment):
            try:
                look(patient, advance)
            except UserError as error:
                patient.say(
                    "error",
                    "readable",
                    str(error),
                    "A damaged chunk stops training, or turns into noise in the result.",
                    "Copy the volume again from its source, or import it again.",
                )
    pairs = check_pairs(
        [patients[_place(p)] for p in dict.fromkeys(train)],
        [patients[_place(p)] for p in dict.fromkeys(validate)],
        patients,
    )
    if progress is not None:
        progress(work, work)
    return [finding for patient in patients.values() for finding in patient.findings] + pairs


def _place(path: str | Path) -> str:
    """A path or URL as text, the same for the same place."""
    return str(path) if is_url(path) else str(Path(path))


def _effort(patient: Patient) -> int:
    """Voxels that will be looked at."""
    voxels = 0
    if patient.raw is not None and patient.raw.channels is None:
        voxels += sum(math.prod(shape) for _, shape in regions_of(((0, 0, 0), patient.raw.shape)))
    if patient.labels is not None:
        box = patient.labelled_box
        voxels += sum(math.prod(shape) for _, shape in (*regions_of(box), *cubes(box)))
    return voxels
