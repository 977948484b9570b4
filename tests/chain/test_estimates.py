"""What steps are said to take before anything has begun."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from neuroloom.chain import Chain, estimates, open_project
from small_project import VALUES, make_project


def test_scores_of_a_training_start_no_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twice as many voxels they take twice as long, of none nothing."""
    monkeypatch.setattr(estimates, "measure_rate", lambda device, precision, maps: math.inf)
    chain = Chain(open_project(make_project(tmp_path / "p", {"training": {**VALUES["training"], "score_every": 5}})))
    parameters, networks = chain.parameters, chain.networks
    one, two = (estimates.scoring(parameters, networks, [(40, 50, 60)] * many) for many in (1, 2))
    assert 0 < one < estimates.SECONDS_PER_STAGE
    assert two == pytest.approx(2 * one)
    assert estimates.scoring(parameters, networks, []) == 0
    assert estimates.stage(parameters, "fragments", (40, 50, 60), networks) > estimates.SECONDS_PER_STAGE
