"""What a benchmark measured, as a table and as one line of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median


class Disagreement(Exception):
    """Both sides were to compute the same, and did not."""


@dataclass(frozen=True)
class Result:
    """One comparison.

    Attributes:
        what: In a few words.
        ours, peer: What was measured each time.
        unit: Of both.
        less_is_better: True for times and sizes, False for rates.
    """

    what: str
    ours: tuple[float, ...]
    peer: tuple[float, ...]
    unit: str
    less_is_better: bool = True

    @property
    def ratio(self) -> float:
        """Above 1: so many times better than the peer; of the medians."""
        ours, peer = median(self.ours), median(self.peer)
        return peer / ours if self.less_is_better else ours / peer


def alternate(ours: Callable[[], float], peer: Callable[[], float], times: int) -> tuple[list[float], list[float]]:
    """Measure both sides in turn, so that both see the same machine.

    Args:
        ours, peer: Do the work once and say what was measured.
        times: How often.
    """
    pairs = [(ours(), peer()) for _ in range(times)]
    return [mine for mine, _ in pairs], [theirs for _, theirs in pairs]


def as_table(results: Sequence[Result]) -> str:
    """Aligned columns for a terminal; medians, and how many were taken."""
    rows = [("what", "ours", "peer", "unit", "ratio", "n")]
    rows += [
        (
            result.what,
            f"{median(result.ours):.4g}",
            f"{median(result.peer):.4g}",
            result.unit,
            f"{result.ratio:.3g}",
            _count(result),
        )
        for result in results
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, 3) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def as_json(benchmark: str, results: Sequence[Result]) -> str:
    """One line: an object with the benchmark's name, and what, ours, peer, unit, ratio and n of each result."""
    rows = [
        {
            "what": result.what,
            "ours": median(result.ours),
            "peer": median(result.peer),
            "unit": result.unit,
            "ratio": result.ratio,
            "n": min(len(result.ours), len(result.peer)),
        }
        for result in results
    ]
    return json.dumps({"benchmark": benchmark, "results": rows})


def _count(result: Result) -> str:
    ours, peer = len(result.ours), len(result.peer)
    return str(ours) if ours == peer else f"{ours}, {peer}"
