"""What a stage is: a frozen model with three methods, cut into blocks, named by a fingerprint.

A stage turns arrays or files into others, block by block. All in voxels of the stage's grid:

       +---------------------------+  read_roi  = write_roi grown by `context`; it may leave the volume,
       |   context                 |              the stage says what lies outside (reflection or nothing)
       |   +-------------------+   |
       |   |  write_roi        |   |  write_roi = what this block alone writes; the blocks tile [0, shape)
       |   |  (block_shape)    |   |              and are cut at its end
       |   +-------------------+   |
       +---------------------------+

`prepare()` makes the outputs, `process(block)` fills one block and is a pure function of the inputs in `read_roi`,
`finish()` does what needs all blocks. The fingerprint hashes parameters and inputs: a changed parameter gives another
folder, so a stale result is never taken for a fresh one. Adding a stage is one file that subclasses `Stage`.
"""

from __future__ import annotations

import importlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import daisy
from funlib.geometry import Coordinate, Roi
from pydantic import BaseModel, ConfigDict

from neuroloom.errors import UserError
from neuroloom.files import hash_json, read_json, write_json
from neuroloom.volume import Volume, open_volume
from neuroloom.volume.array import Triple

TELL_EVERY = 1.0
"""Seconds between two words about a block, and between two looks for them."""


class Source(BaseModel):
    """An input array and what identifies its content.

    Attributes:
        path: The zarr container.
        dataset: The array's name in it.
        fingerprint: Of the stage that makes it, or `volume_fingerprint` of a file from outside. Where the array lies
            is not part of a stage's fingerprint; this is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    dataset: str
    fingerprint: str

    def open(self) -> Volume:
        """The array.

        Raises:
            UserError: It is missing or has no voxel size.
        """
        return open_volume(self.path, self.dataset)


@dataclass(frozen=True)
class Block:
    """One block of a stage.

    Attributes:
        number: Its place in z-major order, from 0: unique, the same in every run.
        index: Its place along z, y, x.
        read_roi: Voxels it may read.
        write_roi: Voxels it alone writes.
    """

    number: int
    index: Triple
    read_roi: Roi
    write_roi: Roi


class Stage(BaseModel):
    """Base of all stages; see the module's picture.

    Attributes:
        folder: Where this stage's outputs lie (the caller names it by the fingerprint). Not fingerprinted.
        shape: Extent of the stage's grid in voxels, z y x.
        block_shape: Extent of a block's write roi in voxels, z y x.
        context: Voxels read beyond the write roi on each side, z y x.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: ClassVar[str] = "stage"
    """What progress and plan call it."""
    version: ClassVar[int] = 1
    """Raised when the same parameters give other bytes than before."""
    not_fingerprinted: ClassVar[frozenset[str]] = frozenset({"folder"})
    """Fields that do not change the result's bytes."""
    loads: ClassVar[tuple[str, ...]] = ()
    """Modules that `process` loads when it runs; local workers are forked from a process that has them."""

    folder: Path
    shape: Triple
    block_shape: Triple
    context: Triple = (0, 0, 0)

    def prepare(self) -> None:
        """Make the outputs; called once per run before any block, also on resume, so it must keep what is there."""

    def process(self, block: Block) -> None:
        """Fill one block: a pure function of the inputs in `block.read_roi`; writes `block.write_roi` only."""
        raise NotImplementedError

    def teller(self, block: Block) -> Callable[[float], None]:
        """What to call with the share that is done of a block that takes long; most calls cost nothing.

        Args:
            block: The one that is being processed.
        """
        last = 0.0

        def tell(share: float) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= TELL_EVERY:
                last = now
                write_json(self.underway / f"{block.number}.json", share)

        return tell

    @property
    def underway(self) -> Path:
        """The folder of what is said of blocks that are not done."""
        return self.folder / "underway"

    def finish(self) -> None:
        """Do what needs all blocks; atomic, harmless when repeated."""

    def fingerprint(self) -> str:
        """SHA-256 of the class, its version, the parameters and the inputs' fingerprints, as hexadecimal text."""
        parameters = self.model_dump(mode="json", exclude=set(self.not_fingerprinted))
        return hash_json({"stage": type(self).__name__, "version": self.version, "parameters": _strip(parameters)})

    @property
    def grid(self) -> Triple:
        """Number of blocks along z, y, x."""
        return _grid(self.shape, self.block_shape)

    @property
    def block_count(self) -> int:
        """Number of blocks."""
        z, y, x = self.grid
        return z * y * x

    def blocks(self) -> Iterator[Block]:
        """All blocks in z-major order."""
        for index in itertools.product(*(range(n) for n in self.grid)):
            yield self.block_at(index)

    def block_at(self, index: tuple[int, ...]) -> Block:
        """The block at a place of the grid, z y x."""
        z, y, x = (int(i) for i in index)
        begin = Coordinate(z, y, x) * Coordinate(self.block_shape)
        shape = Coordinate(min(b, s - o) for b, s, o in zip(self.block_shape, self.shape, begin, strict=True))
        write = Roi(begin, shape)
        context = Coordinate(self.context)
        _, ny, nx = self.grid
        return Block((z * ny + y) * nx + x, (z, y, x), write.grow(context, context), write)

    def place_of(self, number: int) -> Triple:
        """The place of a block in the grid, z y x, by its number."""
        _, ny, nx = self.grid
        return number // (ny * nx), number // nx % ny, number % nx

    @property
    def done_marker(self) -> Path:
        """The file whose presence says that the whole stage is done."""
        return self.folder / "done.json"

    def is_done(self) -> bool:
        """Whether all blocks and `finish` are done for exactly these parameters and inputs."""
        return self.done_marker.exists()

    def describe(self) -> None:
        """Write what was asked for beside the outputs, for people and for `status`."""
        write_json(
            self.description,
            {
                "stage": type(self).__name__,
                "module": type(self).__module__,
                "fingerprint": self.fingerprint(),
                "parameters": self.model_dump(mode="json"),
            },
        )

    @property
    def description(self) -> Path:
        """The file that `describe` writes and `load_stage` reads."""
        return self.folder / "stage.json"


