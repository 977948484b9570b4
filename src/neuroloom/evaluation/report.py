"""The report: one HTML page that says what was run and how well it went, with everything it needs inside it.

The page is a template (`report.html.jinja`) filled from a plain `ReportContent`, which knows nothing of projects or
files. A section appears only when there is content for it. Pictures are data URIs, charts are inline SVG, and a
content security policy forbids the page to load anything.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import jinja2
from markupsafe import Markup
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from neuroloom.evaluation.charts import Series, line_chart
from neuroloom.evaluation.positions import SegmentationError
from neuroloom.evaluation.scores import Scores
from neuroloom.evaluation.thresholds import Evaluation
from neuroloom.files import write_text


class _Content(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")


def _check_png(value: bytes) -> bytes:
    if not value.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("expected the bytes of a PNG file")
    return value


Png = Annotated[bytes, AfterValidator(_check_png)]


class Figure(_Content):
    """A picture of the report.

    Attributes:
        title: Its heading.
        caption: What is to be seen.
        png: A PNG file.
    """

    title: str
    caption: str = ""
    png: Png


CurveKind = Literal["training", "validation", "plain", "eroded"]


class TrainingCurve(_Content):
    """Loss of one network while it was trained, or VOI of the whole chain with it.

    Attributes:
        network: Losses of one network share a chart, and so do its scores.
        kind: "training" and "validation" are losses, "plain" and "eroded" VOI in bits (eroded: truth, by one voxel).
        iterations: Rising.
        values: As many.
    """

    network: str
    kind: CurveKind
    iterations: tuple[int, ...]
    values: tuple[float, ...]


class ErrorFigure(_Content):
    """A segmentation error with its place in the volume and a picture.

    Attributes:
        error: The error, position in voxels of the scored array.
        position_nm: The same position in the volume, nm, z y x.
        png: A PNG file.
    """

    error: SegmentationError
    position_nm: tuple[float, float, float]
    png: Png


class StageTime(_Content):
    """How long a stage took.

    Attributes:
        stage: Its name.
        seconds: Wall-clock time.
        detail: Amount, rate, workers, in words.
    """

    stage: str
    seconds: float
    detail: str = ""


class Result(_Content):
    """One line of the table of results.

    Attributes:
        what: What was measured, on what.
        value: The number as it shall be read, with unit.
        convention: What it counts and ignores.
        target: What was to be reached, if anything.
        reached: Whether it was; None when there is no target.
    """

    what: str
    value: str
    convention: str = ""
    target: str = ""
    reached: bool | None = None


class Contender(_Content):
    """One of several setups compared with each other.

    Attributes:
        name: For example "AcrLSD" or "baseline: raw to affinities".
        training: How long and how it was trained.
        evaluation: Its scores.
    """

    name: str
    training: str
    evaluation: Evaluation


class ReportContent(_Content):
    """Everything the report says; every part that is empty leaves its section out.

    Attributes:
        title: Heading of the page.
        created: Date and time in words.
        summary: One or two sentences under the heading.
        facts: Name and value of what was run: data, voxel size, setup, network, device.
        versions: Package or program and its version.
        parameters: For each group ("training", "agglomeration") names and values.
        configuration: The project file as it was.
        curves: Losses and scores.
        sheets: Contact sheets.
        evaluation: Scores at every threshold.
        evaluated_on: Name of the volume that was scored.
        errors: The largest errors.
        timings: One entry for each stage, in order.
        results: Lines of the table of results.
        contenders: Setups compared, the one that matters first.
        reproduce: Commands, in order.
        notes: Sentences for the end: limits, warnings.
    """

    title: str
    created: str
    summary: str = ""
    facts: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    parameters: dict[str, dict[str, str]] = Field(default_factory=dict)
    configuration: str = ""
    curves: tuple[TrainingCurve, ...] = ()
    sheets: tuple[Figure, ...] = ()
    evaluation: Evaluation | None = None
    evaluated_on: str = ""
    errors: tuple[ErrorFigure, ...] = ()
    timings: tuple[StageTime, ...] = ()
    results: tuple[Result, ...] = ()
    contenders: tuple[Contender, ...] = ()
    reproduce: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def render_report(content: ReportContent) -> str:
    """The page as HTML text.

    Args:
        content: What it shall say.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("neuroloom.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["zip"] = zip
    environment.filters["duration"] = format_duration
    environment.filters["data_uri"] = _data_uri
    template = environment.get_template("report.html.jinja")
    return template.render(
        content=content,
        training_charts=_training_charts(content.curves),
        voi_charts=[] if content.evaluation is None else _voi_charts(content.evaluation),
        total_seconds=sum(timing.seconds for timing in content.timings),
        longest_seconds=max((timing.seconds for timing in content.timings), default=0.0),
        verdict=compare(content.contenders),
    )


def write_report(path: Path, content: ReportContent) -> None:
    """Write the page to a file, whole or not at all.

    Args:
        path: The HTML file.
        content: What it shall say.

    Raises:
        UserError: The disk is full or the folder cannot be written.
    """
    write_text(path, render_report(content))


def compare(contenders: Sequence[Contender]) -> str:
    """Sentences that say by how much the first contender wins or loses in VOI sum against each other one."""
    if len(contenders) < 2:
        return ""
    first = contenders[0]
    sentences = []
    for other in contenders[1:]:
        parts = []
        for name, ours, theirs in (
            ("plain", first.evaluation.best.plain, other.evaluation.best.plain),
            ("eroded by one voxel", first.evaluation.best.eroded_1, other.evaluation.best.eroded_1),
        ):
            if ours is None or theirs is None:
                continue
            difference = ours.voi_sum - theirs.voi_sum
            word = "equal" if abs(difference) < 0.0005 else "better" if difference < 0 else "worse"
            by = "" if word == "equal" else f" by {abs(difference):.3f} bits"
            parts.append(f"{word}{by} ({ours.voi_sum:.3f} against {theirs.voi_sum:.3f}, {name})")
        sentences.append(f"{first.name} is {', '.join(parts)} compared with {other.name}.")
    return " ".join(sentences)


def format_duration(seconds: float) -> str:
    """Time in words of two units: "1.2 s", "3 min 20 s", "2 h 5 min", "1 d 4 h"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, small, unit, small_unit in ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit}" + (f" {rest} {small_unit}" if rest else "")
    return f"{whole} s"


def _data_uri(png: bytes) -> Markup:
    return Markup("data:image/png;base64,") + Markup(base64.b64encode(png).decode())


def _training_charts(curves: Sequence[TrainingCurve]) -> list[tuple[str, Markup]]:
    """Each network's losses, and its scores where there are any, in the order they come."""
    charts = []
    for network in dict.fromkeys(curve.network for curve in curves):
        for kinds, what, unit in (
            (("training", "validation"), "loss", "balanced loss"),
            (("plain", "eroded"), "VOI of the whole chain", "bits"),
        ):
            series = [
                Series(
                    name=curve.kind,
                    x=curve.iterations,
                    y=curve.values,
                    color=kinds.index(curve.kind),
                    points=curve.kind != "training" and len(curve.iterations) <= 60,
                )
                for curve in curves
                if curve.network == network and curve.kind in kinds
            ]
            if series:
                name = f"{network}: {what}"
                logarithmic = what == "loss"
                chart = line_chart(series, title=name, x_label="iteration", y_label=unit, logarithmic=logarithmic)
                charts.append((name, chart))
    return charts


def _voi_charts(evaluation: Evaluation) -> list[tuple[str, Markup]]:
    """VOI against threshold: split, merge and sum; plain, and with the truth eroded by one and two voxels."""
    charts = []
    variants: list[tuple[str, list[tuple[float, Scores]]]] = [
        ("plain", [(entry.threshold, entry.plain) for entry in evaluation.thresholds]),
        (
            "truth eroded by 1 voxel",
            [(entry.threshold, entry.eroded_1) for entry in evaluation.thresholds if entry.eroded_1 is not None],
        ),
        (
            "truth eroded by 2 voxels",
            [(entry.threshold, entry.eroded_2) for entry in evaluation.thresholds if entry.eroded_2 is not None],
        ),
    ]
    for name, entries in variants:
        if not entries:
            continue
        x = [threshold for threshold, _ in entries]
        series = [
            Series("sum", x, [s.voi_sum for _, s in entries], 0, points=True),
            Series("split", x, [s.voi_split for _, s in entries], 1, points=True),
            Series("merge", x, [s.voi_merge for _, s in entries], 2, points=True),
        ]
        chart = line_chart(
            series,
            title=f"VOI against threshold, {name}",
            x_label="threshold (merge score)",
            y_label="bits",
            mark=(evaluation.used.threshold, f"used: {evaluation.used.threshold:g}"),
        )
        charts.append((name, chart))
    return charts
