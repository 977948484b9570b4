"""Stages that run at the same time: nobody reads what is not there, nobody runs far ahead, results may be deleted."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neuroloom.blockwise import Block, Source, Unread, Work, run_stages
from neuroloom.blockwise.intermediate import Intermediate, any_deleted, check_there, deleted_blocks
from neuroloom.blockwise.overlap import HANDED, WANTED, Overlap, overlap_of, tell_handed, wanted_blocks, write_overlaps
from neuroloom.blockwise.tracking import take_back
from neuroloom.blockwise.work import Supply
from neuroloom.errors import BlocksFailed, UserError
from neuroloom.files import write_json, write_text

from .test_worker import OneWorker, _importable  # noqa: F401

pytestmark = pytest.mark.system


class Makes(Intermediate):
    """Writes a file for each block, after a while."""

    not_fingerprinted = frozenset({"folder", "seconds", "fail_at"})
    seconds: float = 0.0
    fail_at: tuple[int, ...] = ()

    @property
    def output(self) -> Source:
        return Source(path=str(self.folder / "out"), dataset="out", fingerprint=self.fingerprint())

    def process(self, block: Block) -> None:
        if block.number in self.fail_at:
            raise ValueError(f"boo {block.number}")
        time.sleep(self.seconds)
        self.make(block)

    def make(self, block: Block) -> None:
        self.write(block, "made")

    def write(self, block: Block, text: str) -> None:
        write_text(self.folder / "out" / f"{block.number}.txt", text)
        with open(self.folder / "log.txt", "a") as file:
            file.write(f"{time.time()} {block.number}\n")

    def delete(self, block: Block) -> None:
        (self.folder / "out" / f"{block.number}.txt").unlink()

    def outputs(self) -> dict[int, str]:
        return {int(file.stem): file.read_text() for file in (self.folder / "out").glob("*.txt")}

    def order(self) -> list[int]:
        return [int(line.split()[1]) for line in (self.folder / "log.txt").read_text().splitlines()]


class Reads(Makes):
    """Reads blocks of `source`, which has blocks as this has, and must find them."""

    source: Source

    def make(self, block: Block) -> None:
        read = [other.number for other in self.blocks() if other.write_roi.intersects(block.read_roi)]
        files = [Path(source.path) / f"{number}.txt" for source in self.inputs() for number in read]
        self.write(block, " ".join(file.name for file in files if file.read_text()))
        check_there(self.source, block.read_roi)

    def inputs(self) -> list[Source]:
        return [self.source]


class ReadsBoth(Reads):
    """Reads two."""

    other: Source

    def inputs(self) -> list[Source]:
        return [self.source, self.other]


def stages(folder: Path, **more: object) -> tuple[Makes, Reads, ReadsBoth]:
    cut = {"shape": (12, 8, 8), "block_shape": (2, 4, 4)}
    first = Makes(folder=folder / "first", **cut, **more)
    second = Reads(folder=folder / "second", **cut, context=(1, 1, 1), source=first.output)
    third = ReadsBoth(folder=folder / "third", **cut, context=(1, 0, 0), source=second.output, other=first.output)
    return first, second, third


@pytest.fixture
def chain(tmp_path: Path) -> tuple[Makes, Reads, ReadsBoth]:
    return stages(tmp_path)


def works(chain: Sequence[Makes], lead: int = 64, supply: Supply | None = None) -> list[Work]:
    return [Work(stage, lead=lead, supply=supply) for stage in chain]


def supply() -> Supply:
    return Supply(OneWorker, "127.0.0.1", 60.0)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_blocks_are_done_as_soon_as_their_inputs_are_there(
    chain: tuple[Makes, Reads, ReadsBoth], tmp_path: Path, elsewhere: bool
) -> None:
    slow = [stage.model_copy(update={"seconds": 0.1}) for stage in chain]
    run_stages(works(slow, 4, supply() if elsewhere else None))
    one_by_one = stages(tmp_path / "one by one")
    for stage in one_by_one:
        run_stages([Work(stage)])
    assert [stage.outputs() for stage in chain] == [stage.outputs() for stage in one_by_one]
    times = [[float(line.split()[0]) for line in (s.folder / "log.txt").read_text().splitlines()] for s in chain]
    assert times[1][0] < times[0][-1]  # they really overlapped
    assert times[2][0] < times[1][-1]
    assert all(stage.is_done() for stage in chain)
    assert not any((stage.folder / "lock").exists() for stage in chain)


def test_a_stage_that_is_ahead_pauses(chain: tuple[Makes, Reads, ReadsBoth]) -> None:
    first, second = (s.model_copy(update={"seconds": t}) for s, t in zip(chain[:2], (0.15, 0.6), strict=True))
    run_stages(works([first, second], lead=3))
    lines = [(line.split(), stage) for stage in (first, second) for line in (stage.folder / "log.txt").open()]
    made, read, most = np.zeros(first.grid, dtype=bool), np.zeros(second.grid, dtype=bool), 0
    for (_, number), stage in sorted(lines, key=lambda line: float(line[0][0])):
        (made if stage is first else read)[stage.place_of(int(number))] = True
        ready = [b for b in second.blocks() if made[tuple(slice(max(0, i - 1), i + 2) for i in b.index)].all()]
        most = max(most, sum(not read[block.index] for block in ready))
    # without a pause, 18 at least; the last input of some may be made before the master has told that enough are ready
    assert 3 <= most <= 3 + 10


def test_a_run_that_goes_on_does_not_wait_for_what_was_done_before(chain: tuple[Makes, Reads, ReadsBoth]) -> None:
    first, second, third = chain
    run_stages([Work(first, only=frozenset(range(13)))])
    run_stages([Work(second, only=frozenset({0, 1, 2, 5}))])
    told: list[float] = []
    last = Work(third, lead=1, supply=supply(), progress=lambda done, total: told.append(done))
    run_stages([*works([first, second], 1, supply()), last])
    assert all(stage.is_done() for stage in chain)
    assert [sorted(stage.order()) for stage in chain] == [list(range(24))] * 3
    assert told[-1] == 24
    first.done_marker.unlink()  # as if it had been killed after the last block
    changed = second.model_copy(update={"folder": second.folder / "changed", "context": (0, 0, 0)})
    run_stages(works([first, changed], 1, supply()))
    assert sorted(changed.order()) == list(range(24))


def test_a_stage_that_is_ahead_from_an_earlier_run_goes_on(chain: tuple[Makes, Reads, ReadsBoth]) -> None:
    first, second, _ = chain
    run_stages(works([first]))
    first.done_marker.unlink()
    take_back(first.folder / "blocks", [(0, 0, 0)])  # daisy hears of the others only when it has given out this one
    run_stages(works([first, second], lead=3))
    assert first.is_done()
    assert second.is_done()


def test_what_daisy_told_last_does_not_hold_a_stage_up_for_ever(chain: tuple[Makes, Reads, ReadsBoth]) -> None:
    first, second, _ = chain
    for stage in (first, second):
        stage.folder.mkdir()
        stage.describe()
        write_json(stage.folder / WANTED, None)
    [overlap, _] = write_overlaps([(first, 2), (second, 2)])
    assert not overlap.is_ahead()
    tell_handed(second, ready=9, underway=0)
    assert not overlap.is_ahead()  # none of its blocks can have what it reads
    run_stages([Work(first)])
    for stage in (first, second):
        write_json(stage.folder / WANTED, None)
    [overlap, _] = write_overlaps([(first, 2), (second, 2)])
    assert not overlap.is_ahead()
    tell_handed(second, ready=9, underway=0)
    assert overlap.is_ahead()
    tell_handed(second, ready=1, underway=0)
    assert not overlap.is_ahead()
    for underway in (1, 0):
        tell_handed(second, ready=9, underway=underway)
        long_ago = time.time() - 601
        os.utime(second.folder / HANDED, (long_ago, long_ago))
        assert overlap.is_ahead() == (underway == 1)
    tell_handed(second, ready=0, underway=0)
    assert overlap_of(second).open_blocks() == 0
    os.utime(second.folder / HANDED, (long_ago, long_ago))
    assert overlap_of(second).open_blocks() == 24
    tell_handed(second, ready=9, underway=0)
    assert overlap.is_ahead()
    run_stages([Work(second)])
    write_json(second.folder / WANTED, None)
    [overlap, _] = write_overlaps([(first, 2), (second, 2)])
    tell_handed(second, ready=9, underway=0)
    assert not overlap.is_ahead()  # all of its blocks are done


def test_what_runs_beside_a_stage_is_told_to_workers(chain: tuple[Makes, Reads, ReadsBoth]) -> None:
    for stage in chain:
        stage.folder.mkdir()
        stage.describe()
    write_overlaps([(stage, 5) for stage in chain])
    found = [overlap_of(stage) for stage in chain]
    assert [(o.sources, o.readers, o.lead) for o in found] == [
        ((), chain[1:], 5),
        (chain[:1], chain[2:], 5),
        (chain[:2], (), 5),
    ]
    write_overlaps([(chain[1], 5)])
    assert overlap_of(chain[1]) == Overlap(chain[1])
    assert not wanted_blocks(chain[1]).any()  # nobody hands any out
    write_json(chain[1].folder / "wanted.json", [3, 4])
    assert np.flatnonzero(wanted_blocks(chain[1])).tolist() == [3, 4]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_blocks_wait_for_those_that_failed(chain: tuple[Makes, Reads, ReadsBoth], elsewhere: bool) -> None:
    bad = chain[0].model_copy(update={"fail_at": (0,)})
    made = works([bad, *chain[1:]], supply=supply() if elsewhere else None)
    with pytest.raises(BlocksFailed, match=r"^stage: 1 of 24 blocks failed. First: block 0: ValueError: boo 0.*wait"):
        run_stages(made)
    assert sorted(bad.outputs()) == list(range(1, 24))
    assert sorted(chain[1].outputs()) == list(range(8, 24))  # blocks 0 to 7 read block 0
    assert sorted(chain[2].outputs()) == list(range(12, 24))
    run_stages(works(chain))
    assert all(stage.is_done() for stage in chain)
    assert sorted(chain[2].order()) == list(range(24))  # none is done twice


def test_results_are_deleted_when_nobody_is_to_read_them(chain: tuple[Makes, Reads, ReadsBoth], tmp_path: Path) -> None:
    unread = Unread(chain[0], chain[1:])
    run_stages([Work(chain[0])])
    assert unread.delete() == 0  # everything is to be read
    run_stages([Work(chain[1])])
    assert unread.delete() == 0
    run_stages([Work(chain[2], only=frozenset(range(12)))])
    assert unread.delete() == 8  # block 11, in layer 2, reads layers 1 to 3
    assert sorted(chain[0].outputs()) == list(range(8, 24))
    assert any_deleted(chain[0].folder)
    damaged = chain[0].folder / "deleted.npz"
    content = damaged.read_bytes()
    for garbage in (b"garbage", content[:100]):
        damaged.write_bytes(garbage)
        with pytest.raises(UserError, match=r"deleted.npz is damaged. Delete .*first to do that step again"):
            unread.wanted_again()
    damaged.write_bytes(content)
    with pytest.raises(UserError, match="is deleted where it should be read"):
        check_there(chain[0].output, chain[0].block_at((1, 0, 0)).write_roi)
    check_there(chain[0].output, chain[0].block_at((2, 0, 0)).write_roi)
    run_stages([Work(chain[2])])
    assert unread.delete() == 16
    assert not unread.wanted_again().any()
    assert chain[0].is_done()
    changed = chain[1].model_copy(update={"folder": tmp_path / "changed", "context": (0, 0, 0)})
    again = Unread(chain[0], (changed,))
    run_stages([Work(chain[0])])  # done: nothing happens
    assert not chain[0].outputs()
    assert again.wanted_again().all()
    run_stages(works([chain[0], changed]), unread=replace(again, deletes=False))
    assert chain[0].is_done()
    assert not deleted_blocks(chain[0]).any()
    assert sorted(chain[0].outputs()) == list(range(24))
    assert sorted(changed.outputs()) == list(range(24))
    again.delete()
    assert not chain[0].outputs()


def test_only_some_blocks(chain: tuple[Makes, Reads, ReadsBoth]) -> None:
    told: list[tuple[float, int]] = []
    work = Work(chain[0], only=frozenset({3, 7, 8}), progress=lambda done, total: told.append((done, total)))
    run_stages([work])
    assert sorted(chain[0].outputs()) == [3, 7, 8]
    assert told[-1] == (3, 3)
    assert not chain[0].is_done()
    run_stages([work])  # nothing is left of it
    assert sorted(chain[0].order()) == [3, 7, 8]
    run_stages([Work(chain[0])])
    assert sorted(chain[0].order()) == list(range(24))
    assert chain[0].is_done()
    assert json.loads(chain[0].done_marker.read_text())["blocks"] == 24
