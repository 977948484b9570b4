"""Random crops of the training volumes; crop number n of a run is a pure function of (seed, n).

So batches can be prepared ahead by other threads, and a run that was stopped goes on with the very batches it would
have seen. A crop may leave its volume: there, raw is mirrored and the mask is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.training.job import TrainingVolume
from neuroloom.volume import Volume, open_volume
from neuroloom.volume.array import Nanometres, Triple, reflect_indices

IN_MEMORY_BYTES = 4 * 2**30
"""Volumes are read once and kept until together they have this size; the others are read crop by crop."""

MASKED_IN = 0.5
"""Smallest share of a crop's voxels that must count, where there is such a place."""

CELL = 16
"""Voxels along each axis of the cells in which the mask is counted."""


@dataclass(frozen=True)
class Crop:
    """A piece of a volume, not yet augmented.

    Attributes:
        raw: `(z, y, x)` float32 in [0, 1].
        labels: `(z, y, x)` int64.
        mask: `(z, y, x)` bool; False outside the volume.
        volume: Name of the volume.
        centre: In voxels of the volume.
    """

    raw: NDArray[np.float32]
    labels: NDArray[np.int64]
    mask: NDArray[np.bool_]
    volume: str
    centre: Triple


class LabelledArrays:
    """Raw, labels and mask of one volume.

    Args:
        volume: Where they lie.
        memory: Bytes that may be kept in memory.

    Attributes:
        nbytes: Bytes that are kept.
        cells: Share of masked-in voxels of each cell of `CELL` voxels, z y x; None without a mask.

    Raises:
        UserError: An array is missing, of the wrong type or shape, holds NaN, or the mask is 0 everywhere.
    """

    def __init__(self, volume: TrainingVolume, memory: int = IN_MEMORY_BYTES) -> None:
        self.name = volume.name
        raw, labels = open_volume(volume.path, volume.raw), open_volume(volume.path, volume.labels)
        mask = None if volume.mask is None else open_volume(volume.path, volume.mask)
        _check(raw, labels, mask)
        self.shape = raw.shape
        self.voxel_size = raw.voxel_size
        size = sum(v.array.nbytes for v in (raw, labels, mask) if v is not None)
        keep = size <= memory
        self.nbytes = size if keep else 0
        self._raw: Volume | NDArray[Any] = raw.read() if keep else raw
        self._labels: Volume | NDArray[Any] = labels.read() if keep else labels
        self._mask: Volume | NDArray[Any] | None = (mask.read() if keep else mask) if mask is not None else None
        if isinstance(self._raw, np.ndarray):
            check_raw(self._raw, raw.location)
        labelled, self.cells = self._count()
        if labelled == 0:
            where = labels.location if mask is None else f"{mask.location} and {labels.location}"
            raise UserError(
                f"{where}: no voxel is both labelled and masked in, so there is nothing to learn from. "
                "Correct the mask, or leave it out of the project file."
            )
        self.weight = float(labelled) if volume.weight is None else volume.weight

    def read(self, begin: Sequence[int], shape: Sequence[int], which: str) -> NDArray[Any]:
        """A region of "raw", "labels" or "mask" that may leave the volume.

        Args:
            begin: First voxel, z y x; may be negative.
            shape: Extent in voxels.
            which: Outside the volume raw is mirrored, labels and mask are 0.
        """
        source = {"raw": self._raw, "labels": self._labels, "mask": self._mask}[which]
        if which == "raw":
            return _read_reflected(source, begin, shape)
        result: NDArray[Any] = np.zeros(tuple(shape), dtype=np.int64 if which == "labels" else np.bool_)
        low = [max(0, -b) for b in begin]
        high = [min(e, s - b) for b, e, s in zip(begin, shape, self.shape, strict=True)]
        if all(h > lo for lo, h in zip(low, high, strict=True)):
            inside = tuple(slice(lo, h) for lo, h in zip(low, high, strict=True))
            start = [b + lo for b, lo in zip(begin, low, strict=True)]
            extent = [h - lo for lo, h in zip(low, high, strict=True)]
            result[inside] = 1 if source is None else _read(source, start, extent)
        return result

    def _count(self) -> tuple[int, NDArray[np.float64] | None]:
        """Number of voxels that are labelled and masked in, and the share of masked-in voxels of each cell."""
        count, layers = 0, []
        for z in range(0, self.shape[0], CELL):
            extent = (min(CELL, self.shape[0] - z), *self.shape[1:])
            mask = self.read((z, 0, 0), extent, "mask")
            count += int(np.count_nonzero(mask & (self.read((z, 0, 0), extent, "labels") != 0)))
            if self._mask is not None:
                rows = np.add.reduceat(mask.sum(axis=0, dtype=np.float64), range(0, extent[1], CELL), axis=0)
                layers.append(np.add.reduceat(rows, range(0, extent[2], CELL), axis=1) / CELL**3)
        return count, np.stack(layers) if layers else None


