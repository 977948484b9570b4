"""The doctor: is a volume fit to be trained on, scored on or segmented?

    check_volumes -> for each volume: layout -> raw -> labels and mask -> alignment      } findings
                  -> for each pair of training and validation volumes: shared content    }

Each finding says what was found, why it matters and what to do. Nothing is changed. Volumes of more than 2**28 voxels
are sampled, and the findings say so; labelled blocks within them are found by the chunks that were written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.volume.alignment import REACH, VISIBLE, measure_alignment
from neuroloom.volume.array import Volume, has_dataset, open_volume
from neuroloom.volume.findings import Finding, Severity
from neuroloom.volume.label_statistics import Pieces, combine, measure_pieces
from neuroloom.volume.overlap import find_overlap
from neuroloom.volume.raw_statistics import RawStatistics, measure_raw
from neuroloom.volume.readers import DATASETS
from neuroloom.volume.regions import Box, regions_of, slabs_of, stored_box
from neuroloom.volume.remote import is_url
from neuroloom.volume.units import nanometres_per

Progress = Callable[[int, int], None]

TINY = 500  # voxels; smaller labels and pieces that are no neurite cut by the border are specks
_CUBE = 128  # voxels; regions in which alignment is measured
_CUBES = 6


@dataclass
class _Patient:
    """One volume while it is being looked at."""

    path: str
    raw: Volume | None = None
    labels: Volume | None = None
    mask: Volume | None = None
    content: str = ""
    findings: list[Finding] = field(default_factory=list)

    def say(self, severity: Severity, check: str, what: str, why: str = "", remedy: str = "", **numbers: Any) -> None:
        self.findings.append(Finding(severity, self.path, check, what, why, remedy, numbers or None))


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
    patients = {path: _open(path, raw, labels, mask, path in needed) for path in paths}
    work = sum(_effort(patient) for patient in patients.values())
    done = 0

    def advance(voxels: int) -> None:
        nonlocal done
        done += voxels
        if progress is not None:
            progress(min(done, work), work)

    for patient in patients.values():
        for look in (_check_raw, _check_labels, _check_alignment):
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
    pairs = _check_pairs(
        [patients[_place(p)] for p in dict.fromkeys(train)],
        [patients[_place(p)] for p in dict.fromkeys(validate)],
        patients,
    )
    if progress is not None:
        progress(work, work)
    return [finding for patient in patients.values() for finding in patient.findings] + pairs


# ---- layout


def _place(path: str | Path) -> str:
    """A path or URL as text, the same for the same place."""
    return str(path) if is_url(path) else str(Path(path))


def _open(path: str, raw: str, labels: str, mask: str, needs_labels: bool) -> _Patient:
    patient = _Patient(path)
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


def _check_layout(patient: _Patient) -> None:
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
            differences.append(f"shape {_times(volume.shape)} against {_times(first.shape)} voxels")
        if not np.allclose(volume.voxel_size, first.voxel_size, rtol=1e-3):
            differences.append(f"voxel size {_times(volume.voxel_size)} against {_times(first.voxel_size)} nm")
        if not np.allclose(volume.offset, first.offset, atol=1e-3):
            differences.append(f"offset {_commas(volume.offset)} against {_commas(first.offset)} nm")
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
            f"{' and '.join(parts)}: {_times(first.shape)} voxels of {_times(first.voxel_size)} nm, "
            f"{_times([s * v / 1000 for s, v in zip(first.shape, first.voxel_size, strict=True)], '.3g')} µm",
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


def _check_units(patient: _Patient, key: str, volume: Volume) -> None:
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
            f"voxels of {_times(size)} nm are unlike any light or electron microscope's",
            "`resolution` is in nm; µm or Å may have been written there.",
            "Check it, and import again with --voxel-size Z,Y,X in nm.",
        )
    if key == "raw" and max(size) > 20 * min(size):
        patient.say(
            "warning",
            "units",
            f"voxels of {_times(size)} nm are {max(size) / min(size):.0f} times longer in one direction",
            "Either the axes are not z, y, x, or neurites cannot be followed through the sections.",
            "Check the order of the axes (--axes of `neuroloom import`) and the voxel size.",
        )


# ---- raw


def _check_raw(patient: _Patient, advance: Callable[[int], None]) -> None:
    volume = patient.raw
    if volume is None or volume.channels is not None:
        return
    whole: Box = ((0, 0, 0), volume.shape)
    regions = regions_of(whole)
    if len(regions) > 1:
        share = sum(math.prod(shape) for _, shape in regions) / math.prod(volume.shape)
        patient.say(
            "ok",
            "sample",
            f"too large to read as a whole: {len(regions)} regions of {_times(regions[0][1])} voxels were looked at, "
            f"{share:.2g} of the volume; what lies between them was not",
        )

    def slabs() -> Iterator[tuple[int, NDArray[Any]]]:
        for region in regions:
            for begin, shape in slabs_of(region, volume.array.chunks[-3]):
                yield begin[0], volume.read(begin, shape)
                advance(math.prod(shape))

    found = measure_raw(slabs(), volume.shape)
    patient.content = f"{volume.dtype} {found.content}"
    _judge_range(patient, volume, found)
    _judge_sections(patient, found)
    # an HTTP server does not tell which files it has
    chunks = int(volume.array.nchunks)
    written = chunks if is_url(volume.location) else int(volume.array.nchunks_initialized)
    if written < chunks:
        patient.say(
            "warning",
            "chunks",
            f"{chunks - written} of {chunks} chunks of raw have no file and read as 0",
            "A copy that was interrupted looks like this; so does black padding.",
            "Copy or import the volume again if it should not be black there.",
        )


def _judge_range(patient: _Patient, volume: Volume, found: RawStatistics) -> None:
    if found.not_finite:
        patient.say(
            "error",
            "nan",
            f"raw holds {found.not_finite} voxels that are NaN or infinite",
            "One of them makes every weight of a network NaN within one step.",
            "Replace them, by 0 or by neighbouring sections, and import the volume again.",
        )
    if volume.dtype.kind == "f" and (found.minimum < 0 or found.maximum > 1):
        patient.say(
            "error",
            "range",
            f"raw holds values from {found.minimum:g} to {found.maximum:g}",
            "float raw must be in [0, 1]; a network sees values it was never trained on.",
            "Import it again with --rescale MIN,MAX or --rescale percentiles.",
        )
        return
    if found.minimum == found.maximum:
        patient.say(
            "error",
            "range",
            f"raw is {found.minimum:g} everywhere",
            "There is no image in it.",
            "Check which file and dataset was imported.",
        )
        return
    clipped = float(np.mean(found.low) + np.mean(found.high))
    if found.span < 40:
        patient.say(
            "warning",
            "range",
            f"98 % of raw lie within {found.span:.0f} of 255 grey values",
            "Noise of rounding becomes visible, and augmentation of the intensity drowns the contrast there is.",
            "Import the original again with --rescale percentiles.",
        )
    if clipped > 0.05:
        patient.say(
            "warning",
            "saturation",
            f"{clipped:.1%} of raw is black or white ({np.mean(found.low):.1%} at the lowest value, "
            f"{np.mean(found.high):.1%} at the highest)",
            "What was cut off at either end cannot be told apart any more; or it is padding around the tissue.",
            "Import the original with wider --rescale limits; mask out padding.",
        )
    elif found.span >= 40:
        patient.say(
            "ok",
            "range",
            f"raw from {found.minimum:g} to {found.maximum:g}, 98 % within {found.span:.0f} of 255 grey values, "
            f"{clipped:.1%} black or white",
        )


def _judge_sections(patient: _Patient, found: RawStatistics) -> None:
    usual = float(np.median(found.deviation))
    blank = found.section[found.deviation <= 0.1 * usual]
    clipped = (found.low + found.high > 0.3) & (found.deviation > 0.1 * usual)
    # sections that are all alike in this are told by the volume as a whole
    saturated = found.section[clipped] if np.mean(clipped) < 0.5 else np.zeros(0, np.int64)
    repeated = found.section[found.repeats & (found.deviation > 0.1 * usual)]
    for sections, name, why in (
        (blank, "blank", "Neurites break there, and a network trained on it learns that nothing can be a border."),
        (saturated, "saturated", "More than 30 % of their voxels are cut off: membranes cannot be seen there."),
        (repeated, "the same as the section before", "A lost section was filled with its neighbour: membranes jump."),
    ):
        if len(sections) and usual > 0:
            patient.say(
                "warning",
                "sections",
                f"{len(np.unique(sections))} of {len(np.unique(found.section))} sections are {name}: "
                f"z = {_ranges(sections)}",
                why,
                "Set the mask to 0 there, or replace them from the original images.",
                sections=[int(s) for s in np.unique(sections)[:1000]],
            )
    if usual > 0 and not len(blank) and not len(saturated) and not len(repeated):
        patient.say(
            "ok", "sections", f"no blank, saturated or repeated one in {len(np.unique(found.section))} sections"
        )


# ---- labels and mask


def _labelled_box(patient: _Patient) -> Box:
    volume = patient.mask or patient.labels
    assert volume is not None
    return stored_box(volume)


def _check_labels(patient: _Patient, advance: Callable[[int], None]) -> None:
    if patient.labels is None:
        if patient.mask is not None:
            patient.say("ok", "mask", "a mask without labels is not looked at")
        return
    labels, mask = patient.labels, patient.mask
    regions = regions_of(_labelled_box(patient))
    other_values: set[int] = set()
    negative: list[int] = []

    def slabs(region: Box) -> Iterator[tuple[NDArray[np.uint64], NDArray[Any] | None]]:
        for begin, shape in slabs_of(region, labels.array.chunks[-3]):
            data = labels.read(begin, shape)
            if data.dtype.kind == "i" and data.min() < 0:
                negative.append(int(data.min()))
                data = np.where(data < 0, 0, data)
            inside = None if mask is None else mask.read(begin, shape)
            if inside is not None and inside.max() > 1:
                other_values.add(int(inside.max()))
            yield data.astype(np.uint64, copy=False), inside
            advance(math.prod(shape))

    found = combine([measure_pieces(slabs(region)) for region in regions])
    sampled = "" if len(regions) == 1 else f" (in {len(regions)} regions of {_times(regions[0][1])} voxels)"
    if negative:
        patient.say(
            "error",
            "labels",
            f"labels go down to {min(negative)}",
            "Ids are positive and 0 is background; a negative one wraps to a huge id.",
            f"Import them again with --background {min(negative)} if it means background.",
        )
    if other_values:
        patient.say(
            "warning",
            "mask",
            f"the mask holds values up to {max(other_values)}",
            "Every value but 0 counts as 1.",
            "Import it again; it becomes 0 and 1.",
        )
    _judge_mask(patient, found, math.prod(labels.shape), len(regions) > 1, sampled)
    if found.labelled:
        _judge_labels(patient, found, sampled, whole=len(regions) == 1)


def _judge_mask(patient: _Patient, found: Pieces, voxels: int, sample: bool, sampled: str) -> None:
    name = "the mask" if patient.mask is not None else "the volume"
    if found.inside == 0:
        patient.say(
            "error",
            "mask",
            f"the mask is 0 everywhere{sampled}",
            "No voxel may be trained on, so nothing can be learned.",
            "Import the right mask, or leave it out of the project to use all labels.",
        )
        return
    if found.labelled == 0:
        patient.say(
            "error",
            "labels",
            f"labels are 0 everywhere inside {name}{sampled}",
            "There is no truth to learn from.",
            "Check which file was imported as labels, and where it was put (--label-offset).",
        )
        return
    coverage = found.inside / (found.total if sample else voxels)
    filled = found.labelled / found.inside
    text = f"{name} covers {coverage:.1%}{sampled}, {filled:.1%} of that is labelled"
    if filled < 0.5:
        patient.say(
            "warning",
            "mask",
            text,
            "Where the mask is 1, label 0 is taught as background: neurites nobody has drawn yet become walls.",
            "Set the mask to 0 where nothing was annotated, and import it with --mask.",
            coverage=coverage,
            labelled=filled,
        )
    else:
        patient.say("ok", "mask", text, coverage=coverage, labelled=filled)


def _judge_labels(patient: _Patient, found: Pieces, sampled: str, whole: bool) -> None:
    ids, sizes, at_border = found.by_label
    big = int(np.count_nonzero(sizes >= 1000))
    median = int(np.median(sizes))
    if len(ids) == 1:
        patient.say(
            "error",
            "labels",
            f"there is one label only, {ids[0]}{sampled}",
            "With one label there are no borders to learn: is this a mask, or a foreground?",
            "Give every neuron its own id, for example by connected components.",
        )
        return
    patient.say(
        "ok",
        "labels",
        f"{len(ids)} labels{sampled}, {big} of at least 1000 voxels; half are smaller than {median} voxels",
        labels=len(ids),
        labels_of_1000=big,
        median_voxels=median,
    )
    largest = int(np.argmax(sizes))
    share = float(sizes[largest] / sizes.sum())
    if share > 0.5:
        patient.say(
            "warning",
            "largest label",
            f"label {ids[largest]} fills {share:.0%} of what is labelled",
            "Often the background was given an id: it is then taught as one large neuron.",
            f"If it is background, import again with --background {ids[largest]}.",
            label=int(ids[largest]),
            share=share,
        )
    else:
        patient.say("ok", "largest label", f"the largest label fills {share:.0%}", label=int(ids[largest]), share=share)
    if not whole:
        return
    _judge_specks(patient, ids, sizes, at_border)
    _judge_pieces(patient, found, ids)


def _judge_specks(
    patient: _Patient, ids: NDArray[np.uint64], sizes: NDArray[np.int64], at_border: NDArray[np.bool_]
) -> None:
    # slivers at the border are neurites cut by it, and right
    specks = (sizes < TINY) & ~at_border
    count = int(np.count_nonzero(specks))
    text = f"{count} of {len(ids)} labels are specks: less than {TINY} voxels and wholly inside"
    if count > 0.1 * len(ids):
        share = float(sizes[specks].sum() / sizes.sum())
        patient.say(
            "warning",
            "tiny labels",
            f"{text}; they fill {_percent(share)} of what is labelled",
            "Nothing of that size is a neuron. The network is taught a membrane around each, and scores count them.",
            "Merge them into the label around them in the annotation tool; if they fill little, training stands them.",
            count=count,
            share=share,
            examples=[int(i) for i in ids[specks][:20]],
        )
    else:
        patient.say(
            "ok", "tiny labels", text if count else f"no label is a speck of less than {TINY} voxels", count=count
        )


def _judge_pieces(patient: _Patient, found: Pieces, ids: NDArray[np.uint64]) -> None:
    index = np.searchsorted(ids, found.label)
    pieces = np.bincount(index, minlength=len(ids))
    split = int(np.count_nonzero(pieces > 1))
    large = found.size >= TINY
    several = large & (np.bincount(index[large], minlength=len(ids))[index] > 1)
    apart = several & ~found.at_border
    leaving = len(np.unique(found.label[several]))
    if not split:
        patient.say("ok", "pieces", "every label is in one piece")
    elif apart.any():
        worst = int(np.argmax(np.where(apart, found.size, 0)))
        patient.say(
            "warning",
            "pieces",
            f"{split} of {len(ids)} labels are in several unconnected pieces; {np.count_nonzero(apart)} pieces of "
            f"{TINY} or more voxels end inside the volume, so nothing can join them to the rest "
            f"(the largest: label {found.label[worst]}, {found.size[worst]} voxels)",
            "Either one id was used for several neurons, or a neurite breaks where the annotation skipped it. Scores "
            "then count merges that no voxel shows.",
            "Look at these labels in the annotation tool; score against connected components.",
            labels=split,
            pieces_inside=int(np.count_nonzero(apart)),
            examples=[int(i) for i in np.unique(found.label[apart])[:20]],
        )
    else:
        detail = (
            f"in {leaving} of them these leave the volume and may join outside; score against connected components"
            if leaving
            else f"all but one of each are smaller than {TINY} voxels"
        )
        patient.say("ok", "pieces", f"{split} of {len(ids)} labels are in several pieces; {detail}", labels=split)


# ---- alignment


def _check_alignment(patient: _Patient, advance: Callable[[int], None]) -> None:
    raw, labels, mask = patient.raw, patient.labels, patient.mask
    if raw is None or labels is None or raw.channels is not None or raw.shape != labels.shape:
        return
    cubes = _cubes(_labelled_box(patient))
    extent = cubes[0][1]

    def read() -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]]:
        for begin, shape in cubes:
            image = raw.read(begin, shape)
            if image.dtype.kind == "f":
                image = np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0)
            yield image, labels.read(begin, shape), None if mask is None else mask.read(begin, shape)
            advance(math.prod(shape))

    found = measure_alignment(read(), raw.voxel_size)
    if found is None:
        return
    numbers: dict[str, Any] = {"shift": list(found.shift), "correlation": found.correlation, "in_place": found.in_place}
    reach = [min(REACH, (n - 1) // 2) for n in extent]
    if found.correlation < VISIBLE:
        patient.say(
            "warning",
            "alignment",
            f"borders of labels do not show in raw at any shift of up to {_times(reach)} voxels "
            f"(correlation {found.correlation:.2f})",
            "Labels of another volume, mirrored or with axes in another order look like this, and teach nothing.",
            "Look at raw and labels together (`neuroloom view`); import again with the right --axes.",
            **numbers,
        )
        return
    distance = max(abs(s) for s in found.shift)
    moved = [s * v for s, v in zip(found.shift, raw.voxel_size, strict=True)]
    if distance >= 2 and found.correlation > 1.05 * found.in_place:
        patient.say(
            "error",
            "alignment",
            f"labels are shifted against raw: they fit when moved by {_commas(found.shift)} voxels (z, y, x; "
            f"correlation {found.correlation:.2f} there, {found.in_place:.2f} as they are)",
            "A network learns borders beside the membranes, and its scores are worth nothing.",
            f"Import the labels again, moved by {_commas(moved)} nm (--label-offset), or look for what cropped "
            "or padded one of them.",
            **numbers,
        )
    elif distance == 1 and found.correlation > 1.1 * found.in_place:
        patient.say(
            "warning",
            "alignment",
            f"labels fit raw better when moved by {_commas(found.shift)} voxels (correlation {found.correlation:.2f} "
            f"there, {found.in_place:.2f} as they are)",
            "A step of one voxel comes from resampling or from half a voxel of offset; thin neurites suffer.",
            "Look for it where the labels were exported or downsampled.",
            **numbers,
        )
    else:
        patient.say(
            "ok", "alignment", f"labels lie on the borders that raw shows (correlation {found.in_place:.2f})", **numbers
        )


def _cubes(box: Box) -> list[Box]:
    """Evenly spread regions of one shape in which alignment is measured; the whole of a small box."""
    begin, shape = box
    extent = [min(_CUBE, s) for s in shape]
    corners = [(b, b + s - e) for b, s, e in zip(begin, shape, extent, strict=True)]
    places = sorted({(z, y, x) for z in corners[0] for y in corners[1] for x in corners[2]})
    step = max(1, -(-len(places) // _CUBES))
    middle = tuple(b + (s - e) // 2 for b, s, e in zip(begin, shape, extent, strict=True))
    chosen = sorted({*places[::step], (middle[0], middle[1], middle[2])})
    return [(place, (extent[0], extent[1], extent[2])) for place in chosen]


def _effort(patient: _Patient) -> int:
    """Voxels that will be looked at."""
    voxels = 0
    if patient.raw is not None and patient.raw.channels is None:
        voxels += sum(math.prod(shape) for _, shape in regions_of(((0, 0, 0), patient.raw.shape)))
    if patient.labels is not None:
        box = _labelled_box(patient)
        voxels += sum(math.prod(shape) for _, shape in (*regions_of(box), *_cubes(box)))
    return voxels


# ---- pairs


def _check_pairs(
    train: Sequence[_Patient], validate: Sequence[_Patient], patients: dict[str, _Patient]
) -> list[Finding]:
    findings: list[Finding] = []
    both = {p.path for p in train} & {p.path for p in validate}
    for path in sorted(both):
        findings.append(_leak(str(path), f"{path} is named for training and for validation", 1.0))
    crossed = [(a, b) for a in train for b in validate if a.path not in both and b.path not in both]
    for a, b in crossed:
        if a.raw is None or b.raw is None or a.raw.channels is not None or b.raw.channels is not None:
            continue
        pair = f"{a.path} and {b.path}"
        if a.content and a.content == b.content:
            findings.append(_leak(pair, f"{a.path} and {b.path} hold the same image", 1.0))
            continue
        try:
            shared = find_overlap(a.raw, b.raw)
        except UserError:
            continue  # the damaged chunk has been told
        if shared is not None:
            how = "" if shared.by_place else "; their offsets do not say so"
            what = (
                f"{shared.voxels} voxels of {b.path} ({shared.fraction:.0%}) are a part of {a.path}: its voxel 0,0,0 "
                f"is {_commas(shared.shift)} there{how}"
            )
            findings.append(_leak(pair, what, shared.fraction))
        else:
            findings.append(Finding("ok", pair, "leak", "share no part that could be found"))
        if not np.allclose(a.raw.voxel_size, b.raw.voxel_size, rtol=1e-3):
            findings.append(
                Finding(
                    "error",
                    pair,
                    "voxel size",
                    f"{a.path} has voxels of {_times(a.raw.voxel_size)} nm, {b.path} of {_times(b.raw.voxel_size)} nm",
                    "One network sees one voxel size; scores on another say nothing.",
                    "Resample one of them.",
                )
            )
    across = {frozenset((a.path, b.path)) for a, b in crossed}
    for a, b in combinations(patients.values(), 2):
        if a.content and a.content == b.content and frozenset((a.path, b.path)) not in across:
            findings.append(
                Finding(
                    "warning",
                    f"{a.path} and {b.path}",
                    "duplicate",
                    "hold the same image",
                    "Trained on twice it counts twice; scored on, it flatters.",
                    "Keep one of them.",
                )
            )
    return findings


def _leak(pair: str, what: str, fraction: float) -> Finding:
    return Finding(
        "error",
        pair,
        "leak",
        what,
        "A score on data that was trained on says nothing about new tissue, and it chooses checkpoint and threshold.",
        "Take another volume for validation, or crop the shared part away.",
        {"fraction": fraction},
    )


# ---- words


def _times(values: Sequence[float], form: str = "g") -> str:
    return " x ".join(format(v, form) for v in values)


def _commas(values: Sequence[float]) -> str:
    return ",".join(f"{v:g}" for v in values)


def _percent(share: float) -> str:
    return f"{share:.2%}" if share < 0.01 else f"{share:.0%}"


def _ranges(numbers: NDArray[np.int64]) -> str:
    """Sorted numbers in few characters: "3-7, 12, 40-44, …"."""
    unique = np.unique(numbers)
    runs = np.split(unique, np.flatnonzero(np.diff(unique) != 1) + 1)
    texts = [f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ", ".join(texts[:8]) + (", …" if len(texts) > 8 else "")
