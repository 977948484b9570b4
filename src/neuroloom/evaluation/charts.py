"""Line charts as inline SVG whose colours come from the page's style sheet, so that they follow light and dark.

The page defines the classes `axis`, `grid`, `label`, `mark` and the colours `--series-0` … `--series-5`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 620, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 14, 44
_MOST_POINTS = 400


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: For the legend.
        x: Values, rising.
        y: Values, as many.
        color: Index of the colour, 0 to 5.
        dashed: Draw it dashed.
        points: Draw a dot for every value.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: int
    dashed: bool = False
    points: bool = False


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    mark: tuple[float, str] | None = None,
    logarithmic: bool = False,
) -> Markup:
    """Draw lines.

    Args:
        series: The lines; values that are not finite (or not above 0 on a logarithmic axis) are left out.
        title: Read out by screen readers.
        x_label: Under the x axis, with unit.
        y_label: Beside the y axis, with unit.
        mark: An x value to mark with a vertical line, and its text.
        logarithmic: Logarithmic y axis.

    Returns:
        An `<svg>` element with its legend, safe to put into a page.
    """
    lines = [(line, _thin(_usable(line, logarithmic))) for line in series]
    values = [points for _, points in lines if points]
    if not values:
        return Markup("")
    x_low, x_high = _limits([x for points in values for x, _ in points])
    y_values = [y for points in values for _, y in points]
    if logarithmic:
        y_ticks = _log_ticks(min(y_values), max(y_values))
        y_low, y_high = min(y_values) / 1.08, max(y_values) * 1.08
    else:
        y_ticks = _ticks(min(0.0, *y_values), max(y_values))
        y_low, y_high = y_ticks[0], max(y_ticks[-1], max(y_values))
    if y_high <= y_low:
        y_high = y_low + 1

    def place_x(x: float) -> float:
        return _LEFT + (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)

    def place_y(y: float) -> float:
        share = math.log(y / y_low) / math.log(y_high / y_low) if logarithmic else (y - y_low) / (y_high - y_low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    svg = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{escape(title)}</title>']
    for tick in y_ticks:
        if y_low <= tick <= y_high:
            y = place_y(tick)
            svg.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            svg.append(f'<text class="label" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    for tick in _ticks(x_low, x_high):
        if x_low <= tick <= x_high:
            x = place_x(tick)
            svg.append(
                f'<text class="label" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">'
                f"{_number(tick)}</text>"
            )
    base = _HEIGHT - _BOTTOM
    middle_x, middle_y = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + base) / 2
    svg.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>')
    svg.append(f'<text class="label" x="{middle_x}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    svg.append(
        f'<text class="label" transform="translate(14 {middle_y}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    if mark is not None and x_low <= mark[0] <= x_high:
        x = place_x(mark[0])
        side, anchor = (-5, "end") if x > _WIDTH / 2 else (5, "start")
        svg.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{base}"/>')
        svg.append(
            f'<text class="label marked" x="{x + side:.1f}" y="{_TOP + 10}" text-anchor="{anchor}">'
            f"{escape(mark[1])}</text>"
        )
    for line, points in lines:
        if not points:
            continue
        style = f"stroke:var(--series-{line.color})"
        dash = ' stroke-dasharray="6 4"' if line.dashed else ""
        path = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in points)
        svg.append(f'<polyline class="line" style="{style}"{dash} points="{path}"/>')
        if line.points or len(points) == 1:
            for x, y in points:
                svg.append(
                    f'<circle style="fill:var(--series-{line.color})" cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" '
                    f'r="3"><title>{escape(line.name)}: {_number(y)} at {_number(x)}</title></circle>'
                )
    svg.append("</svg>")
    return Markup("".join(svg)) + _legend([line for line, points in lines if points])  # every text was escaped


def _legend(series: Sequence[Series]) -> Markup:
    entries = []
    for line in series:
        dash = ' stroke-dasharray="6 4"' if line.dashed else ""
        key = f'<line x1="0" x2="26" y1="4" y2="4" style="stroke:var(--series-{line.color})"{dash}/>'
        entries.append(f'<span><svg class="key" viewBox="0 0 26 8">{key}</svg>{escape(line.name)}</span>')
    return Markup(f'<div class="legend">{"".join(entries)}</div>')  # every text was escaped


def _usable(line: Series, logarithmic: bool) -> list[tuple[float, float]]:
    return [
        (float(x), float(y))
        for x, y in zip(line.x, line.y, strict=True)
        if math.isfinite(x) and math.isfinite(y) and (y > 0 or not logarithmic)
    ]


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most some hundred points: long lines become means of equal stretches (the last point stays itself)."""
    if len(points) <= _MOST_POINTS:
        return points
    groups = np.array_split(np.array(points[:-1]), _MOST_POINTS - 1)
    return [(float(group[:, 0].mean()), float(group[:, 1].mean())) for group in groups] + [points[-1]]


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round values that cover low … high."""
    if high <= low:
        high = low + 1
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((s * power for s in (1, 2, 5, 10)), key=lambda s: abs(math.log(s / rough)))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten within low … high; powers alone when that would be many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    return [step * 10.0**power for power in powers for step in steps]


def _number(value: float) -> str:
    if abs(value) >= 1000 and value == round(value, -2):
        return f"{value / 1000:g}k"
    return f"{value:.4g}"
