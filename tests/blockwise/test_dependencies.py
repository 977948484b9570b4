"""Which blocks read which: against looking at every pair, and against what daisy hands out."""

from __future__ import annotations

from pathlib import Path

import daisy.v2
import numpy as np
from funlib.geometry import Coordinate, Roi
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloom.blockwise import Source, Stage
from neuroloom.blockwise.dependencies import any_in, blocks_read, inputs_there, readers_of, reads, still_read
from neuroloom.blockwise.stage import block_of

Triple = tuple[int, int, int]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Stage, Stage, np.ndarray]:
    """A reader, what it reads, and random flags on blocks of the latter."""
    shape = draw(st.tuples(*[st.integers(1, 30)] * 3))

    def stage(name: str, context: Triple) -> Stage:
        block = tuple(max(draw(st.integers(1, 12)), s // 4) for s in shape)
        return Stage(folder=Path(name), shape=shape, block_shape=block, context=context)

    source = stage("source", (0, 0, 0))
    reader = stage("reader", draw(st.tuples(*[st.integers(0, 5)] * 3)))
    flags = draw(st.lists(st.booleans(), min_size=source.block_count, max_size=source.block_count))
    return reader, source, np.array(flags).reshape(source.grid)


@settings(deadline=None, max_examples=60)
@given(pairs())
def test_blocks_that_touch_what_is_read(drawn: tuple[Stage, Stage, np.ndarray]) -> None:
    reader, source, flags = drawn
    found, back = any_in(blocks_read(reader, source), flags), np.zeros(source.grid, dtype=bool)
    finished = np.random.default_rng(0).random(reader.grid) < 0.5
    for block in reader.blocks():
        read = [other for other in source.blocks() if other.write_roi.intersects(block.read_roi)]
        assert found[block.index] == any(flags[other.index] for other in read)
        for other in read:
            back[other.index] |= not finished[block.index]
    np.testing.assert_array_equal(still_read(source, [(reader, finished)]), back)
    np.testing.assert_array_equal(any_in(readers_of(reader, source), ~finished), back)


@settings(deadline=None, max_examples=20)
@given(pairs())
def test_daisy_hands_out_the_blocks_that_have_their_inputs(drawn: tuple[Stage, Stage, np.ndarray]) -> None:
    reader, source, flags = drawn
    up, down = task("up", source), task("down", reader)
    scheduler = daisy.v2.Scheduler(daisy.v2.Pipeline([up, down], [(up, down)]))
    for _ in range(source.block_count):
        block = scheduler.acquire_block("up")
        if flags[block_of(source, block).index]:
            block.status = daisy.v2.BlockStatus.SUCCESS
            scheduler.release_block(block)
    handed_out = np.zeros(reader.grid, dtype=bool)
    while scheduler.task_states["down"].ready_count:
        handed_out[block_of(reader, scheduler.acquire_block("down")).index] = True
    np.testing.assert_array_equal(handed_out, inputs_there(reader, [(source, flags)]))


def task(name: str, stage: Stage) -> daisy.v2.Task:
    context, block = Coordinate(stage.context), Roi(Coordinate(0, 0, 0), Coordinate(stage.block_shape))
    total = Roi(Coordinate(0, 0, 0), Coordinate(stage.shape)).grow(context, context)
    options = {"read_write_conflict": False, "fit": "shrink", "process_function": lambda block: None}
    return daisy.v2.Task(name, total, block.grow(context, context), block, **options)


class Reads(Stage):
    """Has an input."""

    source: Source


def test_a_stage_reads_what_has_the_fingerprint_of_its_input() -> None:
    source = Stage(folder=Path("a"), shape=(4, 4, 4), block_shape=(2, 2, 2))
    made = Source(path="a", dataset="d", fingerprint=source.fingerprint())
    reader = Reads(folder=Path("b"), shape=(4, 4, 4), block_shape=(2, 2, 2), source=made)
    assert reads(reader, source)
    assert not reads(source, reader)
    assert not reads(reader, source.model_copy(update={"block_shape": (4, 4, 4)}))
