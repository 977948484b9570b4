"""Do volumes to train on and to score on share anything, and do any two hold the same image?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from neuroloom.errors import UserError
from neuroloom.volume.checking.findings import Finding
from neuroloom.volume.checking.overlap import find_overlap
from neuroloom.volume.checking.patient import Patient, commas, times


def check_pairs(train: Sequence[Patient], validate: Sequence[Patient], patients: dict[str, Patient]) -> list[Finding]:
    """Findings about pairs of volumes.

    Args:
        train: To train on.
        validate: To score on.
        patients: All volumes, by path.
    """
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
                f"is {commas(shared.shift)} there{how}"
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
                    f"{a.path} has voxels of {times(a.raw.voxel_size)} nm, {b.path} of {times(b.raw.voxel_size)} nm",
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
