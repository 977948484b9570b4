"""The stage affinities -> fragments: every block on its own, with context, cropped.

   read_roi
+---------------+     1. watershed in all of read_roi (what leaves the volume is left out)
| a a a | b b b |     2. crop to write_roi: fragments end at a block's border, so no two blocks share one
| a +-----------+     3. pieces that hang together no longer get a number each: 1 … n
| a | c | b b b |     4. id = number + block number * voxels per block: unique without talking to other blocks
+---+-----------+
      write_roi       Context makes both sides of a border see the same membranes there, and lets a block say which
                      fragments it has cut (`borders`).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from funlib.geometry import Roi

from neuroloom.addresses import scheme_of
from neuroloom.blockwise.intermediate import check_there
from neuroloom.blockwise.stage import Block, Source
from neuroloom.fragments.affinities import open_affinities
from neuroloom.fragments.borders import make_borders, write_borders
from neuroloom.fragments.outputs import make_label_volume
from neuroloom.fragments.runs import Runs
from neuroloom.fragments.statistics import statistics
from neuroloom.fragments.watershed import fragments
from neuroloom.graph import KeepsGraph, Nodes, Run
from neuroloom.graph.tables import Kind
from neuroloom.volume.masks import read_mask


class Fragments(KeepsGraph):
    """Cut a volume of affinities into fragments.

    Attributes:
        affinities: `(3 or more, z, y, x) uint8`; the first three channels are the neighbours before along z, y, x.
        mask: Fragments lie only where it is not 0 (and where it is defined); may be coarser by whole factors.
        in_xy: Section by section, from the y and x affinities.
        threshold: Mean affinity above which a voxel lies inside a neurite.
        min_seed_distance: Extent of the maximum filter that finds seeds, voxels.
        fill: Flood what is not inside as well.
        filter_fragments: Drop fragments of a lower mean affinity.
        epsilon_agglomerate: Merge at once while the lowest score is below it.
        replace_sections: Sections of the volume that get no fragments.
    """

    title: ClassVar[str] = "fragments"
    version: ClassVar[int] = 2
    kinds: ClassVar[tuple[Kind, ...]] = ("nodes",)
    command: ClassVar[str] = "fragments"

    affinities: Source
    mask: Source | None = None
    in_xy: bool = False
    threshold: float = 0.5
    min_seed_distance: int = 10
    fill: bool = True
    filter_fragments: float = 0.0
    epsilon_agglomerate: float = 0.0
    replace_sections: tuple[int, ...] = ()

    @property
    def output(self) -> Source:
        """The fragments, `(z, y, x) uint64`, 0 = none; their nodes are in `graph`."""
        return Source(path=str(self.folder / "fragments.zarr"), dataset="fragments", fingerprint=self.fingerprint())

    @property
    def graph_run(self) -> Run:
        """What the nodes are known as."""
        run = super().graph_run
        if scheme_of(self.store) == "mongodb":  # only there places are in nm
            volume = self.affinities.open()
            run = run.model_copy(update={"voxel_size": volume.voxel_size, "offset": volume.offset})
        return run

    def prepare(self) -> None:
        """Make the output array.

        Raises:
            UserError: The affinities are not uint8 with three channels, or of another size than this stage; or the
                graph store cannot be used.
        """
        affinities = open_affinities(self.affinities, self.shape)
        if self.mask is not None:
            read_mask(self.mask.open(), affinities, Roi((0, 0, 0), (1, 1, 1)))
        self.graph.blocks("nodes")  # a store that cannot be used is told now
        make_label_volume(self.output, self, affinities)
        make_borders(self.output, self, affinities)

    def process(self, block: Block) -> None:
        """Write one block's fragments and their nodes."""
        affinities = self.affinities.open()
        roi = block.read_roi.intersect(Roi((0, 0, 0), self.shape))
        values = affinities.read(roi.begin, roi.shape)[:3]
        check_there(self.affinities, roi)
        mask = None if self.mask is None else read_mask(self.mask.open(), affinities, roi)
        labels = fragments(
            values,
            in_xy=self.in_xy,
            threshold=self.threshold,
            min_seed_distance=self.min_seed_distance,
            fill=self.fill,
            mask=None if mask is None or mask.all() else mask,
            filter_fragments=self.filter_fragments,
            epsilon_agglomerate=self.epsilon_agglomerate,
            replace_sections=[z - int(roi.begin[0]) for z in self.replace_sections],
        )
        write_borders(self.output, block, labels, roi)
        inner = block.write_roi - roi.begin
        runs = Runs.of(labels, inner.begin, inner.shape).connected()
        measured = statistics(values, runs, inner.begin)
        bump = np.uint64(block.number * int(np.prod(self.block_shape)))
        ids = np.arange(1, len(measured.size) + 1, dtype=np.uint64) + bump
        self.output.open().write(block.write_roi.begin, runs.painted(np.append(np.uint64(0), ids)))
        begin = np.array(block.write_roi.begin)
        self.graph.write_nodes(
            block.number,
            Nodes(
                id=ids,
                centre=measured.centre + begin,
                size=measured.size,
                mean_affinity=measured.mean_affinity,
                begin=measured.begin + begin,
                end=measured.end + begin,
            ),
        )
