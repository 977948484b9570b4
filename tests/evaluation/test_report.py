"""The report: well-formed, self-contained, complete, and only as long as there is content."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from neuroloom.evaluation.pictures import error_picture
from neuroloom.evaluation.positions import find_errors
from neuroloom.evaluation.report import (
    Contender,
    ErrorFigure,
    Figure,
    ReportContent,
    Result,
    StageTime,
    TrainingCurve,
    compare,
    format_duration,
    render_report,
    write_report,
)
from neuroloom.evaluation.thresholds import evaluate_segmentation, evaluate_thresholds
from neuroloom.evaluation.truth import connected_truth
from neuroloom.pictures import contact_sheet

VOID = {"meta", "link", "br", "img", "hr", "input"}
EVIL = "<script>alert('x')</script>\"><img src=http://evil.example/x onerror=alert(1)>{{ 7*7 }}"


class Page(HTMLParser):
    """Collects elements, checks that every element is closed in its turn."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def ids(self) -> list[str]:
        return [attributes["id"] or "" for tag, attributes in self.elements if tag == "section"]

    def assert_self_contained(self) -> None:
        for tag, attributes in self.elements:
            assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
            for name, value in attributes.items():
                assert not name.startswith("on")
                if name in ("src", "srcset", "data", "poster", "xlink:href", "background"):
                    assert (value or "").startswith("data:image/png;base64,")
                if name == "href":
                    assert (value or "").startswith(("#", "https://"))
                assert "url(" not in (value or "")


@pytest.fixture
def content(blobs: tuple[np.ndarray, np.ndarray]) -> ReportContent:
    segmentation, truth = blobs
    ids = np.unique(segmentation[segmentation != 0])
    lookups = {t: np.stack([ids, np.where(ids > t * 2**43, np.uint64(1), ids)]) for t in (0.25, 0.5, 0.75)}
    evaluation = evaluate_thresholds(segmentation, truth, lookups)
    raw = np.random.default_rng(0).integers(0, 256, truth.shape, dtype=np.uint8)
    pieces = connected_truth(truth)
    errors = tuple(
        ErrorFigure(
            error=error,
            position_nm=(808.0, 16.0, 24.0),
            png=error_picture(raw, segmentation, pieces, error, (8, 8, 8), panel=40),
        )
        for error in find_errors(segmentation, pieces, 2)
    )
    baseline = evaluate_segmentation(np.ones_like(truth), truth)
    return ReportContent(
        title="A run",
        created="1 January 2026",
        summary="What was done.",
        facts={"device": "CPU"},
        versions={"torch": "2.8.0"},
        parameters={"Agglomeration": {"merge function": "hist_quant_75"}},
        configuration="[training]\nlength = 5\n",
        curves=(
            TrainingCurve(network="LSD network", kind="training", iterations=(0, 10, 20), values=(0.3, 0.2, 0.1)),
            TrainingCurve(network="LSD network", kind="validation", iterations=(0, 20), values=(0.3, 0.2)),
            TrainingCurve(network="AcrLSD network", kind="training", iterations=(0, 10), values=(0.3, 0.2)),
            TrainingCurve(network="AcrLSD network", kind="plain", iterations=(5, 10), values=(2.5, 1.5)),
            TrainingCurve(network="AcrLSD network", kind="eroded", iterations=(5, 10), values=(2.0, 1.0)),
        ),
        sheets=(Figure(title="Sections", caption="Raw.", png=contact_sheet({"raw": raw}, sections=1, panel=40)),),
        evaluation=evaluation,
        evaluated_on="val.zarr",
        errors=errors,
        timings=(StageTime(stage="predict", seconds=75.0, detail="0.2 Mvoxel/s"),),
        results=(
            Result(what="VOI sum", value="0.9 bits", convention="truth 0 ignored", target="≤ 1.0", reached=True),
            Result(what="VOI sum, elsewhere", value="2.9 bits", target="≤ 1.0", reached=False),
        ),
        contenders=(
            Contender(name="AcrLSD", training="1 h", evaluation=evaluation),
            Contender(name="baseline", training="1 h", evaluation=baseline),
        ),
        reproduce=("make demo",),
        notes=("Small crops flatter.",),
    )


SECTIONS = ["results", "scores", "comparison", "pictures", "errors", "training", "timings", "run", "reproduce", "notes"]