class Crops:
    """Crops of several volumes, drawn with the probabilities given by their weights.

    Args:
        volumes: The volumes.
        seed: Of the draws.
        output: Extent of the part that must be masked in by half, in voxels.
    """

    def __init__(self, volumes: Sequence[TrainingVolume], seed: int, output: Triple) -> None:
        self.arrays: list[LabelledArrays] = []
        memory = IN_MEMORY_BYTES
        for volume in volumes:
            self.arrays.append(LabelledArrays(volume, memory))
            memory -= self.arrays[-1].nbytes
        self._likely = [None if a.cells is None else _fullest_places(a.cells, output) for a in self.arrays]
        weights = np.array([arrays.weight for arrays in self.arrays])
        self._probabilities = weights / weights.sum()
        self._seed = seed
        self._output = output

    def draw(self, number: int, raw_shape: Triple, label_shape: Triple) -> Crop:
        """Crop number n.

        Args:
            number: From 0.
            raw_shape: Extent of raw in voxels.
            label_shape: Extent of labels and mask; same centre, differs by even numbers.
        """
        random = np.random.default_rng([self._seed, number])
        volume = int(random.choice(len(self.arrays), p=self._probabilities))
        arrays = self.arrays[volume]
        begin = self._draw_begin(random, arrays, self._likely[volume])

        def around(shape: Triple) -> list[int]:
            return [b - (s - o) // 2 for b, s, o in zip(begin, shape, self._output, strict=True)]

        raw = arrays.read(around(raw_shape), raw_shape, "raw")
        scale = np.float32(1 / 255) if raw.dtype == np.uint8 else np.float32(1)
        centre = tuple(b + o // 2 for b, o in zip(begin, self._output, strict=True))
        return Crop(
            raw=raw.astype(np.float32) * scale,
            labels=arrays.read(around(label_shape), label_shape, "labels"),
            mask=arrays.read(around(label_shape), label_shape, "mask"),
            volume=arrays.name,
            centre=(centre[0], centre[1], centre[2]),
        )

    def _draw_begin(
        self, random: np.random.Generator, arrays: LabelledArrays, likely: NDArray[np.int64] | None
    ) -> tuple[int, ...]:
        """First voxel of an output that is masked in by half: anywhere, or, if that fails, where the mask is full."""
        # where the volume is larger than the output, the output lies inside; else it lies around the middle
        lowest = [min(0, (s - o) // 2) for s, o in zip(arrays.shape, self._output, strict=True)]
        highest = [max(s - o, (s - o) // 2) for s, o in zip(arrays.shape, self._output, strict=True)]
        best: tuple[float, tuple[int, ...]] = (-1.0, (0, 0, 0))
        for attempt in range(20):
            begin = tuple(int(random.integers(a, b + 1)) for a, b in zip(lowest, highest, strict=True))
            if likely is None:
                return begin
            if attempt >= 10:
                chosen = likely[int(random.integers(len(likely)))] * CELL + random.integers(0, CELL, 3)
                begin = tuple(int(v) for v in np.clip(chosen, lowest, highest))
            share = float(arrays.read(begin, self._output, "mask").mean())
            if share > best[0]:
                best = share, begin
            if share >= MASKED_IN:
                break
        return best[1]


def _fullest_places(cells: NDArray[np.float64], output: Triple) -> NDArray[np.int64]:
    """Cells (n, 3) at which an output may begin that is masked in by half, or as far as possible."""
    total = np.pad(cells, [(1, -(-o // CELL)) for o in output])
    for axis, extent in enumerate(output):
        running = total.cumsum(axis=axis)
        ahead = -(-extent // CELL)
        total = np.take(running, range(ahead, running.shape[axis]), axis=axis)
        total -= np.take(running, range(running.shape[axis] - ahead), axis=axis)
        total = np.take(total, range(cells.shape[axis]), axis=axis)
    share = total * CELL**3 / np.prod([-(-o // CELL) * CELL for o in output])
    return np.argwhere(share >= min(MASKED_IN, 0.9 * float(share.max())))


def check_raw(raw: NDArray[Any], location: str) -> None:
    """Refuse raw with NaN or outside [0, 1].

    Raises:
        UserError: What was found.
    """
    if raw.dtype == np.uint8:
        return
    if not np.isfinite(raw).all():
        raise UserError(
            f"{location} holds NaN or infinite values. Replace them (by 0, say) and mask them out, then start again."
        )
    if raw.min() < 0 or raw.max() > 1:
        raise UserError(
            f"{location} holds values from {raw.min():g} to {raw.max():g}; float raw must lie in [0, 1]. "
            "Bring it in again with `neuroloom import --rescale`."
        )


def _check(raw: Volume, labels: Volume, mask: Volume | None) -> None:
    if raw.dtype not in (np.uint8, np.float32) or raw.channels is not None:
        raise UserError(
            f"{raw.location} is {raw.dtype}{' with channels' if raw.channels else ''}; expected uint8, or float32 in "
            "[0, 1], without channels. Bring it in with `neuroloom import`."
        )
    if labels.dtype.kind not in "ui":
        raise UserError(
            f"{labels.location} holds {labels.dtype}; labels must be whole numbers. Bring them in with "
            "`neuroloom import --labels`."
        )
    for other in (labels, *([] if mask is None else [mask])):
        if other.shape != raw.shape:
            raise UserError(f"{other.location} has {other.shape} voxels, its raw {raw.shape}; they must be equal.")
        if any(abs(a - b) > 1e-3 * b for a, b in zip(other.voxel_size, raw.voxel_size, strict=True)):
            raise UserError(
                f"{other.location} has voxels of {other.voxel_size} nm, its raw {raw.voxel_size} nm; they must agree."
            )
        if any(abs(a - b) > 0.5 * v for a, b, v in zip(other.offset, raw.offset, raw.voxel_size, strict=True)):
            raise UserError(
                f"{other.location} begins at {other.offset} nm, its raw at {raw.offset} nm; they must lie in the same "
                "place. Correct the attribute `offset`, or cut both to the same region."
            )


def check_voxel_size(arrays: Sequence[LabelledArrays], wanted: Nanometres) -> None:
    """Refuse volumes of another voxel size than the project's.

    Raises:
        UserError: Which volume.
    """
    for volume in arrays:
        if any(abs(a - b) > 1e-3 * b for a, b in zip(volume.voxel_size, wanted, strict=True)):
            raise UserError(
                f"Volume {volume.name} has voxels of {volume.voxel_size} nm, the project's `voxel_size` is {wanted} "
                "nm; they must agree."
            )


def _read(source: Volume | NDArray[Any], begin: Sequence[int], shape: Sequence[int]) -> NDArray[Any]:
    if isinstance(source, Volume):
        return source.read(begin, shape)
    return source[tuple(slice(b, b + e) for b, e in zip(begin, shape, strict=True))]


def _read_reflected(source: Any, begin: Sequence[int], shape: Sequence[int]) -> NDArray[Any]:
    if isinstance(source, Volume):
        values = source.read_reflected(begin, shape)
        check_raw(values, source.location)
        return values
    return source[np.ix_(*(reflect_indices(b, e, s) for b, e, s in zip(begin, shape, source.shape, strict=True)))]
