"""The rate of a sweep."""

from __future__ import annotations

import time

import pytest
import torch

from neuroloom.networks.architecture import UNetParameters, flop, input_shape
from neuroloom.prediction import rate


def test_all_of_the_piece_in_the_fastest_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "PIECE", (4, 6, 8))
    network = UNetParameters(in_channels=3, heads=(("affinities", 3),), feature_maps=2)
    seen: list[int] = []

    def sweep(*arguments: object) -> list[torch.Tensor]:
        slabs = list(actual(*arguments))
        seen.append(sum(slab.shape[2] for slab in slabs))
        return slabs

    actual = rate.sweep
    monkeypatch.setattr(rate, "sweep", sweep)
    clock = iter([0.0, 0.9, 10.0, 10.2, 20.0, 20.4, 30.0, 32.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    before = torch.random.get_rng_state()
    operations = flop(network, input_shape(network, (4, 6, 8)))
    assert rate.sweep_rate(network, "fp32", torch.device("cpu")) == pytest.approx(operations / 0.2)
    assert seen == [4, 4, 4]
    wider = network.model_copy(update={"in_channels": 5})
    operations = flop(wider, input_shape(wider, (4, 6, 8)))
    assert rate.sweep_rate(wider, "fp32", torch.device("cpu")) == pytest.approx(operations / 2)
    assert len(seen) == 4  # two seconds are long enough
    assert torch.equal(torch.random.get_rng_state(), before)  # training draws from it
