"""Random crops of the training volumes; crop number n of a run is a pure function of (seed, n).

So batches can be prepared ahead by other threads, and a run that was stopped goes on with the very batches it would
have seen. A crop may leave its volume: there, raw is mirrored and no label counts. Where a crop may lie: see `places`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.training.job import TrainingVolume
from neuroloom.training.kept import KeptDescriptors
from neuroloom.training.places import CELL, Places
from neuroloom.training.truth import COUNTS, is_one_of, sort_labels
from neuroloom.training.windows import Window, whole
from neuroloom.volume import Volume, open_volume
from neuroloom.volume.array import Nanometres, Triple, same_voxel_size

IN_MEMORY_BYTES = 4 * 2**30
"""Volumes are read once and kept until together they have this size; the others are read crop by crop."""

SLAB = 4 * CELL
"""Sections of a volume that are looked at together."""


@dataclass(frozen=True)
class Crop:
    """A piece of a volume, not yet augmented, and not yet copied where the volume is in memory.

    Attributes:
        raw: uint8, or float32 in [0, 1].
        labels: Integers.
        roles: uint8, what each label is good for (see `truth`).
        descriptors: Kept ones of the region of raw, or None.
        volume: Name of the volume.
        centre: In voxels of the volume.
    """

    raw: Window
    labels: Window
    roles: Window
    descriptors: Window | None
    volume: str
    centre: Triple


class LabelledArrays:
    """Raw, labels and their roles in one volume.

    Args:
        volume: Where they lie.
        memory: Bytes that may be kept in memory.

    Attributes:
        nbytes: Bytes that are kept.
        cells: Voxels that count in each cell of `CELL` voxels, z y x.
        sparse: Whether only what is painted is known.
        absent: Ids that are named for this volume and occur nowhere in it.
        ids: Labels of which something is to be learned; two of them where there are more.
        descriptors: Kept ones, once they are computed.

    Raises:
        UserError: An array is missing, of the wrong type or shape, holds NaN, or nothing in it counts.
    """

    def __init__(self, volume: TrainingVolume, memory: int = IN_MEMORY_BYTES) -> None:
        self.name = volume.name
        self.sparse = volume.unlabelled == "ignore"
        self._volume = volume
        raw, labels = open_volume(volume.path, volume.raw), open_volume(volume.path, volume.labels)
        mask = None if volume.mask is None else open_volume(volume.path, volume.mask)
        _check(raw, labels, mask)
        self.shape = raw.shape
        self.voxel_size = raw.voxel_size
        size = raw.array.nbytes + labels.array.nbytes + math.prod(raw.shape)
        keep = size <= memory
        self.nbytes = size if keep else 0
        self._raw: Volume | NDArray[Any] = _native(raw.read()) if keep else raw
        self._labels: Volume | NDArray[Any] = _native(labels.read()) if keep else labels
        self._mask: Volume | NDArray[Any] | None = (mask.read() if keep else mask) if mask is not None else None
        self._roles: NDArray[np.uint8] | None = None
        if isinstance(self._raw, np.ndarray):
            check_raw(self._raw, raw.location)
        self.ids: set[int] = set()
        self.descriptors: KeptDescriptors | None = None
        labelled, self.cells, self.absent = self._scan()
        if labelled == 0:
            where = labels.location if mask is None else f"{mask.location} and {labels.location}"
            named = ", nor named in zero_ids or ignore_ids" if volume.zero_ids or volume.ignore_ids else ""
            raise UserError(
                f"{where}: no voxel is both labelled and masked in{named}, so there is nothing to learn from. "
                f"Correct {'the mask' if mask else 'the labels'}{' or these lists' if named else ''}, or leave "
                f"{'the mask' if mask else 'this volume'} out of the project file."
            )
        self.weight = float(labelled) if volume.weight is None else volume.weight

    def raw(self, begin: Sequence[int], shape: Sequence[int]) -> Window:
        """Raw in a region that may leave the volume.

        Args:
            begin: First voxel, z y x; may be negative.
            shape: Extent in voxels.
        """
        if isinstance(self._raw, Volume):
            values = self._raw.read_reflected(begin, shape)
            check_raw(values, self._raw.location)
            return whole(values)
        return Window(self._raw, _triple(begin), _triple(shape))

    def truth(self, begin: Sequence[int], shape: Sequence[int]) -> tuple[Window, Window]:
        """Labels and their roles in a region that may leave the volume; 0 outside.

        Args:
            begin: First voxel, z y x; may be negative.
            shape: Extent in voxels.
        """
        if self._roles is not None:
            assert isinstance(self._labels, np.ndarray)
            labels, roles, low = self._labels, self._roles, (0, 0, 0)
        else:
            low = _triple([min(max(0, b), s) for b, s in zip(begin, self.shape, strict=True)])
            high = [max(lo, min(b + n, s)) for lo, b, n, s in zip(low, begin, shape, self.shape, strict=True)]
            labels, roles = self._sorted(*self._stored(low, [h - lo for lo, h in zip(low, high, strict=True)]))
        start = _triple([b - lo for b, lo in zip(begin, low, strict=True)])
        return Window(labels, start, _triple(shape)), Window(roles, start, _triple(shape))

    def counting(self, begin: Sequence[int], shape: Sequence[int]) -> float:
        """Share of voxels that count in a region that may leave the volume."""
        return float(np.mean(self.truth(begin, shape)[1].read() == COUNTS))

    def _stored(self, begin: Sequence[int], shape: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Labels and mask of a region within the volume."""
        return _read(self._labels, begin, shape), None if self._mask is None else _read(self._mask, begin, shape)

    def _sorted(self, labels: NDArray[Any], mask: NDArray[Any] | None) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        volume = self._volume
        return sort_labels(_native(labels), mask, volume.unlabelled, volume.zero_ids, volume.ignore_ids)

    def _scan(self) -> tuple[int, NDArray[np.int64], list[int]]:
        """Voxels that are labelled and count, those that count in each cell, and named ids that were not met.

        Labels that are in memory are replaced by sorted ones on the way.
        """
        labelled, layers = 0, []
        absent = {*self._volume.zero_ids, *self._volume.ignore_ids}
        kept = np.empty(self.shape, np.uint8) if isinstance(self._labels, np.ndarray) else None
        for z in range(0, self.shape[0], SLAB):
            stored, mask = self._stored((z, 0, 0), (min(SLAB, self.shape[0] - z), *self.shape[1:]))
            if absent:
                absent -= set(np.unique(stored[is_one_of(stored, absent)]).tolist())
            labels, roles = self._sorted(stored, mask)
            counts = roles == COUNTS
            learned = labels[counts & (labels != 0)]
            labelled += learned.size
            if learned.size and len(self.ids) < 2:
                self.ids |= {int(learned.min()), int(learned.max())}
            sums = counts.astype(np.int64)
            for axis in range(3):
                sums = np.add.reduceat(sums, range(0, sums.shape[axis], CELL), axis=axis)
            layers.append(sums)
            if kept is not None:
                kept[z : z + SLAB] = roles
                if labels is not stored:
                    assert isinstance(self._labels, np.ndarray)
                    self._labels[z : z + SLAB] = labels
        if kept is not None:
            self._roles, self._mask = kept, None
        return labelled, np.concatenate(layers), sorted(absent)


