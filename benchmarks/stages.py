"""The stages after prediction, as a project has them; nothing is imported that their workers do not need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuroloom.agglomeration.stage import Agglomerate
from neuroloom.blockwise import Source, Stage
from neuroloom.fragments.stage import Fragments
from neuroloom.segmentation.stage import Segment
from neuroloom.volume.array import Triple

BLOCK, FRAGMENTS_CONTEXT, CONTEXT = (256, 256, 256), (20, 20, 20), (64, 64, 64)


def stages(folder: Path, shape: Triple, block: Triple) -> tuple[Stage, ...]:
    """Fragments, agglomeration and segmentation of affinities.

    Args:
        folder: Holds affinities in `a.zarr`, dataset "a"; for everything.
        shape: Extent of the volume in voxels.
        block: That of a block.
    """
    source = Source(path=str(folder / "a.zarr"), dataset="a", fingerprint="benchmark")
    common: dict[str, Any] = {"shape": shape, "block_shape": block}
    cut = Fragments(folder=folder / "fragments", affinities=source, context=FRAGMENTS_CONTEXT, **common)
    scored = Agglomerate(
        folder=folder / "agglomeration",
        affinities=source,
        fragments=cut.output,
        fragments_graph=cut.graph_place,
        context=CONTEXT,
        **common,
    )
    segmented = Segment(
        folder=folder / "segmentation",
        fragments=cut.output,
        forest=scored.forest,
        edges=scored.graph_place,
        threshold=0.3,
        **common,
    )
    return cut, scored, segmented
