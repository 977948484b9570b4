"""How many steps fit into a time: the arithmetic on a curve with known times, and a real trial."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neuroloom.chain import pacing
from neuroloom.chain.pacing import TRIAL_STEPS, fit_training, seconds_per_step
from neuroloom.project import Parameters
from small_project import VALUES, make_project


def test_first_steps_and_prepared_batches_do_not_count(tmp_path: Path) -> None:
    # two slow steps, steps of 2 s, then some whose batches were ready
    lengths = [30.0, 5.0, *[2.0] * TRIAL_STEPS, 0.1, 0.1]
    stamps = [sum(lengths[: n + 1]) for n in range(len(lengths))]
    lines = [{"step": n + 1, "loss": 0.1, "seconds": s} for n, s in enumerate(stamps)]
    lines.insert(5, {"step": 5, "validation": 0.1})  # type: ignore[dict-item]
    (tmp_path / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert seconds_per_step(tmp_path / "curve.jsonl") == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("setup", "shares", "keep"),
    [("acrlsd", (0.25, 0.75), False), ("acrlsd", (0.25, 0.75), True), ("affs", (None, 1.0), False)],
)
def test_steps_fill_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setup: str, shares: tuple[float | None, float], keep: bool
) -> None:
    make_project(tmp_path)
    volumes = {
        kind: [{**volume, "path": str(tmp_path / volume["path"])} for volume in group]
        for kind, group in VALUES["volumes"].items()
    }
    values = {**VALUES, "volumes": volumes, "training": {**VALUES["training"], "setup": setup}}
    values["training"]["keep_descriptors"] = keep
    measured: list[float] = []

    def remember(curve: Path) -> float:
        measured.append(seconds_per_step(curve))
        return measured[-1]

    monkeypatch.setattr(pacing, "seconds_per_step", remember)
    seen: list[tuple[int, int]] = []
    fitted = fit_training(values, 60.0, lambda done, total, text: seen.append((done, total)))
    assert all(pace > 0 for pace in measured)
    assert len(measured) == (2 if setup == "acrlsd" else 1)
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))
    training = Parameters.model_validate(fitted).training
    seconds = 60.0
    if keep:
        # the volume in blocks of what the network sees of a crop, each predicted twice; a step is about 3.7 predictions
        one = measured[-1] / shares[1]
        left = seconds - training.affinities.iterations * one
        assert 0.5 * measured[0] - one < left < 20 * measured[0] + one
        seconds -= left
    assert training.affinities.iterations == pytest.approx(seconds * shares[1] / measured[-1], abs=1)
    if shares[0] is not None:
        assert training.lsd.iterations == pytest.approx(seconds * shares[0] / measured[0], abs=1 if not keep else 3)
    # nothing else has changed, and the trial is gone
    lengths = {"lsd": VALUES["training"]["lsd"], "affinities": VALUES["training"]["affinities"]}
    assert {**fitted, "training": {**fitted["training"], **lengths}} == values
    assert not list(tmp_path.rglob("curve.jsonl"))