class Crops:
    """Crops of several volumes, drawn with the probabilities given by their weights.

    Args:
        volumes: The volumes.
        seed: Of the draws.
        output: Extent of the part of which half must count, in voxels.
    """

    def __init__(self, volumes: Sequence[TrainingVolume], seed: int, output: Triple) -> None:
        self.arrays: list[LabelledArrays] = []
        memory = IN_MEMORY_BYTES
        for volume in volumes:
            self.arrays.append(LabelledArrays(volume, memory))
            memory -= self.arrays[-1].nbytes
        self._places = [Places(arrays, output) for arrays in self.arrays]
        weights = np.array([arrays.weight for arrays in self.arrays])
        self._probabilities = weights / weights.sum()
        self._seed = seed
        self._output = output

    def draw(self, number: int, raw_shape: Triple, label_shape: Triple) -> Crop:
        """Crop number n.

        Args:
            number: From 0.
            raw_shape: Extent of raw in voxels.
            label_shape: Extent of the labels; same centre, differs by even numbers.
        """
        random = np.random.default_rng([self._seed, number])
        volume = int(random.choice(len(self.arrays), p=self._probabilities))
        arrays = self.arrays[volume]
        begin = self._places[volume].draw(random)

        def around(shape: Triple) -> list[int]:
            return [b - (s - o) // 2 for b, s, o in zip(begin, shape, self._output, strict=True)]

        labels, roles = arrays.truth(around(label_shape), label_shape)
        kept = arrays.descriptors
        return Crop(
            raw=arrays.raw(around(raw_shape), raw_shape),
            labels=labels,
            roles=roles,
            descriptors=None if kept is None else kept.window(around(raw_shape), raw_shape),
            volume=arrays.name,
            centre=_triple([b + o // 2 for b, o in zip(begin, self._output, strict=True)]),
        )


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
        if not same_voxel_size(other.voxel_size, raw.voxel_size):
            raise UserError(
                f"{other.location} has voxels of {other.voxel_size} nm, its raw {raw.voxel_size} nm; they must agree."
            )
        if any(abs(a - b) > 0.5 * v for a, b, v in zip(other.offset, raw.offset, raw.voxel_size, strict=True)):
            raise UserError(
                f"{other.location} begins at {other.offset} nm, its raw at {raw.offset} nm; they must lie in the same "
                "place. Correct the attribute `offset`, or cut both to the same region."
            )


def check_labels(arrays: Sequence[LabelledArrays]) -> None:
    """Refuse training volumes that show no two objects.

    Raises:
        UserError: There is one label in all of them.
    """
    names = " and ".join(volume.name for volume in arrays)
    number = sum(len(volume.ids) for volume in arrays)
    if number == 1 and not any(volume.sparse for volume in arrays):
        raise UserError(
            f"There is one label only in {names}, so there are no neurites to tell apart. Give every neurite its own "
            "id, for example by connected components, or add a volume to train on."
        )


def check_voxel_size(arrays: Sequence[LabelledArrays], wanted: Nanometres) -> None:
    """Refuse volumes of another voxel size than the project's.

    Raises:
        UserError: Which volume.
    """
    for volume in arrays:
        if not same_voxel_size(volume.voxel_size, wanted):
            raise UserError(
                f"Volume {volume.name} has voxels of {volume.voxel_size} nm, the project's `voxel_size` is {wanted} "
                "nm; they must agree."
            )


def _read(source: Volume | NDArray[Any], begin: Sequence[int], shape: Sequence[int]) -> NDArray[Any]:
    if isinstance(source, Volume):
        return source.read(begin, shape)
    return source[tuple(slice(b, b + e) for b, e in zip(begin, shape, strict=True))]


def _native(values: NDArray[Any]) -> NDArray[Any]:
    """In this machine's order of bytes, as kernels need it."""
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))


def _triple(values: Sequence[int]) -> Triple:
    z, y, x = values
    return z, y, x
