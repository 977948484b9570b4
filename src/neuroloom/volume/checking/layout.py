"""Do raw, labels and mask exist, and do shapes, voxel sizes, units and element types fit?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuroloom.errors import UserError
from neuroloom.volume.array import Volume, has_dataset, open_volume
from neuroloom.volume.checking.patient import Patient, commas, times
from neuroloom.volume.remote import is_url
from neuroloom.volume.units import nanometres_per


def open_patient(path: str, raw: str, labels: str, mask: str, needs_labels: bool) -> Patient:
    """Open a volume's arrays and say whether they fit together.

    Args:
        path: The zarr container, a folder or a URL.
        raw: Name of the image in it.
        labels: Name of the labels.
        mask: Name of the mask.
        needs_labels: Whether missing labels are an error.
    """
    patient = Patient(path)
    try:
        patient.raw = open_volume(path, raw)
    except UserError as error:
        patient.say("error", "raw", str(error), "Without an image there is nothing to do.", "Check path and dataset.")
        if is_url(path) or not Path(path).exists():
            return patient
    for name, key in ((labels, "labels"), (mask, "mask")):
        if not has_dataset(path, name):
            if key == "labels" and needs_labels:
                patient.say(
                    "error",
                    "labels",
                    f"{path} holds no dataset {name!r}.",
                    "A volume to train or score on needs the true labels.",
                    "Import them with `neuroloom import --labels`, or name the dataset with --labels.",
                )
            elif key == "labels":
                patient.say("ok", "labels", "no labels: a volume to segment, not to train on")
            continue
        try:
            setattr(patient, key, open_volume(path, name))
        except UserError as error:
            patient.say("error", key, str(error), "It cannot be used as it is.", "Import it again.")
    if patient.labels is not None and patient.mask is None and not has_dataset(path, mask):
        patient.say("ok", "mask", "no mask: labels are used everywhere")
    _check_layout(patient)
    return patient


def _check_layout(patient: Patient) -> None:
    parts = {key: v for key, v in (("raw", patient.raw), ("labels", patient.labels), ("mask", patient.mask)) if v}
    for key, volume in parts.items():
        _check_units(patient, key, volume)
        if volume.channels is not None:
            patient.say(
                "error",
                "shape",
                f"{volume.location} has {volume.channels} channels",
                "Raw, labels and mask have axes z, y, x only.",
                "Import one channel as a volume of its own.",
            )
    first_key, first = next(iter(parts.items()), ("", None))
    if first is None:
        return
    fits = True
    for key, volume in list(parts.items())[1:]:
        differences = []
        if volume.shape != first.shape:
            differences.append(f"shape {times(volume.shape)} against {times(first.shape)} voxels")
        if not np.allclose(volume.voxel_size, first.voxel_size, rtol=1e-3):
            differences.append(f"voxel size {times(volume.voxel_size)} against {times(first.voxel_size)} nm")
        if not np.allclose(volume.offset, first.offset, atol=1e-3):
            differences.append(f"offset {commas(volume.offset)} against {commas(first.offset)} nm")
        if differences:
            fits = False
            patient.say(
                "error",
                "shape",
                f"{key} and {first_key} differ: {'; '.join(differences)}",
                "A voxel of one must be the same place as the voxel of the other with the same index.",
                "Import both together: smaller labels are put in their place by --label-offset.",
            )
    if fits:
        patient.say(
            "ok",
            "shape",
            f"{' and '.join(parts)}: {times(first.shape)} voxels of {times(first.voxel_size)} nm, "
            f"{times([s * v / 1000 for s, v in zip(first.shape, first.voxel_size, strict=True)], '.3g')} µm",
        )
    else:
        # what follows compares voxel by voxel
        patient.labels = patient.mask = None
    if patient.raw is not None and patient.raw.dtype not in (np.dtype(np.uint8), np.dtype(np.float32)):
        patient.say(
            "error",
            "dtype",
            f"raw is {patient.raw.dtype}",
            "Networks see uint8, or float32 in [0, 1]; any other range gives other results than in training.",
            "Import it again with --rescale.",
        )
    if patient.labels is not None and patient.labels.dtype.kind not in "iu":
        patient.say(
            "error",
            "dtype",
            f"labels are {patient.labels.dtype}",
            "Ids must be whole numbers: float32 mixes up ids above 16,777,216.",
            "Save them as integers and import them again.",
        )
        patient.labels = None
    if patient.mask is not None and patient.mask.dtype.kind not in "iub":
        patient.say(
            "error",
            "dtype",
            f"mask is {patient.mask.dtype}",
            "The mask must be 0 and 1.",
            "Save it as uint8 and import it again.",
        )
        patient.mask = None


def _check_units(patient: Patient, key: str, volume: Volume) -> None:
    given = dict(volume.array.attrs).get("units", "nm")
    units = [given] if isinstance(given, str) else list(given) if isinstance(given, list) else [str(given)]
    try:
        wrong = [unit for unit in units if nanometres_per(str(unit), volume.location) != 1.0]
    except UserError:
        wrong = units
    if wrong:
        patient.say(
            "error",
            "units",
            f"{key} gives its voxel size in {wrong[0]!r}",
            "`resolution` and `offset` are nm; σ, overlaps and views would be wrong by a large factor.",
            "Import it again: units are converted there.",
        )
    size = volume.voxel_size
    if key == "raw" and (min(size) < 0.5 or max(size) > 5000):
        patient.say(
            "warning",
            "units",
            f"voxels of {times(size)} nm are unlike any light or electron microscope's",
            "`resolution` is in nm; µm or Å may have been written there.",
            "Check it, and import again with --voxel-size Z,Y,X in nm.",
        )
    if key == "raw" and max(size) > 20 * min(size):
        patient.say(
            "warning",
            "units",
            f"voxels of {times(size)} nm are {max(size) / min(size):.0f} times longer in one direction",
            "Either the axes are not z, y, x, or neurites cannot be followed through the sections.",
            "Check the order of the axes (--axes of `neuroloom import`) and the voxel size.",
        )
