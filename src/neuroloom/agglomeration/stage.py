"""The stage fragments -> scored edges -> merge forest.

   read_roi = write_roi + context           Fragments end at the borders of the fragments' blocks, and these blocks
+---------------------+                     tile ours: every fragment lies in exactly one of our blocks.
|    context          |
|   +---------+       |                     The edge u-v (u < v) belongs to the block in which u lies. That block
|   |  u    w | v     |                     sees all of their contact, because v touches u and the context is at
|   |         |       |                     least one voxel; and it sees v as far as the context reaches.
|   +---------+       |                     Here u-w and u-v are ours; x-u, with x < u in the block to the left,
+---------------------+                     is its.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from funlib.geometry import Roi
from numpy.typing import NDArray

from neuroloom.agglomeration.cuts import regions_of, scores_of_parts, united
from neuroloom.agglomeration.forest import save_forest
from neuroloom.agglomeration.multicut import check_solver, multicut_scores
from neuroloom.agglomeration.mutex import mutex_scores
from neuroloom.agglomeration.outside import outside_faces
from neuroloom.agglomeration.scores import as_edges, hierarchical_scores
from neuroloom.agglomeration.streaming import stream_forest
from neuroloom.blockwise.intermediate import check_there
from neuroloom.blockwise.overlap import overlap_of
from neuroloom.blockwise.stage import Block, Source
from neuroloom.errors import UserError
from neuroloom.fragments.affinities import offsets_of, open_affinities, open_made
from neuroloom.fragments.borders import check_borders, read_borders
from neuroloom.fragments.contacts import Contacts, add_long_range, find_contacts, find_far_pairs
from neuroloom.fragments.hierarchy import check_merge_function
from neuroloom.fragments.labels import compact, occurring
from neuroloom.graph import GraphPlace, KeepsGraph, Run
from neuroloom.graph.store import score_name
from neuroloom.graph.tables import Kind
from neuroloom.project import AgglomerationMethod
from neuroloom.volume import Volume
from neuroloom.volume.array import Triple


class Agglomerate(KeepsGraph):
    """Score all pairs of touching fragments, and reduce them to the merge forest.

    Attributes:
        affinities: `(3 or more, z, y, x) uint8`.
        fragments: `(z, y, x) uint64`, made by `Fragments` in blocks of which this stage's are multiples.
        fragments_graph: Where `Fragments` kept their nodes.
        method: How fragments are put together; one of `neuroloom.project.AgglomerationMethod`.
        merge_function: How the affinity between two regions is measured; hierarchical only.
        bias: Mean affinity of a contact above which it attracts; not hierarchical.
        long_range_bias: Likewise of channels after the first three.
        long_range: Whether channels after the first three take part, at the offsets that the affinities' attribute
            `neighborhood` has.
    """

    title: ClassVar[str] = "agglomeration"
    version: ClassVar[int] = 7
    not_fingerprinted: ClassVar[frozenset[str]] = KeepsGraph.not_fingerprinted | {"fragments_graph"}
    kinds: ClassVar[tuple[Kind, ...]] = ("edges", "outside")
    command: ClassVar[str] = "agglomerate"

    affinities: Source
    fragments: Source
    fragments_graph: GraphPlace
    method: AgglomerationMethod = "hierarchical"
    merge_function: str = "hist_quant_75"
    bias: float = 0.2
    long_range_bias: float = 0.3
    long_range: bool = False

    def fingerprint(self) -> str:
        """See `Stage.fingerprint`; what a method takes no notice of does not count."""
        unused = {"bias", "long_range_bias"} if self.method == "hierarchical" else {"merge_function"}
        if not self.long_range:
            unused.add("long_range_bias")
        plain = {name: type(self).model_fields[name].default for name in unused}
        return super(Agglomerate, self.model_copy(update=plain)).fingerprint()

    @property
    def graph_run(self) -> Run:
        """What the edges are known as."""
        of_edges = {"fragments": self.fragments_graph.run.name, "merge_function": score_name(self.model_dump())}
        return super().graph_run.model_copy(update=of_edges)

    @property
    def forest(self) -> Source:
        """The merge forest: the file `dataset` in the folder `path`; see `load_forest`."""
        return Source(path=str(self.folder), dataset="forest.arrow", fingerprint=self.fingerprint())

    @property
    def forest_file(self) -> Path:
        """The merge forest; see `load_forest`."""
        return self.folder / "forest.arrow"

    def prepare(self) -> None:
        """Check the inputs.

        Raises:
            UserError: The solver of multicuts is not installed, affinities have another type or too few channels,
                fragments and affinities differ in size, blocks do not fit, there is too little context, borders or
                nodes of fragments are missing, or the graph store cannot be used.
        """
        check_merge_function(self.merge_function)
        if self.method == "multicut":
            check_solver()
        fragments = open_made(self.fragments, self.shape, "fragments")
        affinities = open_affinities(self.affinities, self.shape)
        blocks = fragments.array.attrs.get("block_shape")
        if not isinstance(blocks, list):
            raise UserError(
                f"{fragments.location} has no attribute `block_shape`; expected fragments made by "
                "`neuroloom fragments`. Run it again."
            )
        check_borders(self.fragments, self.shape, blocks)
        for ours, theirs, extent in zip(self.block_shape, blocks, self.shape, strict=True):
            if ours < extent and ours % int(theirs):
                raise UserError(
                    f"Agglomeration blocks of {self.block_shape} voxels are no multiples of the fragments' blocks of "
                    f"{tuple(blocks)}, so a fragment could lie in two. Choose a multiple along each axis."
                )
        if any(count > 1 and context < 1 for count, context in zip(self.grid, self.context, strict=True)):
            raise UserError(
                f"An agglomeration context of {self.context} voxels hides what lies across a block's border. Choose at "
                "least 1 along each axis; 64 is a good value."
            )
        self._check_long_range(affinities)
        if not overlap_of(self).sources:  # else they are being made; `finish` looks again
            self.fragments_graph.open_whole("nodes")
        self.graph.blocks("edges")  # a store that cannot be used is told now

    def _check_long_range(self, affinities: Volume) -> None:
        """Affinities of voxels farther apart are there, and both voxels are seen.

        Raises:
            UserError: They are not.
        """
        if not self.long_range:
            return
        far = offsets_of(affinities)[3:]
        if not far:
            raise UserError(
                f"{affinities.location} has 3 channels, of nearest neighbours; `agglomeration.long_range` needs more. "
                "Train with further offsets in `training.neighborhood`, or set `long_range = false`."
            )
        reach = [max(abs(offset[axis]) for offset in far) for axis in range(3)]
        needed = [r if count > 1 else 0 for r, count in zip(reach, self.grid, strict=True)]
        if any(context < n for context, n in zip(self.context, needed, strict=True)):
            enough = [max(context, n) for context, n in zip(self.context, needed, strict=True)]
            raise UserError(
                f"Affinities reach {reach} voxels far, but `agglomeration.context` is {list(self.context)}: a block "
                f"would not see both voxels. Choose at least {enough}, or set `long_range = false`."
            )

    def process(self, block: Block) -> None:
        """Write the edges that one block owns."""
        roi = block.read_roi.intersect(Roi((0, 0, 0), self.shape))
        fragments = self.fragments.open()
        affinities = self.affinities.open().read(roi.begin, roi.shape)
        check_there(self.affinities, roi)
        ids, numbers = compact(fragments.read(roi.begin, roi.shape))
        touching = find_contacts(affinities[:3], numbers)
        borders = read_borders(self.fragments, roi, fragments.array.attrs["block_shape"])
        region = regions_of(numbers, len(ids), borders)
        far = (affinities[3:], region[numbers], self._offsets[3:]) if self.long_range else None
        score = scores_of_parts(touching, region, *self._score(united(touching, region), far))
        edges = as_edges(touching, score, ids, roi.begin)
        inner = numbers[(block.write_roi - roi.begin).to_slices()]
        ours = ids[occurring(inner, len(ids))]
        graph = self.graph
        graph.write_edges(block.number, edges.select(np.isin(edges.u, ours)))
        z, y, x = ((a == 0, b == size) for a, b, size in zip(roi.begin, roi.end, self.shape, strict=True))
        outside = outside_faces(ids, numbers, (z, y, x))
        graph.write_outside(block.number, outside.select(np.isin(outside.id, ours)))

    @property
    def _offsets(self) -> Sequence[Triple]:
        return offsets_of(self.affinities.open())

    def _score(
        self, touching: Contacts, far: tuple[NDArray[np.uint8], NDArray[np.uint32], Sequence[Triple]] | None
    ) -> tuple[Contacts, NDArray[np.float32]]:
        """Scores of regions.

        Args:
            touching: All pairs of regions that touch.
            far: Affinities after the first three, the regions, and offsets; None if these take no part.

        Returns:
            These pairs, any others that were observed, and a score for each.
        """
        if self.method == "hierarchical":
            observed = touching if far is None else add_long_range(touching, *far)
            return observed, hierarchical_scores(observed, self.merge_function)
        pairs = None if far is None else find_far_pairs(*far)
        scores = mutex_scores if self.method == "mutex_watershed" else multicut_scores
        return touching, scores(touching, pairs, self.bias, self.long_range_bias)

    def finish(self) -> None:
        """Build the merge forest of all blocks.

        Raises:
            UserError: Nodes or edges are not where they should be.
        """
        super().finish()
        kept = self.fragments_graph.open_whole("nodes")
        try:
            forest = stream_forest(kept.sizes(), self.graph.scores())
        except ValueError as error:
            raise UserError(
                f"{kept.address} does not hold all fragments that touch in {self.fragments.path}. It is incomplete or "
                f"belongs to others: delete {self.fragments_graph.folder} and run `{self.fragments_graph.command}` "
                "again."
            ) from error
        save_forest(forest, self.forest_file)