def test_the_whole_page(content: ReportContent) -> None:
    html = render_report(content)
    page = Page(html)
    assert html.startswith("<!doctype html>")
    assert page.ids() == SECTIONS
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert links == [f"#{name}" for name in SECTIONS]
    page.assert_self_contained()
    assert "default-src 'none'" in html
    tags = [tag for tag, _ in page.elements]
    assert tags.count("img") == 1 + len(content.errors)
    charts = [attributes for tag, attributes in page.elements if tag == "svg" and attributes.get("class") == "chart"]
    variants = 1 + sum(
        any(getattr(entry, name) for entry in content.evaluation.thresholds) for name in ("eroded_1", "eroded_2")
    )
    assert len(charts) == 3 + variants  # losses of two networks, scores of one
    best = content.evaluation.best
    first = content.errors[0].error
    for text in (
        "A run", "0.2 Mvoxel/s", "hist_quant_75", "torch", "length = 5", "make demo", "Small crops flatter.",
        "reached", "missed", f"{best.plain.voi_sum:.3f}", f"used: {best.threshold:g}", content.evaluation.convention,
        compare(content.contenders), "808, 16, 24 nm", ", ".join(map(str, first.position)), f"{first.bits:.3f} bits",
    ):  # fmt: skip
        assert text in page.text, text


def test_every_section_needs_content(content: ReportContent) -> None:
    assert Page(render_report(ReportContent(title="t", created="c"))).ids() == []
    sources = {
        "results": ("results",), "scores": ("evaluation",), "comparison": ("contenders",), "pictures": ("sheets",),
        "errors": ("errors",), "training": ("curves",), "timings": ("timings",),
        "run": ("facts", "versions", "parameters", "configuration"), "reproduce": ("reproduce",), "notes": ("notes",),
    }  # fmt: skip
    assert list(sources) == SECTIONS
    for section, fields in sources.items():
        for field in fields:
            alone = ReportContent(title="t", created="c", **{field: getattr(content, field)})
            page = Page(render_report(alone))
            assert page.ids() == [section]
            links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
            assert links == [f"#{section}"]


def test_targets_have_a_column_only_where_there_are_any(content: ReportContent) -> None:
    assert "Target" in Page(render_report(content)).text
    without = tuple(result.model_copy(update={"target": "", "reached": None}) for result in content.results)
    assert "Target" not in Page(render_report(content.model_copy(update={"results": without}))).text


def test_hostile_names_are_text(content: ReportContent) -> None:
    hostile = content.model_copy(
        update={
            "title": EVIL,
            "created": EVIL,
            "summary": EVIL,
            "facts": {EVIL: EVIL},
            "versions": {EVIL: EVIL},
            "parameters": {EVIL: {EVIL: EVIL}},
            "configuration": EVIL,
            "curves": (TrainingCurve(network=EVIL, kind="training", iterations=(0, 1), values=(0.1, 0.2)),),
            "sheets": (Figure(title=EVIL, caption=EVIL, png=content.sheets[0].png),),
            "evaluated_on": EVIL,
            "timings": (StageTime(stage=EVIL, seconds=0, detail=EVIL),),
            "results": (Result(what=EVIL, value=EVIL, convention=EVIL, target=EVIL),),
            "contenders": (
                Contender(name=EVIL, training=EVIL, evaluation=content.evaluation),
                Contender(name=EVIL, training=EVIL, evaluation=content.evaluation),
            ),
            "reproduce": (EVIL,),
            "notes": (EVIL,),
        }
    )
    page = Page(render_report(hostile))
    page.assert_self_contained()
    assert page.ids() == SECTIONS
    assert [tag for tag, _ in page.elements].count("img") == 1 + len(content.errors)
    # 2 title, 1 created, 1 summary, 2 facts, 2 versions, 3 parameters, 1 configuration, 2 loss, 2 sheet, 1 scores,
    # 2 timing, 4 result, 4 + 2 comparison and verdict, 1 reproduce, 1 notes
    assert page.text.count(EVIL) == 31
    assert "49" not in re.findall(r"\b49\b", page.text.replace(EVIL, ""))


def test_the_comparison_says_who_is_better_and_by_how_much(content: ReportContent) -> None:
    ours, theirs = content.contenders
    difference = theirs.evaluation.best.plain.voi_sum - ours.evaluation.best.plain.voi_sum
    assert difference > 0
    assert compare([ours, theirs]).startswith(f"AcrLSD is better by {difference:.3f} bits")
    assert compare([theirs, ours]).startswith(f"baseline is worse by {difference:.3f} bits")
    assert compare([ours, ours]).startswith("AcrLSD is equal (")
    assert compare([ours]) == ""


def test_content_survives_json_and_the_page_is_always_the_same(content: ReportContent) -> None:
    again = ReportContent.model_validate_json(content.model_dump_json())
    assert again == content
    assert render_report(again) == render_report(content)


def test_only_png_files_are_taken() -> None:
    with pytest.raises(ValidationError, match="PNG"):
        Figure(title="t", png=b"<svg onload=alert(1)>")


def test_it_is_written_as_a_file(content: ReportContent, tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    write_report(path, content)
    assert path.read_text(encoding="utf-8") == render_report(content)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (59.96, "1 min"), (61, "1 min 1 s"), (7300, "2 h 1 min"), (90000, "1 d 1 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
