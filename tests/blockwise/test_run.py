"""Stages in blocks: every voxel once, fingerprints, resume, failures told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloom.blockwise import Block, Source, Stage, run_stage
from neuroloom.blockwise.failures import finished_blocks
from neuroloom.errors import UserError
from neuroloom.volume import create_volume, open_volume

triple = st.tuples(*[st.integers(1, 40)] * 3)


class Double(Stage):
    """Writes twice the input's value; slow or failing on request."""

    source: Source
    fail_at: int = -1
    bad_input: bool = False
    seconds: float = 0.0
    tells: bool = False
    not_fingerprinted = frozenset({"folder", "fail_at", "bad_input", "seconds", "tells"})

    def prepare(self) -> None:
        if not (self.folder / "out.zarr").exists():
            create_volume(self.folder / "out.zarr", "out", self.shape, "uint16", (8, 8, 8), chunks=self.block_shape)

    def process(self, block: Block) -> None:
        if block.number == self.fail_at:
            raise UserError("the chunk is bad") if self.bad_input else ValueError("boo")
        time.sleep(self.seconds)
        if self.tells:
            tell = self.teller(block)
            for share in (0.25, 0.5, 0.75):
                tell(share)
                time.sleep(1.1)
        begin, shape = block.write_roi.begin, block.write_roi.shape
        data = self.source.open().read(begin, shape).astype(np.uint16) * 2
        open_volume(self.folder / "out.zarr", "out").write(begin, data)
        with open(self.folder / "log.txt", "a") as file:
            file.write(f"{block.number}\n")


@pytest.fixture
def stage(tmp_path: Path) -> Double:
    raw = create_volume(tmp_path / "in.zarr", "raw", (10, 20, 25), "uint8", (8, 8, 8))
    raw.write((0, 0, 0), np.random.default_rng(0).integers(0, 255, (10, 20, 25), dtype=np.uint8))
    source = Source(path=str(tmp_path / "in.zarr"), dataset="raw", fingerprint="f")
    return Double(folder=tmp_path / "out", shape=(10, 20, 25), block_shape=(8, 8, 8), context=(1, 1, 1), source=source)


