"""Results of a stage that nobody is to read any more: deleted on request, and made again if they are wanted after all.

    deleted.npz of the stage's folder    `blocks`: (z, y, x) bool, one for each block    `block_shape`: in voxels

A block is marked there before its files go, so that nobody takes what is left for a result.
"""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from funlib.geometry import Roi
from numpy.typing import NDArray

from neuroloom.blockwise.dependencies import Flags, still_read
from neuroloom.blockwise.failures import finished_blocks
from neuroloom.blockwise.stage import Block, Source, Stage
from neuroloom.blockwise.tracking import take_back
from neuroloom.errors import UserError
from neuroloom.files import write_atomic

FILE = "deleted.npz"


def any_deleted(folder: Path) -> bool:
    """Whether any block is deleted of the stage whose folder this is."""
    found = _read(folder)
    return found is not None and bool(found[0].any())


def deleted_blocks(stage: Stage) -> Flags:
    """Which blocks of a stage are deleted, `(z, y, x)` of its grid."""
    found = _read(stage.folder)
    return np.zeros(stage.grid, dtype=bool) if found is None else found[0]


def _read(folder: Path) -> tuple[Flags, NDArray[np.int64]] | None:
    """Which blocks are deleted, and their shape; None where none ever was.

    Raises:
        UserError: The file is damaged.
    """
    file = folder / FILE
    if not file.exists():
        return None
    try:
        with np.load(file, allow_pickle=False) as content:
            return np.asarray(content["blocks"], dtype=bool), np.asarray(content["block_shape"], dtype=np.int64)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is damaged. Delete {folder} to do that step again.") from error


class Intermediate(Stage, ABC):
    """Base of stages whose results may be deleted when nobody is to read them any more."""

    @abstractmethod
    def delete(self, block: Block) -> None:
        """Delete a block's results.

        Args:
            block: The block.
        """


@dataclass(frozen=True)
class Unread:
    """A stage whose results may go, and all that read them.

    Attributes:
        stage: Whose results.
        readers: The stages that read them.
        deletes: Whether results are to be deleted; if not, those that are deleted are made again when they are wanted.
    """

    stage: Intermediate
    readers: tuple[Stage, ...]
    deletes: bool = True

    def delete(self) -> int:
        """Delete blocks that nobody is to read any more; how many."""
        finished, deleted = finished_blocks(self.stage), deleted_blocks(self.stage)
        going = finished & ~deleted & ~still_read(self.stage, self._readers(self.readers))
        if going.any():
            _write(self.stage, deleted | going)
            for place in np.argwhere(going).tolist():
                self.stage.delete(self.stage.block_at(tuple(place)))
        return int(np.count_nonzero(going))

    def wanted_again(self) -> Flags:
        """Which deleted blocks somebody is to read after all."""
        deleted = deleted_blocks(self.stage)
        if not deleted.any():
            return deleted
        return deleted & still_read(self.stage, self._readers([r for r in self.readers if not r.is_done()]))

    def make_again(self) -> None:
        """Have such blocks count as not done; the stage's next run makes them."""
        blocks = self.wanted_again()
        if blocks.any():
            self.stage.done_marker.unlink(missing_ok=True)
            take_back(self.stage.folder / "blocks", [(z, y, x) for z, y, x in np.argwhere(blocks).tolist()])
            _write(self.stage, deleted_blocks(self.stage) & ~blocks)

    @staticmethod
    def _readers(readers: Iterable[Stage]) -> list[tuple[Stage, Flags]]:
        return [(reader, finished_blocks(reader)) for reader in readers]


def check_there(source: Source, roi: Roi) -> None:
    """Refuse what was read of a source if some of it is deleted; called after reading.

    A worker that wakes up after another has done its block may read what is no longer there.

    Args:
        source: What was read.
        roi: Where, in voxels.

    Raises:
        UserError: Some of it is deleted.
    """
    found = _read(Path(source.path).parent)
    if found is None:
        return
    blocks, shape = found
    first = np.maximum(np.array(roi.begin), 0) // shape
    end = -(-np.array(roi.end) // shape)
    if blocks[tuple(slice(int(f), int(e)) for f, e in zip(first, end, strict=True))].any():
        raise UserError(
            f"{source.path} is deleted where it should be read. Run `neuroloom run` again: it makes what is needed."
        )


def _write(stage: Stage, blocks: Flags) -> None:
    def save(file: object) -> None:
        np.savez_compressed(file, blocks=blocks, block_shape=np.array(stage.block_shape))  # type: ignore[arg-type]

    write_atomic(stage.folder / FILE, save)
