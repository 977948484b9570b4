"""Charts are well-formed SVG that holds the data where it belongs."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from neuroloom.evaluation.charts import Series, _log_ticks, _ticks, line_chart


def parse(chart: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{chart}</div>")


def points(root: ElementTree.Element) -> list[list[tuple[float, float]]]:
    return [
        [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.attrib["points"].split())]
        for line in root.iter("polyline")
    ]


def test_lines_lie_where_the_values_say() -> None:
    lines = [Series("a", [0, 1, 2], [0, 5, 10], 0), Series("b", [0, 2], [10, 0], 1)]
    root = parse(line_chart(lines, title="t", x_label="x", y_label="y", mark=(1, "here")))
    rising, falling = points(root)
    assert rising[0][0] == falling[0][0]
    assert rising[0][1] == falling[1][1] > rising[1][1] > rising[2][1] == falling[0][1]
    assert np.isclose(rising[1][0] - rising[0][0], rising[2][0] - rising[1][0], atol=0.11)
    (mark,) = (line for line in root.iter("line") if line.get("class") == "mark")
    assert float(mark.attrib["x1"]) == rising[1][0]
    assert "here" in "".join(root.itertext())


def test_texts_are_escaped() -> None:
    evil = '</svg><script>alert("1")</script>'
    chart = line_chart(
        [Series(evil, [0, 1], [1, 2], 0, points=True)], title=evil, x_label=evil, y_label=evil, mark=(0, evil)
    )
    assert "<script" not in chart
    assert evil in "".join(parse(chart).itertext())


def test_values_without_a_place_are_left_out() -> None:
    line = Series("a", [0, 1, 2, 3], [float("nan"), 0.0, 0.1, float("inf")], 0)
    root = parse(line_chart([line], title="", x_label="", y_label="", logarithmic=True))
    assert len(points(root)[0]) == 1
    assert len(list(root.iter("circle"))) == 1, "a single point is drawn as a dot"
    nothing = Series("a", [0], [float("nan")], 0)
    assert line_chart([nothing], title="", x_label="", y_label="") == ""


def test_long_lines_become_means() -> None:
    x = np.arange(100_000)
    line = Series("a", x.tolist(), (x / 1000).tolist(), 0)
    (drawn,) = points(parse(line_chart([line], title="", x_label="", y_label="")))
    assert len(drawn) == 400
    slopes = np.diff([y for _, y in drawn]) / np.diff([x for x, _ in drawn])
    assert np.allclose(slopes, slopes.mean(), rtol=0.3)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_and_cover_the_range(low: float, extent: float) -> None:
    high = low + extent
    ticks = _ticks(low, high)
    assert 3 <= len(ticks) <= 12
    assert ticks[0] <= low + 1e-6 * extent + 1e-9
    assert ticks[-1] >= high - 1e-6 * extent - 1e-9


@given(st.floats(1e-6, 1e3), st.floats(1, 1e6))
def test_logarithmic_ticks_cover_the_range(low: float, factor: float) -> None:
    ticks = _log_ticks(low, low * factor)
    assert ticks[0] <= low * 1.0001
    assert ticks[-1] >= low * factor * 0.9999
    assert all(re.match(r"[125]\.0+e", f"{tick:e}") for tick in ticks)