@settings(deadline=None, max_examples=50)
@given(shape=triple, block_shape=triple)
def test_blocks_tile_the_grid(shape: tuple[int, int, int], block_shape: tuple[int, int, int]) -> None:
    block_shape = tuple(max(b, s // 5) for b, s in zip(block_shape, shape, strict=True))  # type: ignore[assignment]
    stage = Stage(folder=Path("x"), shape=shape, block_shape=block_shape, context=(1, 2, 3))
    seen = np.zeros(shape, dtype=int)
    for number, block in enumerate(stage.blocks()):
        assert block.number == number
        seen[tuple(slice(b, e) for b, e in zip(block.write_roi.begin, block.write_roi.end, strict=True))] += 1
        assert block.read_roi == block.write_roi.grow((1, 2, 3), (1, 2, 3))
    assert (seen == 1).all()
    assert stage.block_count == number + 1


@pytest.mark.parametrize("workers", [1, 2])
def test_all_blocks_are_written_once(stage: Double, workers: int) -> None:
    calls: list[tuple[int, int]] = []
    result = run_stage(stage, workers, lambda done, total: calls.append((done, total)))
    assert result["blocks"] == 2 * 3 * 4
    expected = stage.source.open().read().astype(np.uint16) * 2
    np.testing.assert_array_equal(open_volume(stage.folder / "out.zarr", "out").read(), expected)
    assert sorted(int(n) for n in (stage.folder / "log.txt").read_text().split()) == list(range(24))
    assert calls[-1] == (24, 24)
    assert not (stage.folder / "lock").exists()
    assert run_stage(stage, workers) == result  # done: starts nothing


@pytest.mark.parametrize("context", [(8, 8, 8), (0, 7, 30)])
def test_context_may_be_longer_than_a_block(stage: Double, context: tuple[int, int, int]) -> None:
    seeing_more = stage.model_copy(update={"context": context})
    run_stage(seeing_more, 2)
    assert finished_blocks(seeing_more).all()
    assert len((stage.folder / "log.txt").read_text().split()) == stage.block_count


def test_what_is_done_of_blocks_counts_while_they_last(stage: Double) -> None:
    seen: list[float] = []
    one = stage.model_copy(update={"block_shape": stage.shape, "tells": True})
    run_stage(one, 1, lambda done, total: seen.append(done))
    assert seen == sorted(seen)  # though daisy tells its own count of whole blocks in between
    assert {0.25, 0.5, 0.75} & set(seen)  # a slow machine may miss one
    assert seen[-1] == 1
    assert not one.underway.exists()


def test_failed_blocks_are_named_and_only_they_are_repeated(stage: Double) -> None:
    with pytest.raises(UserError, match=r"1 of 24 blocks failed.*block 7: ValueError: boo"):
        run_stage(stage.model_copy(update={"fail_at": 7}), 2)
    assert not stage.is_done()
    report = json.loads((stage.folder / "failures" / "block-7.json").read_text())
    assert "ValueError: boo" in report["traceback"]
    run_stage(stage, 1)
    numbers = [int(n) for n in (stage.folder / "log.txt").read_text().split()]
    assert sorted(numbers) == list(range(24))
    assert numbers[-1] == 7


def test_bad_input_in_a_block_is_the_message(stage: Double) -> None:
    with pytest.raises(UserError, match=r"^the chunk is bad$"):
        run_stage(stage.model_copy(update={"fail_at": 0, "bad_input": True}), 1)


def test_another_live_run_is_refused(stage: Double) -> None:
    stage.folder.mkdir()
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        owner = {"host": os.uname().nodename, "pid": other.pid, "started": "now"}
        (stage.folder / "lock").write_text(json.dumps(owner))
        with pytest.raises(UserError, match=f"Another run is writing.*process {other.pid}"):
            run_stage(stage, 1)
    finally:
        other.kill()
        other.wait()
    run_stage(stage, 1)  # its owner has ended: the lock is taken over
    assert stage.is_done()


def test_fingerprint_follows_parameters_and_inputs_but_not_places(stage: Double) -> None:
    moved = stage.source.model_copy(update={"path": "/elsewhere", "dataset": "d"})
    changed = stage.source.model_copy(update={"fingerprint": "g"})
    assert stage.model_copy(update={"folder": Path("/y"), "source": moved}).fingerprint() == stage.fingerprint()
    assert stage.model_copy(update={"source": changed}).fingerprint() != stage.fingerprint()
    assert stage.model_copy(update={"block_shape": (4, 8, 8)}).fingerprint() != stage.fingerprint()
    assert stage.model_copy(update={"seconds": 5.0}).fingerprint() == stage.fingerprint()


@pytest.mark.system
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_run_goes_on(stage: Double, sent: signal.Signals) -> None:
    slow = stage.model_copy(update={"seconds": 0.2})
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_run import Double; from neuroloom.blockwise import "
        "run_stage; run_stage(Double.model_validate_json(sys.argv[2]), 2)"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent), slow.model_dump_json()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log = slow.folder / "log.txt"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (log.exists() and len(log.read_text().split()) >= 3):
        time.sleep(0.05)
    process.send_signal(sent)
    output, _ = process.communicate(timeout=600)
    before = len(log.read_text().split())
    assert 3 <= before < 24, output
    if sent != signal.SIGKILL:
        assert "Interrupted" in output
        assert not (slow.folder / "lock").exists()
    time.sleep(1.0)  # workers of a killed master finish their block and end
    run_stage(slow, 2)
    expected = stage.source.open().read().astype(np.uint16) * 2
    np.testing.assert_array_equal(open_volume(stage.folder / "out.zarr", "out").read(), expected)
    assert len(log.read_text().split()) <= 24 + 4  # at most the blocks in flight are done twice
