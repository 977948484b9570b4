"""Scoring a network while it trains: the whole chain on a piece of every validation volume, in memory.

    checkpoint -> affinities -> fragments -> merge scores -> forest -> every threshold's VOI -> the lowest
                                             of three merge functions

Nothing here depends on the project's settings of fragments and agglomeration: if one that is changed later could change
which network was the best, that would have to be trained again. Tissues differ in the merge function that suits them
(0.24 bits between two of them on FIB-25), so three are tried.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neuroloom.agglomeration.forest import spanning_forest
from neuroloom.agglomeration.outside import outside_faces
from neuroloom.agglomeration.scores import as_edges, hierarchical_scores
from neuroloom.blockwise import Source
from neuroloom.errors import UserError
from neuroloom.evaluation.thresholds import evaluate_tables, fragment_tables
from neuroloom.fragments.contacts import find_contacts
from neuroloom.fragments.watershed import fragments
from neuroloom.prediction import default_block
from neuroloom.project.parameters import Fragments, Segmentation
from neuroloom.segmentation import contacts, lookup_tables
from neuroloom.training.score import Score
from neuroloom.volume.array import Triple

if TYPE_CHECKING:
    from neuroloom.prediction.predictor import Predictor

MERGE_FUNCTIONS = ("hist_quant_50", "hist_quant_75", "hist_quant_90")

LARGEST = 256
"""Voxels along each axis that are scored: a larger piece tells more, and takes longer."""


class ScoredVolume:
    """A piece of a validation volume: around the middle of what is labelled.

    Args:
        raw: Its image.
        truth: The truth of the whole volume, `(z, y, x) uint64`, 0 where it does not count.

    Attributes:
        begin: First voxel of the piece.
        shape: Its extent in voxels.
        truth: Its truth, `(z, y, x) uint64`.

    Raises:
        UserError: Nothing in the piece is labelled.
    """

    def __init__(self, raw: Source, truth: NDArray[np.uint64]) -> None:
        self.raw = raw
        self.shape = scored_shape((truth.shape[0], truth.shape[1], truth.shape[2]))
        z, y, x = (_begin(truth, axis, extent) for axis, extent in enumerate(self.shape))
        self.begin: Triple = (z, y, x)
        window = tuple(slice(b, b + n) for b, n in zip(self.begin, self.shape, strict=True))
        self.truth = np.ascontiguousarray(truth[window])
        if not self.truth.any():
            raise UserError(
                f"The middle of {raw.path}, which training scores, holds no labelled voxel. Cut out the labelled part "
                "as a volume of its own, or set `training.score_every` to 0."
            )

    def affinities(self, predictor: Predictor) -> NDArray[np.uint8]:
        """Predict the piece, `(3, z, y, x)`: its nearest neighbours only."""
        raw = self.raw.open()
        block = default_block(self.shape, predictor.geometries)
        result = np.zeros((predictor.channels, *self.shape), dtype=np.uint8)
        for z in range(0, self.shape[0], block[0]):
            for y in range(0, self.shape[1], block[1]):
                for x in range(0, self.shape[2], block[2]):
                    place = (z, y, x)
                    a, b, c = (min(e, n - p) for e, n, p in zip(block, self.shape, place, strict=True))
                    begin = [o + p - m for o, p, m in zip(self.begin, place, predictor.margin, strict=True)]
                    values = predictor(raw.read_reflected(begin, predictor.input_shape((a, b, c))), (a, b, c))
                    result[:, z : z + a, y : y + b, x : x + c] = values
        return np.ascontiguousarray(result[:3])


def scored_shape(shape: Triple) -> Triple:
    """Extent of the piece of a volume that is scored, in voxels."""
    z, y, x = (min(LARGEST, size) for size in shape)
    return z, y, x


def _begin(truth: NDArray[np.uint64], axis: int, extent: int) -> int:
    """Where along an axis a piece begins whose middle is that of the labelled voxels."""
    labelled = np.flatnonzero(truth.any(axis=tuple(other for other in range(3) if other != axis)))
    size = truth.shape[axis]
    middle = int(labelled[0] + labelled[-1] + 1) // 2 if len(labelled) else size // 2
    return min(max(0, middle - extent // 2), size - extent)


class ChainScorer:
    """Scores checkpoints on validation volumes.

    Args:
        volumes: The volumes.
        device, precision: As in the project.
        by_section: Whether voxels are so long in z that fragments are made section by section.
    """

    def __init__(self, volumes: list[ScoredVolume], device: str, precision: str, by_section: bool) -> None:
        self.volumes, self.device, self.precision, self.by_section = volumes, device, precision, by_section

    def __call__(self, checkpoint: Path) -> Score:
        """The lowest VOI of all merge functions and thresholds that are tried, mean over the volumes.

        Args:
            checkpoint: A network that gives affinities.
        """
        from neuroloom.prediction.predictor import Predictor  # loads PyTorch

        predictor = Predictor(checkpoint, self.device, self.precision)
        scored = [self._cuts(volume, predictor) for volume in self.volumes]
        plain = {cut: float(np.mean([volume[cut][0] for volume in scored])) for cut in scored[0]}
        best = min(plain, key=lambda cut: plain[cut])
        eroded = [voi for volume in scored if (voi := volume[best][1]) is not None]
        return Score(plain[best], float(np.mean(eroded)) if eroded else None, *best)

    def _cuts(self, volume: ScoredVolume, predictor: Predictor) -> dict[tuple[str, float], tuple[float, float | None]]:
        """For every merge function and threshold, VOI of all voxels, and with the truth eroded by one."""
        affinities = volume.affinities(predictor)
        settings = Fragments()
        numbers = fragments(
            affinities,
            in_xy=self.by_section,
            threshold=settings.threshold,
            min_seed_distance=settings.min_seed_distance,
            fill=settings.fill,
        )
        sizes = np.bincount(numbers.reshape(-1))[1:]
        ids = np.arange(1, len(sizes) + 1, dtype=np.uint64)
        tables = fragment_tables(numbers.astype(np.uint64), volume.truth, only_xy=self.by_section)
        outside, found = outside_faces(ids, numbers), find_contacts(affinities, numbers)
        thresholds = sorted(Segmentation().thresholds)
        result = {}
        for function in MERGE_FUNCTIONS:
            edges = as_edges(found, hierarchical_scores(found, function), ids)
            forest = spanning_forest(ids, sizes, edges.u, edges.v, edges.merge_score)
            touching = contacts(forest, thresholds[0], [edges], outside)
            lookups = lookup_tables(forest, thresholds, touching, Segmentation().enclosed)
            for entry in evaluate_tables(tables, lookups, only_xy=self.by_section).thresholds:
                eroded = entry.eroded_1.voi_sum if entry.eroded_1 else None
                result[function, entry.threshold] = entry.plain.voi_sum, eroded
        return result
