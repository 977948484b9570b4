"""Scoring a network while it trains: the whole chain on the middle of every validation volume, in memory.

    checkpoint -> affinities -> fragments -> merge scores -> forest -> every threshold's VOI -> the lowest

Fragments and agglomeration are computed with the defaults of the project file, whatever the project has: a parameter
that is changed later must not change which network was the best, or it would have to be trained again.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.agglomeration.forest import spanning_forest
from neuroloom.agglomeration.scores import merge_scores
from neuroloom.blockwise import Source
from neuroloom.evaluation.thresholds import evaluate_tables, fragment_tables
from neuroloom.fragments.labels import unique
from neuroloom.fragments.watershed import fragments
from neuroloom.prediction import Predictor, default_block
from neuroloom.project.parameters import Agglomeration, Fragments, Segmentation
from neuroloom.segmentation.lookup import lookup_table
from neuroloom.training.loop import Score
from neuroloom.volume.array import Triple

LARGEST = 256
"""Voxels along each axis that are scored: a larger piece tells more, and takes longer."""


class ScoredVolume:
    """The middle of a validation volume.

    Args:
        raw: Its image.
        truth: Gives the truth of the whole volume, `(z, y, x) uint64`, 0 where it does not count.
    """

    def __init__(self, raw: Source, truth: Any) -> None:
        self.raw = raw
        self._truth = truth
        shape = raw.open().shape
        self.shape = scored_shape(shape)
        z, y, x = ((size - n) // 2 for size, n in zip(shape, self.shape, strict=True))
        self.begin: Triple = (z, y, x)

    @cached_property
    def truth(self) -> NDArray[np.uint64]:
        """The truth of this piece."""
        window = tuple(slice(b, b + n) for b, n in zip(self.begin, self.shape, strict=True))
        return np.ascontiguousarray(self._truth()[window])

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
        """VOI at the best of all thresholds, mean over the volumes.

        Args:
            checkpoint: A network that gives affinities.
        """
        predictor = Predictor(checkpoint, self.device, self.precision)
        scored = [self._thresholds(volume, predictor) for volume in self.volumes]
        thresholds = list(scored[0])
        plain = np.mean([[entry[t][0] for t in thresholds] for entry in scored], axis=0)
        best = int(np.argmin(plain))
        eroded = [entry[thresholds[best]][1] for entry in scored]
        known = [value for value in eroded if value is not None]
        return Score(float(plain[best]), float(np.mean(known)) if known else None, thresholds[best])

    def _thresholds(self, volume: ScoredVolume, predictor: Predictor) -> dict[float, tuple[float, float | None]]:
        """For every threshold, VOI of all voxels and with the truth eroded by one."""
        affinities = volume.affinities(predictor)
        settings = Fragments()
        labels = fragments(
            affinities,
            in_xy=self.by_section,
            threshold=settings.threshold,
            min_seed_distance=settings.min_seed_distance,
            fill=settings.fill,
        ).astype(np.uint64)
        edges = merge_scores(affinities, labels, Agglomeration().merge_function)
        forest = spanning_forest(unique(labels), edges.u, edges.v, edges.merge_score)
        tables = {t: lookup_table(forest, t) for t in Segmentation().thresholds}
        only_xy = self.by_section
        evaluation = evaluate_tables(fragment_tables(labels, volume.truth, only_xy=only_xy), tables, only_xy=only_xy)
        return {
            entry.threshold: (entry.plain.voi_sum, entry.eroded_1.voi_sum if entry.eroded_1 else None)
            for entry in evaluation.thresholds
        }
