"""The stage merge forest -> lookup tables -> segmentation: cut once per threshold, relabel for the chosen one.

What touches what is known from the graph that the forest was made of.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from neuroloom.agglomeration.forest import load_forest
from neuroloom.blockwise.stage import Block, Source, Stage
from neuroloom.fragments.outputs import make_label_volume
from neuroloom.graph import GraphPlace
from neuroloom.segmentation.enclosed import contacts, lookup_tables
from neuroloom.segmentation.lookup import load_lookup, lookup_name, relabel, save_lookup


class Segment(Stage):
    """Turn fragments into segments.

    Attributes:
        fragments: `(z, y, x) uint64`, made by `Fragments`.
        forest: The merge forest, as `Agglomerate.forest` gives it.
        edges: Where the edges are kept that the forest was made of, `Agglomerate.graph_place`.
        threshold: Of the segmentation; edges with a score up to it are merged.
        thresholds: Further thresholds to write lookup tables for.
        orphans: Voxels below which a segment merges above the threshold; 0 merges none.
        enclosed: Share of its surface by which another one must enclose a segment to absorb it; 0 absorbs none.
    """

    title: ClassVar[str] = "segmentation"
    not_fingerprinted: ClassVar[frozenset[str]] = frozenset({"folder", "edges"})

    fragments: Source
    forest: Source
    edges: GraphPlace
    threshold: float
    thresholds: tuple[float, ...] = ()
    orphans: int = 0
    enclosed: float = 0.0

    @property
    def output(self) -> Source:
        """The segmentation, `(z, y, x) uint64`, 0 = none."""
        return Source(
            path=str(self.folder / "segmentation.zarr"), dataset="segmentation", fingerprint=self.fingerprint()
        )

    def prepare(self) -> None:
        """Write the lookup tables and make the output array.

        Raises:
            UserError: Edges are not where they should be.
        """
        wanted = sorted({self.threshold, *self.thresholds})
        missing = [threshold for threshold in wanted if not (self.folder / lookup_name(threshold)).exists()]
        if missing:
            forest = load_forest(Path(self.forest.path) / self.forest.dataset)
            graph = self.edges.open_whole("edges", "outside")
            touching = contacts(forest.nodes, graph.read_edges(), graph.read_outside())
            tables = lookup_tables(forest, missing, touching, self.enclosed, self.orphans)
            for threshold, table in tables.items():
                save_lookup(table, self.folder, threshold)
        make_label_volume(self.output, self, self.fragments.open())

    def process(self, block: Block) -> None:
        """Relabel one block."""
        roi = block.write_roi
        fragments = self.fragments.open().read(roi.begin, roi.shape)
        self.output.open().write(roi.begin, relabel(fragments, _table(self.folder, self.threshold)))


@lru_cache(maxsize=1)
def _table(folder: Path, threshold: float) -> NDArray[np.uint64]:
    """A worker reads the table once, not once per block; the folder is named by the fingerprint of its content."""
    return load_lookup(folder, threshold)
