"""Are labels and mask fit to learn from: coverage, number, sizes, thickness, pieces?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.volume.checking.label_statistics import Pieces, combine, measure_pieces
from neuroloom.volume.checking.patient import Patient, times
from neuroloom.volume.checking.thickness import SIGMA_PER_DIAMETER, measure_thickness
from neuroloom.volume.regions import Box, regions_of, slabs_of

TINY = 500
"""Voxels; smaller labels and pieces that are no neurite cut by the border are specks."""

SPARSE = 0.3
"""Share of labelled voxels below which the truth looks as if only some neurites were painted."""


def check_labels(patient: Patient, advance: Callable[[int], None]) -> None:
    """Look at labels and mask.

    Args:
        patient: The volume; findings are added to it.
        advance: Called with the number of voxels looked at.
    """
    if patient.labels is None:
        if patient.mask is not None:
            patient.say("ok", "mask", "a mask without labels is not looked at")
        return
    labels, mask = patient.labels, patient.mask
    regions = regions_of(patient.labelled_box)
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
    sampled = "" if len(regions) == 1 else f" (in {len(regions)} regions of {times(regions[0][1])} voxels)"
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


def _judge_mask(patient: Patient, found: Pieces, voxels: int, sample: bool, sampled: str) -> None:
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
        remedy = "Set the mask to 0 where nothing was annotated, and import it with --mask."
        if filled < SPARSE:
            remedy = (
                'If the rest is just not painted, write unlabelled = "ignore" for this volume in the project file, so '
                "that only what is painted is learned from. If there really is no neuron, all is well."
            )
        patient.say(
            "warning",
            "mask",
            text,
            "Where the mask is 1, label 0 is taught as background: neurites nobody has drawn yet become walls.",
            remedy,
            coverage=coverage,
            labelled=filled,
        )
    else:
        patient.say("ok", "mask", text, coverage=coverage, labelled=filled)


def _judge_labels(patient: Patient, found: Pieces, sampled: str, whole: bool) -> None:
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
    _judge_thickness(patient)
    if not whole:
        return
    _judge_specks(patient, ids, sizes, at_border)
    _judge_pieces(patient, found, ids)


def _judge_thickness(patient: Patient) -> None:
    assert patient.labels is not None
    voxel_size = patient.labels.voxel_size
    thickness = measure_thickness([(patient.labels, patient.mask)], voxel_size)
    if thickness is None:
        patient.say("ok", "thickness", "no neurite is thick enough to measure, so no sigma_nm is proposed")
        return
    sigma = thickness.sigma(voxel_size)
    patient.say(
        "ok",
        "thickness",
        f"{thickness}; this proposes sigma_nm = {sigma:g}, {SIGMA_PER_DIAMETER:g} times the median and at least three "
        "voxels, for the descriptors to see more than the local cross-section",
        median_nm=round(thickness.median, 1),
        quartiles_nm=[round(thickness.quarter, 1), round(thickness.three_quarters, 1)],
        sigma_nm=sigma,
    )


def _judge_specks(
    patient: Patient, ids: NDArray[np.uint64], sizes: NDArray[np.int64], at_border: NDArray[np.bool_]
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


def _judge_pieces(patient: Patient, found: Pieces, ids: NDArray[np.uint64]) -> None:
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


def _percent(share: float) -> str:
    return f"{share:.2%}" if share < 0.01 else f"{share:.0%}"
