"""Device and number format."""

from __future__ import annotations

import pytest
import torch

from neuroloom.errors import UserError
from neuroloom.networks import precision
from neuroloom.networks.precision import autocast, choose_device, choose_precision, devices

CPU = torch.device("cpu")


def test_wanted_device_and_precision_are_taken() -> None:
    assert choose_device("cpu") == CPU
    assert choose_precision(CPU, "fp32") == "fp32"
    assert choose_precision(torch.device("meta"), "fp16") == "fp16"
    assert choose_precision(torch.device("meta")) == "fp32"


def test_automatic_device_exists() -> None:
    assert torch.zeros(2, device=choose_device()).sum() == 0


@pytest.mark.parametrize("name", ["cuda:63", "abacus"])
def test_missing_device_is_named(name: str) -> None:
    with pytest.raises(UserError, match=name):
        choose_device(name)


@pytest.mark.parametrize("has_bf16", [True, False])
def test_bf16_only_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch, has_bf16: bool) -> None:
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: has_bf16)
    assert choose_precision(CPU) == choose_precision(CPU, "bf16") == ("bf16" if has_bf16 else "fp32")
    assert choose_precision(CPU, "fp16") == "fp32"


def test_instructions_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert not precision._cpu_has_bf16()
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert precision._cpu_has_bf16()


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_convolutions_run_in_it(name: precision.Precision, dtype: torch.dtype) -> None:
    with torch.no_grad(), autocast(CPU, name):
        assert torch.nn.Conv3d(1, 1, 1)(torch.ones(1, 1, 1, 1, 1)).dtype == dtype


def test_devices() -> None:
    assert devices("cpu") == ["cpu"]
    assert devices("cuda:0, cuda:1") == ["cuda:0", "cuda:1"]
    assert devices("auto") in (["cpu"], [f"cuda:{n}" for n in range(torch.cuda.device_count())])
