"""What blocks cost: measured, and written as whole lines whatever happens."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from neuroloom.blockwise.accounts import Accounts
from neuroloom.blockwise.gpus import GpuMeter
from neuroloom.files import append_line


def costs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in folder.glob("workers/*.jsonl") for line in file.read_text().splitlines()]


def test_time_processors_memory_and_bytes_are_those_of_the_block(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path, "run", "node", "worker")
    burn = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    # memory that really goes back, whatever the allocator keeps
    with accounts.block(1), mmap.mmap(-1, 400 * 2**20) as large:
        for _ in range(100):
            large.write(b"1" * 2**22)
        (tmp_path / "written").write_bytes(large[: 10 * 2**20])
    with accounts.block(2):
        (tmp_path / "written").read_bytes()
        subprocess.run([sys.executable, "-c", burn], check=True)
        time.sleep(0.2)
    first, second = costs(tmp_path)
    assert [first["block"], second["block"]] == [1, 2]
    assert first["memory"] > 400 * 2**20
    assert second["memory"] < first["memory"] - 200 * 2**20  # not what an earlier block took
    assert 10 * 2**20 <= first["written"] < 12 * 2**20
    assert second["read"] >= 10 * 2**20 > second["written"]
    assert second["cpu_seconds"] >= 0.3  # of another process
    assert second["seconds"] >= second["cpu_seconds"] / 2 + 0.2
    assert {first[key] for key in ("gpu_memory", "gpu_busy_seconds", "failed")} == {None}


def test_a_block_that_raises_is_accounted_as_failed(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path, "run", "node", "worker")
    with pytest.raises(ValueError, match="boo"), accounts.block(3):
        raise ValueError("boo")
    assert [(cost["block"], cost["failed"]) for cost in costs(tmp_path)] == [(3, "ValueError: boo")]


def test_a_worker_that_went_back_to_the_queue_goes_on_in_a_file_of_its_own(tmp_path: Path) -> None:
    zombie, again = (Accounts(tmp_path, "run", node, "12_3", restart) for node, restart in (("a", 0), ("b", 1)))
    for number in range(3):
        for accounts in (zombie, again):
            with accounts.block(number):
                pass
    files = {file.name: file.read_text() for file in (tmp_path / "workers").iterdir()}
    assert set(files) == {"12_3.jsonl", "12_3.1.jsonl"}
    for text, node in ((files["12_3.jsonl"], "a"), (files["12_3.1.jsonl"], "b")):
        assert {json.loads(line)["node"] for line in text.splitlines()} == {node}


def test_a_line_that_was_cut_short_spoils_no_other(tmp_path: Path) -> None:
    file = tmp_path / "workers" / "worker.jsonl"
    file.parent.mkdir()
    file.write_text('{"block": 1, "se')
    with Accounts(tmp_path, "run", "node", "worker").block(2):
        pass
    append_line(file, {"block": 3})
    assert [json.loads(line)["block"] for line in file.read_text().splitlines()[1:]] == [2, 3]


def test_a_disk_that_takes_no_line_fails_no_block(tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "worker.jsonl").symlink_to("/dev/full")
    done = []
    with Accounts(tmp_path, "run", "node", "worker").block(1):
        done.append(1)
    assert done == [1]
    with pytest.raises(OSError, match="No space left"):
        append_line(tmp_path / "workers" / "worker.jsonl", {})


def test_accounting_takes_little(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path, "run", "node", "worker")
    began = time.process_time()
    for number in range(2000):
        with accounts.block(number):
            pass
    assert (time.process_time() - began) / 2000 < 0.0005  # 0.05 ms, as measured on a machine that does nothing else
    assert len(costs(tmp_path)) == 2000


class FakeCuda:
    """`torch.cuda` of a process whose second GPU holds tensors."""

    def __init__(self) -> None:
        self.peak = [0, 5000]

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return 2

    def reset_peak_memory_stats(self, device: int) -> None:
        self.peak[device] = min(self.peak[device], 1000)

    def max_memory_allocated(self, device: int) -> int:
        return self.peak[device]

    def get_device_properties(self, device: int) -> SimpleNamespace:
        return SimpleNamespace(uuid=f"{device}{device}")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    backends = SimpleNamespace(cuda=SimpleNamespace(is_built=lambda: True))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=fake, backends=backends))
    return fake


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, percent: str) -> None:
    """A program of that name, for want of a GPU: for five seconds it says all the time how busy each of two is."""
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nfor i in $(seq 100); do echo "GPU-00, 7"; echo "GPU-11, {percent}"; sleep 0.05; done\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)


def test_of_a_fake_gpu_busy_time_and_peak_memory_of_the_block_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda
) -> None:
    nvidia_smi(tmp_path, monkeypatch, "50")
    meter = GpuMeter()
    meter.begin()
    assert cuda.peak == [0, 1000]
    time.sleep(1.0)
    cuda.peak[1] = 3000
    busy, memory = meter.end()
    assert memory == 3000
    assert busy == pytest.approx(0.5, abs=0.3)
    meter.begin()
    assert meter.end() == (pytest.approx(0.0, abs=0.2), 1000)


def test_a_fake_gpu_that_does_not_tell_how_busy_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda
) -> None:
    nvidia_smi(tmp_path, monkeypatch, "[N/A]")
    meter = GpuMeter()
    meter.begin()
    time.sleep(0.3)
    assert meter.end() == (None, 1000)


def test_without_torch_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    meter = GpuMeter()
    meter.begin()
    assert meter.end() == (None, None)
    assert "torch" not in sys.modules
