"""Collecting what the report says of a project: losses, pictures, scores, errors, times."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom import __version__
from neuroloom.blockwise.intermediate import deleted_blocks
from neuroloom.blockwise.run import read_done
from neuroloom.chain.artifacts import Chain
from neuroloom.evaluation.pictures import error_picture
from neuroloom.evaluation.positions import find_errors
from neuroloom.evaluation.report import (
    Contender,
    CurveKind,
    ErrorFigure,
    Figure,
    ReportContent,
    Result,
    StageTime,
    TrainingCurve,
    write_report,
)
from neuroloom.evaluation.thresholds import Evaluation
from neuroloom.evaluation.truth import connected_truth, erode_truth
from neuroloom.files import read_json_lines, write_bytes
from neuroloom.networks.setups import SETUPS
from neuroloom.pictures import contact_sheet
from neuroloom.project import LabelledVolume, RawVolume
from neuroloom.volume import Volume, open_volume

PACKAGES = ("torch", "numpy", "zarr", "daisy", "numba", "pyarrow")
SHEET_EXTENT = 160
"""Largest side of the region shown on a contact sheet, in voxels."""
ERRORS = 4
"""Errors of either kind that are shown."""


def write_project_report(chain: Chain) -> Path:
    """Write the report of a project, of whatever is done, and its pictures of the volumes beside it.

    Returns:
        The HTML file.
    """
    write_report(chain.project.report_file, collect(chain))
    for volume in chain.volumes:
        columns = _columns(chain, volume)
        if len(columns) > 1:
            write_bytes(
                chain.project.folder / "pictures" / f"{volume.name}.png",
                contact_sheet(columns, voxel_size=chain.raw(volume).open().voxel_size),
            )
    return chain.project.report_file


def collect(chain: Chain) -> ReportContent:
    """Everything the report says."""
    parameters = chain.parameters
    scored = next((volume for volume in chain.validation_volumes if chain.evaluation(volume)), None)
    evaluation = chain.evaluation(scored) if scored else None
    return ReportContent(
        title=f"neuroloom: {chain.project.folder.name}",
        created=time.strftime("%Y-%m-%d %H:%M"),
        summary=_summary(chain, scored, evaluation),
        facts=_facts(chain),
        versions={
            "neuroloom": __version__,
            "Python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        parameters={
            name: {key: str(value) for key, value in section.items()}
            for name, section in parameters.model_dump(mode="json", by_alias=True).items()
            if isinstance(section, dict) and name != "volumes"
        },
        configuration=chain.project.text,
        curves=tuple(_curves(chain)),
        sheets=(*_snapshots(chain), *_sheets(chain)),
        evaluation=evaluation,
        evaluated_on=scored.name if scored else "",
        errors=tuple(_errors(chain, scored)) if scored else (),
        timings=tuple(_timings(chain)),
        results=tuple(_results(chain)),
        contenders=tuple(_contenders(chain)),
        reproduce=(f"neuroloom run {chain.project.option}",),
        notes=_notes(chain),
    )


def _summary(chain: Chain, volume: LabelledVolume | None, evaluation: Evaluation | None) -> str:
    if volume is None or evaluation is None:
        return "No validation volume is scored yet."
    used = evaluation.used
    if chain.is_trained_on(volume):
        seen = "which was trained on as well (other volumes will be worse)"
    elif chain.parameters.prediction.model is not None:
        seen = "by given weights (what they were trained on, their card says)"
    else:
        seen = "which was never trained on"
    return (
        f"On {volume.name}, {seen}, the segmentation at threshold {used.threshold:g} "
        f"({evaluation.why_used}) differs from the truth by {used.plain.voi_sum:.3f} bits (VOI split "
        f"{used.plain.voi_split:.3f}, merge {used.plain.voi_merge:.3f})."
    )


def _facts(chain: Chain) -> dict[str, str]:
    parameters = chain.parameters
    facts = {
        "project": str(chain.project.folder),
        "voxel size": " x ".join(f"{v:g}" for v in parameters.voxel_size) + " nm (z, y, x)",
        "trained on": ", ".join(volume.name for volume in parameters.volumes.train) or "nothing",
        "validated on": ", ".join(volume.name for volume in chain.validation_volumes) or "nothing",
        "segmented": ", ".join(volume.name for volume in chain.volumes) or "nothing",
        "setup": chain.setup,
        "threshold": "not chosen" if chain.project.threshold is None else f"{chain.project.threshold:g}",
    }
    training = parameters.training
    given = {
        "weights": parameters.prediction.model,
        "started from": training.start,
        "descriptor network": training.descriptors,
    }
    facts |= {key: value for key, value in given.items() if value is not None}
    trained = chain.trained(chain.setup) if chain.setups else None
    if trained is not None:
        facts["device"] = f"{trained.summary['device']}, {trained.summary['precision']}"
    return facts


def _name(setup: str) -> str:
    return f"{SETUPS[setup].title} ({setup})"


def _curves(chain: Chain) -> list[TrainingCurve]:
    curves = []
    for setup in chain.setups:
        folder = chain.training_folder(setup)
        file = None if folder is None else folder / "curve.jsonl"
        if file is None or not file.exists():
            continue
        entries = read_json_lines(file)
        losses = [(entry["step"], entry["loss"]) for entry in entries if "loss" in entry]
        # steps are noisy: show means of about two hundred groups
        size = max(1, len(losses) // 200)
        groups = [losses[i : i + size] for i in range(0, len(losses), size)]
        curves.append(_curve(setup, "training", [(g[-1][0], float(np.mean([loss for _, loss in g]))) for g in groups]))
        others: dict[CurveKind, str] = {"validation": "validation", "plain": "voi", "eroded": "voi_eroded"}
        for kind, key in others.items():
            points = [(entry["step"], entry[key]) for entry in entries if entry.get(key) is not None]
            curves.append(_curve(setup, kind, points))
    return [curve for curve in curves if curve.iterations]


def _curve(setup: str, kind: CurveKind, points: list[tuple[int, float]]) -> TrainingCurve:
    steps, values = tuple(step for step, _ in points), tuple(value for _, value in points)
    return TrainingCurve(network=_name(setup), kind=kind, iterations=steps, values=values)


def _snapshots(chain: Chain) -> list[Figure]:
    figures = []
    for setup in chain.setups:
        folder = chain.training_folder(setup)
        pictures = sorted((folder / "snapshots").glob("*.png")) if folder else []
        if pictures:
            figures.append(
                Figure(
                    title=f"What the network sees and says: {_name(setup)}",
                    caption=f"A held-out crop after {int(pictures[-1].stem)} steps.",
                    png=pictures[-1].read_bytes(),
                )
            )
    return figures


def _sheets(chain: Chain) -> list[Figure]:
    figures = []
    for volume in chain.volumes:
        columns = _columns(chain, volume)
        if len(columns) > 1:
            figures.append(
                Figure(
                    title=f"Results on {volume.name}",
                    caption="Sections through the middle of the volume. Affinities: red z, green y, blue x.",
                    png=contact_sheet(columns, voxel_size=chain.raw(volume).open().voxel_size),
                )
            )
    return figures


def _columns(chain: Chain, volume: RawVolume) -> dict[str, NDArray[Any]]:
    path = chain.project.locate(volume.path)
    raw = open_volume(path, volume.raw)
    columns: dict[str, NDArray[Any]] = {"raw": _middle(raw)}
    predict, fragments, segment = chain.predict(volume), chain.fragments(volume), chain.segment(volume)
    if predict is not None and predict.is_done() and not deleted_blocks(predict).any():
        columns["affinities"] = _middle(predict.output.open())[:3]
    if fragments is not None and fragments.is_done():
        columns["fragments"] = _middle(fragments.output.open())
    if segment is not None and segment.is_done():
        columns["segmentation"] = _middle(segment.open())
    if isinstance(volume, LabelledVolume):
        columns["truth"] = _middle(open_volume(path, volume.labels)).astype(np.uint64)
    return columns


def _middle(volume: Volume) -> NDArray[Any]:
    extent = [min(SHEET_EXTENT, size) for size in volume.shape]
    return volume.read([(size - e) // 2 for size, e in zip(volume.shape, extent, strict=True)], extent)


def _errors(chain: Chain, volume: LabelledVolume) -> list[ErrorFigure]:
    segment = chain.segment(volume)
    if segment is None or not segment.is_done():
        return []
    raw = open_volume(chain.project.locate(volume.path), volume.raw)
    image, segmentation = raw.read(), segment.open().read()
    # where the border is drawn is another question than which parts belong together
    truth = erode_truth(connected_truth(chain.truth(volume)), 1, only_xy=chain.in_xy(volume))
    figures = []
    for error in find_errors(segmentation, truth, ERRORS):
        position = [o + (p + 0.5) * v for o, p, v in zip(raw.offset, error.position, raw.voxel_size, strict=True)]
        figures.append(
            ErrorFigure(
                error=error,
                position_nm=(position[0], position[1], position[2]),
                png=error_picture(image, segmentation, truth, error, raw.voxel_size),
            )
        )
    return figures


def _timings(chain: Chain) -> list[StageTime]:
    times = []
    for setup in chain.setups:
        trained = chain.trained(setup)
        if trained is not None:
            steps, seconds = trained.summary["steps"], trained.summary["seconds"]
            detail = f"{steps} steps, {seconds / max(1, steps):.2f} s each"
            times.append(StageTime(stage=f"train {setup}", seconds=seconds, detail=detail))
    for volume in chain.volumes:
        voxels = float(np.prod(chain.raw(volume).open().shape)) / 1e6
        for name, stage in (
            ("predict", chain.predict(volume)),
            ("fragments", chain.fragments(volume)),
            ("agglomerate", chain.agglomerate(volume)),
            ("segment", chain.segment(volume)),
        ):
            if stage is None or not stage.is_done():
                continue
            done = read_done(stage)
            blocks = f"{done['blocks']} block{'s' if done['blocks'] != 1 else ''}"
            detail = f"{voxels:.1f} Mvoxel, {voxels / max(1e-3, done['seconds']):.2f} Mvoxel/s, {blocks}"
            times.append(StageTime(stage=f"{name} {volume.name}", seconds=done["seconds"], detail=detail))
    return times


def _results(chain: Chain) -> list[Result]:
    results = []
    for volume in chain.validation_volumes:
        evaluation = chain.evaluation(volume)
        if evaluation is None:
            continue
        used = evaluation.used
        for name, scores in (
            ("all annotated voxels", used.plain),
            ("truth eroded by one voxel", used.eroded_1),
            ("truth eroded by two voxels", used.eroded_2),
        ):
            if scores is None:
                continue
            results.append(
                Result(
                    what=f"VOI sum on {volume.name}, {name}",
                    value=f"{scores.voi_sum:.3f} bits",
                    convention=f"split {scores.voi_split:.3f} + merge {scores.voi_merge:.3f}; adapted Rand error "
                    f"{scores.adapted_rand_error:.3f}; threshold {used.threshold:g} ({evaluation.why_used})",
                )
            )
    return results


def _contenders(chain: Chain) -> list[Contender]:
    """This project's setup against the same network trained straight from raw, where that was run."""
    other = chain.baseline()
    if other is None:
        return []
    contenders = []
    for candidate in (chain, other):
        setup = candidate.parameters.training.setup
        trained = [candidate.trained(name) for name in candidate.setups]
        volume = next((v for v in candidate.validation_volumes if candidate.evaluation(v)), None)
        evaluation = candidate.evaluation(volume) if volume else None
        if evaluation is None or any(entry is None for entry in trained):
            return []
        seconds = sum(entry.summary["seconds"] for entry in trained if entry)
        steps = " + ".join(str(entry.summary["steps"]) for entry in trained if entry)
        contenders.append(
            Contender(name=_name(setup), training=f"{steps} steps, {seconds / 60:.1f} min", evaluation=evaluation)
        )
    return contenders


def _notes(chain: Chain) -> tuple[str, ...]:
    notes = []
    if chain.validation_volumes:
        notes.append(
            "Checkpoint and threshold were chosen on the validation volume that is scored here, so its score is "
            "slightly better than that of a volume never looked at."
        )
    if chain.parameters.segmentation.chosen_because:
        notes.append(f"Threshold: {chain.parameters.segmentation.chosen_because}.")
    return tuple(notes)
