"""A stage that writes zarr, one chunk for each block, whose workers may die or stand still in the middle of a chunk."""

from __future__ import annotations

import os
import resource
import signal
import time

import numpy as np
from numpy.typing import NDArray

from neuroloom.blockwise import Block, Source, Stage
from neuroloom.volume import create_volume


class Writing(Stage):
    """Writes noise, which no compression makes smaller: the same for a block whoever does it.

    Attributes:
        trouble: What happens at the first attempt at a block, by its number: "die" in the middle of its chunk, "stop"
            until another process wakes it, "stop, wait" and at later attempts wait for the file `go-on`.
        seconds: For each block.
    """

    not_fingerprinted = frozenset({"folder", "trouble", "seconds"})

    trouble: dict[int, str] = {}  # noqa: RUF012
    seconds: float = 0.0

    @property
    def output(self) -> Source:
        """What is written."""
        return Source(path=str(self.folder / "out.zarr"), dataset="noise", fingerprint=self.fingerprint())

    def prepare(self) -> None:
        if not (self.folder / "out.zarr" / "noise" / "zarr.json").exists():
            create_volume(self.folder / "out.zarr", "noise", self.shape, np.uint8, (8, 8, 8), chunks=self.block_shape)

    def noise(self, block: Block) -> NDArray[np.uint8]:
        """What a block writes."""
        shape = tuple(int(extent) for extent in block.write_roi.shape)
        return np.random.default_rng(block.number).integers(0, 256, shape, dtype=np.uint8)

    def process(self, block: Block) -> None:
        data, output = self.noise(block), self.output.open()
        trouble, once = self.trouble.get(block.number), self.folder / f"once-{block.number}"
        time.sleep(self.seconds)
        if trouble is not None and not once.exists():
            once.write_text(str(os.getpid()))
            if trouble == "die":  # the system ends a process that writes more into a file than it may
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                resource.setrlimit(resource.RLIMIT_FSIZE, (data.size // 2, resource.RLIM_INFINITY))
            else:
                os.kill(os.getpid(), signal.SIGSTOP)
        elif trouble == "stop, wait":
            while not (self.folder / "go-on").exists():
                time.sleep(0.1)
        output.write(block.write_roi.begin, data)

    def written(self) -> NDArray[np.uint8]:
        """All blocks as they are on the disk."""
        return self.output.open().read()

    def whole(self) -> NDArray[np.uint8]:
        """All blocks as they should be."""
        expected = np.zeros(self.shape, np.uint8)
        for block in self.blocks():
            expected[block.write_roi.to_slices()] = self.noise(block)
        return expected
