"""Progress where there is no terminal: lines with the time left."""

from __future__ import annotations

import pytest

from neuroloom.cli import progress
from neuroloom.cli.progress import duration, show_progress


def test_time_left_is_that_of_units(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither what was done before a run that goes on, nor what precedes its first unit, counts."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with show_progress("training") as advance:
        for seconds, done in ((0, 40), (300, 40), (30, 43), (30, 46), (1, 46)):
            now[0] += seconds
            advance(done, 100, "words")
        now[0] += 9
    assert capsys.readouterr().out.splitlines() == [
        "  training: 40 of 100 words, 5 min 00 s",
        "  training: 43 of 100 words, 5 min 30 s, 9 min 30 s left",
        "  training: 46 of 100 words, 6 min 00 s, 9 min 00 s left",
        "  training: done in 6 min 10 s",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (8, "8 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (3599.6, "1 h 00 min")]
)
def test_durations_are_for_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words