def load_stage(description: Path) -> Stage:
    """The stage that `Stage.describe` wrote down, for a process that was not told otherwise what to do.

    Args:
        description: Its `stage.json`.

    Raises:
        UserError: The file is damaged, or this program would do something else than the one that wrote it.
    """
    described = read_json(description)
    name, module = str(described.get("stage")), str(described.get("module"))
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise UserError(
            f"{description} needs {module}, which cannot be imported here ({error}). Install the same packages for "
            "workers as for the program that starts them."
        ) from error
    if not (isinstance(found, type) and issubclass(found, Stage)):
        raise UserError(f"{description} names {module}.{name}, which is no stage of this version of neuroloom.")
    stage: Stage = found.model_validate(described["parameters"])
    if stage.fingerprint() != described["fingerprint"]:
        raise UserError(
            f"{description} was written by another version of neuroloom: its {name} would give other results than the "
            "one here. Install the same version for workers as for the program that starts them."
        )
    return stage


def described_grid(description: Path) -> Triple:
    """Number of blocks along z, y, x of the stage that `Stage.describe` wrote down, whatever program did.

    Args:
        description: Its `stage.json`.

    Raises:
        UserError: The file is damaged.
    """
    try:
        parameters = read_json(description)["parameters"]
        return _grid(parameters["shape"], parameters["block_shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{description} is damaged. Delete {description.parent} to do that step again.") from error


def _grid(shape: Sequence[int], block_shape: Sequence[int]) -> Triple:
    z, y, x = (-(-s // b) for s, b in zip(shape, block_shape, strict=True))
    return z, y, x


def block_of(stage: Stage, block: Any) -> Block:
    """The stage's block that one of daisy's is."""
    begin = block.write_roi.offset
    return stage.block_at(tuple(int(b) // s for b, s in zip(begin, stage.block_shape, strict=True)))


def worker_number() -> int:
    """Of this process among the workers of this machine, from 0; 0 too in one that is none, or is a job of its own."""
    number = int(daisy.Context.from_env().get("worker_id", 0)) if daisy.Context.ENV_VARIABLE in os.environ else 0
    return max(0, number)


def _strip(value: Any) -> Any:
    """Leave out where a source lies and keep what it is."""
    if isinstance(value, dict):
        if value.keys() == Source.model_fields.keys():
            return {"fingerprint": value["fingerprint"]}
        return {key: _strip(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_strip(item) for item in value]
    return value
