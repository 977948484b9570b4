"""Plans of prediction, and calibrations that make them exact."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from neuroloom.chain import Chain, estimates, open_project
from neuroloom.chain.prediction_plan import calibrate, calibration_file, plan_prediction, read_calibration
from neuroloom.errors import UserError
from neuroloom.models import find_weights
from neuroloom.networks.architecture import flop
from neuroloom.prediction import rate
from neuroloom.prediction.tiles import extents
from small_model import save_weights
from small_project import VALUES, make_project


def chain_of(folder: Path, **prediction: Any) -> Chain:
    save_weights(folder / "given.ckpt", "acrlsd")
    values = {
        "prediction": {"model": "./given.ckpt", **prediction},
        "volumes": {"validate": VALUES["volumes"]["validate"]},
    }
    return Chain(open_project(make_project(folder, values)))


def test_a_plan_counts_blocks_operations_and_memory(tmp_path: Path) -> None:
    chain = chain_of(tmp_path / "p", block=[16, 20, 22], mirrors=2)
    plan = plan_prediction(chain, chain.volume("val"))  # 30 x 40 x 44 voxels
    assert (plan.block, plan.blocks, plan.tile) == ((16, 20, 22), 8, (16, 20, 22))
    networks = chain.networks
    blocks = {(16, 20, 22): 4, (14, 20, 22): 4}  # the last ones are cut along z
    assert plan.operations == 2 * sum(
        number * flop(network, seen)
        for block, number in blocks.items()
        for network, seen in zip(networks, extents(networks, block), strict=True)
    )
    assert 0.4e9 < plan.memory < 0.5e9  # little more than the program
    assert plan.voxels_per_second > 0
    assert not plan.calibrated
    assert "8 blocks of 16 x 20 x 22 voxels" in str(plan)
    assert "--calibrate` measures it" in str(plan)


def test_a_block_larger_than_the_volume_is_planned_as_what_there_is(tmp_path: Path) -> None:
    plans = []
    for name, block in (("all", [30, 40, 44]), ("more", [200, 100_000, 44])):
        chain = chain_of(tmp_path / name, block=block)
        plans.append(plan_prediction(chain, chain.volume("val")))
    assert plans[1].blocks == plans[0].blocks == 1
    assert (plans[1].tile, plans[1].memory, plans[1].operations) == (
        plans[0].tile,
        plans[0].memory,
        plans[0].operations,
    )
    assert calibrate(chain, chain.volume("val")).crop == (30, 40, 44)


def test_plans_rest_on_a_sweep_and_those_of_large_networks_on_a_convolution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = chain_of(tmp_path / "p")
    monkeypatch.setattr(rate, "sweep_rate", lambda network, precision, device: 1e3)
    monkeypatch.setattr(estimates, "measure_rate", lambda device, precision, maps: 1e8)
    monkeypatch.setattr(estimates, "measure_first_use", lambda: 1e15)
    monkeypatch.setattr(estimates, "PIECE_SECONDS", 1e9)
    plan = plan_prediction(chain, chain.volume("val"))
    seconds = 30 * 40 * 44 / plan.voxels_per_second
    assert seconds == pytest.approx(plan.operations / 1e3, rel=1e-3)
    monkeypatch.setattr(estimates, "PIECE_SECONDS", 0.0)
    slow = plan_prediction(chain, chain.volume("val"))
    seconds = 30 * 40 * 44 / slow.voxels_per_second
    assert seconds == pytest.approx(plan.operations / (estimates.EFFICIENCY * 1e8), rel=1e-3)


def test_memory_that_is_used_for_the_first_time_takes_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1e7 < estimates.measure_first_use() < 1e12
    chain = chain_of(tmp_path / "p")
    seconds = []
    for speed in (1e6, 2e6):
        monkeypatch.setattr(estimates, "measure_first_use", lambda speed=speed: speed)
        plan = plan_prediction(chain, chain.volume("val"))
        seconds.append(30 * 40 * 44 / plan.voxels_per_second)
    assert seconds[0] - seconds[1] == pytest.approx(plan.memory / 2e6)


def test_a_calibration_is_what_plans_rest_upon(tmp_path: Path) -> None:
    chain = chain_of(tmp_path / "p")
    found = calibrate(chain, chain.volume("val"))
    assert found.crop == (30, 40, 44)
    assert found.weights == (find_weights("./given.ckpt", chain.project.folder).sha256,)
    plan = plan_prediction(chain, chain.volume("val"))
    assert plan.calibrated
    # all of it was the crop: the same operations, in the time that was measured
    assert plan.voxels_per_second == pytest.approx(math.prod(found.crop) / sum(found.seconds.values()), rel=1e-6)
    assert plan.voxels_per_second == pytest.approx(found.voxels_per_second)
    assert 0 < found.bytes_per_voxel < 4
    assert found.memory > 1e8
    assert not list(chain.project.folder.glob("calibration-*"))  # what was written to be timed is gone

    other = Chain(open_project(tmp_path / "p"))
    assert read_calibration(other) == found
    save_weights(tmp_path / "p" / "given.ckpt", "acrlsd", seed=5)
    assert read_calibration(Chain(open_project(tmp_path / "p"))) is None  # of other weights
    calibration_file(other).write_text("{")
    assert not plan_prediction(other, other.volume("val")).calibrated


def test_large_blocks_are_calibrated_on_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from neuroloom.chain import prediction_plan

    monkeypatch.setattr(prediction_plan, "SECONDS", 0.0)  # nothing takes no time
    chain = chain_of(tmp_path / "p")
    found = calibrate(chain, chain.volume("val"))
    assert found.crop == (2, 2, 2)  # the networks' factor
    assert json.loads(calibration_file(chain).read_text())["crop"] == [2, 2, 2]


def test_without_weights_nothing_can_be_planned(tmp_path: Path) -> None:
    chain = Chain(open_project(make_project(tmp_path)))
    with pytest.raises(UserError, match="needs a trained network"):
        plan_prediction(chain, chain.volume("val"))
