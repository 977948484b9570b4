"""The stage merge forest -> lookup tables -> segmentation: cut once per threshold, relabel for the chosen one.

What touches what is known from the graph that the forest was made of.

    block    segmentation  ->  s1  ->  s2        a block also writes its part of the smaller copies, as long as that
    finish                               ->  s3  is whole and not tiny; the rest, a small part, is written at the end
"""

from __future__ import annotations

import itertools
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import zarr
from numpy.typing import NDArray

from neuroloom.agglomeration.forest import load_forest
from neuroloom.blockwise.stage import Block, Source, Stage
from neuroloom.files import explain_os_errors
from neuroloom.graph import GraphPlace
from neuroloom.segmentation.enclosed import contacts, lookup_tables
from neuroloom.segmentation.lookup import SizeRules, has_lookup, lookup_name, map_lookup, relabel, save_lookup
from neuroloom.segmentation.mapped import mapped
from neuroloom.segmentation.pyramid import Level, levels, majority, ome_metadata
from neuroloom.volume import Volume, create_volume, open_volume
from neuroloom.volume.array import Triple
from neuroloom.volume.layout import chunk_of, shard_of

_SMALLEST = 64
"""Voxels along an axis that a block's part of a smaller copy has at least."""
_PIECE = 128
"""Voxels along each axis of what is written at once at the end, and kept in one file."""


class Segment(Stage):
    """Turn fragments into segments.

    Attributes:
        fragments: `(z, y, x) uint64`, made by `Fragments`.
        forest: The merge forest, as `Agglomerate.forest` gives it.
        edges: Where the edges are kept that the forest was made of, `Agglomerate.graph_place`.
        threshold: Of the segmentation; edges with a score up to it are merged.
        thresholds: Further thresholds to write lookup tables for.
        orphans: Voxels below which a segment merges above the threshold; see `SizeRules`.
        large: Voxels of a segment that merges with another such one up to `large_threshold` only.
        large_threshold: Merge score.
        enclosed: Share of its surface by which another one must enclose a segment to absorb it; 0 absorbs none.
        materialize: Whether the segmentation is written; otherwise tables are all there is.
    """

    title: ClassVar[str] = "segmentation"
    version: ClassVar[int] = 2
    not_fingerprinted: ClassVar[frozenset[str]] = frozenset({"folder", "edges"})

    fragments: Source
    forest: Source
    edges: GraphPlace
    threshold: float
    thresholds: tuple[float, ...] = ()
    orphans: int = 0
    large: int = 0
    large_threshold: float = 0.0
    enclosed: float = 0.0
    materialize: bool = True

    @property
    def output(self) -> Source:
        """The segmentation, `(z, y, x) uint64`, 0 = none; only if it is written."""
        return Source(
            path=str(self.folder / "segmentation.zarr"), dataset="segmentation", fingerprint=self.fingerprint()
        )

    @property
    def lookup_file(self) -> Path:
        """The lookup table of the threshold; see `load_lookup`."""
        return self.folder / lookup_name(self.threshold)

    def open(self) -> Volume:
        """The segmentation, as it is written, or made of fragments when it is read."""
        if self.materialize:
            return self.output.open()
        return mapped(self.fragments.open(), map_lookup(self.folder, self.threshold))

    def prepare(self) -> None:
        """Write the lookup tables and make the output arrays.

        Raises:
            UserError: Edges are not where they should be.
        """
        wanted = sorted({self.threshold, *self.thresholds})
        missing = [threshold for threshold in wanted if not has_lookup(self.folder, threshold)]
        if missing:
            forest = load_forest(Path(self.forest.path) / self.forest.dataset)
            rules = SizeRules(self.orphans, self.large, self.large_threshold)
            touching = None
            if self.enclosed > 0:
                graph = self.edges.open_whole("edges", "outside")
                touching = contacts(forest, missing[0], graph.areas(), graph.read_outside(), rules)
            tables = lookup_tables(forest, missing, touching, self.enclosed, rules)
            for threshold, table in tables.items():
                save_lookup(table, self.folder, threshold)
        if self.materialize:
            self._make_arrays()

    def process(self, block: Block) -> None:
        """Relabel one block."""
        if not self.materialize:
            return
        begin, shape = block.write_roi.begin, block.write_roi.shape
        labels = relabel(self.fragments.open().read(begin, shape), _table(self.folder, self.threshold))
        for level in self._in_blocks:
            labels = majority(labels, level.step)
            self._open(level).write([b // f for b, f in zip(begin, level.factor, strict=True)], labels)

    def finish(self) -> None:
        """Write those smaller copies of which blocks hold no whole part."""
        if not self.materialize:
            return
        for before, level in itertools.pairwise(self._levels):
            if level in self._in_blocks:
                continue
            source, target = self._open(before), self._open(level)
            for begin in itertools.product(*(range(0, extent, _PIECE) for extent in level.shape)):
                first = [b * s for b, s in zip(begin, level.step, strict=True)]
                ends = (min((b + _PIECE) * s, n) for b, s, n in zip(begin, level.step, before.shape, strict=True))
                region = source.read(first, [end - b for b, end in zip(first, ends, strict=True)])
                target.write(begin, majority(region, level.step))

    @cached_property
    def _levels(self) -> list[Level]:
        return levels(self.output.dataset, self.shape, self.fragments.open().voxel_size)

    @cached_property
    def _in_blocks(self) -> list[Level]:
        """Levels that blocks write: those of which each block holds a part that is whole and large enough."""

        def is_whole(level: Level) -> bool:
            cut = [(b, f) for b, f, n in zip(self.block_shape, level.factor, self.grid, strict=True) if n > 1]
            return all(b % f == 0 and (f == 1 or b // f >= _SMALLEST) for b, f in cut)

        return list(itertools.takewhile(is_whole, self._levels))

    def _open(self, level: Level) -> Volume:
        return open_volume(self.output.path, level.dataset)

    def _make_arrays(self) -> None:
        fragments, path = self.fragments.open(), Path(self.output.path)
        for level in self._levels:
            # the metadata is written last, so an array without it was interrupted while being made
            if (path / level.dataset / "zarr.json").exists():
                continue
            block = _part(self.block_shape, level.factor) if level in self._in_blocks else (_PIECE, _PIECE, _PIECE)
            chunk = chunk_of(level.shape, block)
            create_volume(
                path,
                level.dataset,
                level.shape,
                np.uint64,
                level.voxel_size(fragments.voxel_size),
                fragments.offset,
                chunks=chunk,
                shards=shard_of(level.shape, block, chunk),
                attributes={"fingerprint": self.output.fingerprint, "block_shape": list(block)},
                overwrite=True,
                named_axes=True,
            )
        with explain_os_errors(path):
            group = zarr.open_group(str(path), mode="r+")
            metadata = ome_metadata(self.output.dataset, self._levels, fragments.voxel_size, fragments.offset)
            if group.attrs.get("ome") != metadata:
                group.attrs["ome"] = metadata


def _part(block: Triple, factor: Triple) -> Triple:
    """A block's part of a level; of a block that is as long as the volume, all of it."""
    z, y, x = (-(-b // f) for b, f in zip(block, factor, strict=True))
    return z, y, x


@lru_cache(maxsize=1)
def _table(folder: Path, threshold: float) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """A worker maps the table once, not once per block; the folder is named by the fingerprint of its content."""
    return map_lookup(folder, threshold)
