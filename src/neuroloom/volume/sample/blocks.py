"""Synthetic neuropil with exact truth: any block of an endless volume, made on its own.

    (seed, coordinates) -> skeletons -> cells (who is where) -> grey values -> blur, noise -> raw
                                          `----------------------------------------------> labels

Nothing is drawn in order and nothing is kept between calls, so two blocks agree at their border and any partition of
a volume gives the same bytes. Rooms: `sample_noise` (hashed randomness), `sample_neurites` (skeletons),
`sample_cells` (the weighted Voronoi diagram round them), `sample_looks` (the microscope).
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuroloom.errors import UserError
from neuroloom.files import explain_os_errors
from neuroloom.volume.array import create_volume
from neuroloom.volume.sample.cells import REACH, fill_space
from neuroloom.volume.sample.looks import Look, develop, halo_of, paint
from neuroloom.volume.sample.neurites import Skeletons, skeletons_near
from neuroloom.volume.sample.noise import field_noise, key_of

Triple = tuple[int, int, int]

REFERENCE_CALIBRE = 200.0  # nm; the calibre at which the skeletons are drawn
TILE = 96  # voxels; the largest piece whose intermediate fields are in memory at once
REGION = 192  # voxels; the largest piece whose skeletons are made at once
SECTION = 20.0  # nm; a voxel that is thicker than 1.5 of these is the mean of an odd number of thinner samples
WALL_WAVE, WALL_SHIFT = 150.0, 80.0  # nm; unevenness of the membranes


@dataclass(frozen=True)
class SampleParameters:
    """What the synthetic tissue is and how it is imaged.

    Attributes:
        seed: Names the tissue; another seed, another tissue.
        voxel_size: nm, z y x. The tissue is the same, in nm, for every voxel size.
        look: "em" (dark membranes on grey) or "exm" (expansion microscopy: bright stain, axial blur, photon noise).
        calibre: Typical diameter of a thin neurite in nm.
    """

    seed: int = 0
    voxel_size: tuple[float, float, float] = (8.0, 8.0, 8.0)
    look: Look = "em"
    calibre: float = REFERENCE_CALIBRE

    def __post_init__(self) -> None:
        if self.look not in ("em", "exm"):
            raise UserError(f"Sample look {self.look!r} is not known. Use em or exm.")
        if len(self.voxel_size) != 3 or not all(math.isfinite(v) and 1.0 <= v <= 200.0 for v in self.voxel_size):
            raise UserError(f"Sample voxel size {self.voxel_size}: expected three numbers from 1 to 200 nm, z y x.")
        if not (math.isfinite(self.calibre) and 50.0 <= self.calibre <= 2000.0):
            raise UserError(f"Sample calibre {self.calibre} nm: expected a number from 50 to 2000.")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"Sample seed {self.seed}: expected an integer of at least 0 and below 2**63.")


def make_block(
    parameters: SampleParameters, begin: Triple, shape: Triple
) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """Make one block of the endless volume.

    Args:
        parameters: The tissue and the microscope.
        begin: First voxel, z y x, of either sign.
        shape: Extent in voxels, z y x.

    Returns:
        raw: `(z, y, x)` uint8.
        labels: `(z, y, x)` uint64, one id per neurite of the endless volume, up to the middle of the membranes.
    """
    raw = np.empty(shape, np.uint8)
    labels = np.empty(shape, np.uint64)
    for start, extent in tiles(shape, (REGION, REGION, REGION)):
        skeletons = _skeletons(parameters, _shifted(begin, start), extent)
        for inner, size in tiles(extent, (TILE, TILE, TILE)):
            corner = _shifted(start, inner)
            at = tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))
            raw[at], labels[at] = _make_tile(parameters, skeletons, _shifted(begin, corner), size)
    return raw, labels


def _shifted(begin: Triple, by: Triple) -> Triple:
    return begin[0] + by[0], begin[1] + by[1], begin[2] + by[2]


def tiles(shape: Triple, tile: Triple) -> Iterator[tuple[Triple, Triple]]:
    """Begin and extent of the tiles that cover a shape, in z, y, x order; the last ones are cut."""
    for z in range(0, shape[0], tile[0]):
        for y in range(0, shape[1], tile[1]):
            for x in range(0, shape[2], tile[2]):
                extent = (min(tile[0], shape[0] - z), min(tile[1], shape[1] - y), min(tile[2], shape[2] - x))
                yield (z, y, x), extent


def _skeletons(parameters: SampleParameters, begin: Triple, shape: Triple) -> Skeletons:
    """The skeletons that have a say in a region and in the halo of its blur."""
    voxel_size = np.array(parameters.voxel_size, np.float64)
    scale = parameters.calibre / REFERENCE_CALIBRE
    halo = halo_of(parameters.look, voxel_size)
    low = (np.array(begin) - halo) * voxel_size / scale
    high = (np.array(begin) + np.array(shape) + halo) * voxel_size / scale
    return skeletons_near(parameters.seed, low - REACH - WALL_SHIFT, high + REACH + WALL_SHIFT)


def _make_tile(
    parameters: SampleParameters, skeletons: Skeletons, corner: Triple, extent: Triple
) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    begin, shape = np.array(corner, np.int64), np.array(extent, np.int64)
    voxel_size = np.array(parameters.voxel_size, np.float64)
    scale = parameters.calibre / REFERENCE_CALIBRE
    halo = halo_of(parameters.look, voxel_size)
    # thick voxels are sampled at an odd number of places along the axis: the middle one gives the label
    samples = 1 + 2 * np.floor(voxel_size / (1.5 * SECTION)).astype(np.int64)
    fine_size = voxel_size / samples
    fine_begin, fine_shape = (begin - halo) * samples, (shape + 2 * halo) * samples
    names, index = np.unique(skeletons.neurite, return_inverse=True)
    shift = np.stack(
        [
            np.float32(WALL_SHIFT)
            * field_noise(key_of(parameters.seed, 4, axis), fine_begin, fine_shape, fine_size / scale, WALL_WAVE)
            for axis in range(3)
        ]
    )
    cells = fill_space(skeletons, index, fine_begin, fine_shape, fine_size, scale, shift)
    grey = paint(parameters.look, parameters.seed, cells, names, fine_begin, fine_size)
    raw = develop(parameters.look, parameters.seed, _average(grey, samples), begin, voxel_size)

    middle = tuple(
        slice(int(h * s + s // 2), int((h + n) * s), int(s)) for h, n, s in zip(halo, shape, samples, strict=True)
    )
    owner = cells.neurite[middle]
    return raw, np.where(owner < 0, np.uint64(0), names[owner])


def _average(grey: NDArray[np.float32], samples: NDArray[np.int64]) -> NDArray[np.float32]:
    """Mean of the samples within each voxel, added in a fixed order."""
    for axis, count in enumerate(int(s) for s in samples):
        if count > 1:
            parts = np.moveaxis(grey.reshape(*grey.shape[:axis], -1, count, *grey.shape[axis + 1 :]), axis + 1, 0)
            total = parts[0].copy()
            for part in parts[1:]:
                total += part
            grey = total / np.float32(count)
    return np.ascontiguousarray(grey)


def write_sample(
    path: str | Path,
    parameters: SampleParameters,
    shape: Triple,
    begin: Triple = (0, 0, 0),
    *,
    block: int = 192,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a region of the endless volume as a training volume: raw, labels and an all-one mask.

    Args:
        path: The zarr container to make; it appears under this name when it is complete.
        parameters: The tissue and the microscope.
        shape: Extent in voxels, z y x.
        begin: First voxel, z y x; the volume's offset in nm is begin * voxel size.
        block: Voxels per side of the pieces made in memory, a multiple of 64.
        progress: Called with (voxels done, voxels in all) after each piece.

    Raises:
        UserError: The path exists, the shape is not positive, or the disk is full or read-only.
    """
    target = Path(path)
    if target.exists():
        raise UserError(f"{target} exists already. Choose another name, or delete it first.")
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(f"Sample shape {tuple(shape)}: expected three numbers of at least 1 voxel, z y x.")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    attributes = {"sample": {**asdict(parameters), "begin": list(begin)}}
    offset = [b * v for b, v in zip(begin, parameters.voxel_size, strict=True)]
    try:
        volumes = [
            create_volume(partial, name, shape, dtype, parameters.voxel_size, offset, attributes=attributes)
            for name, dtype in (
                ("volumes/raw", np.uint8),
                ("volumes/labels/neuron_ids", np.uint64),
                ("volumes/labels/mask", np.uint8),
            )
        ]
        done = 0
        for start, extent in tiles(shape, (block, block, block)):
            corner = (begin[0] + start[0], begin[1] + start[1], begin[2] + start[2])
            raw, labels = make_block(parameters, corner, extent)
            volumes[0].write(start, raw)
            volumes[1].write(start, labels)
            volumes[2].write(start, np.ones(extent, np.uint8))
            done += raw.size
            if progress is not None:
                progress(done, math.prod(shape))
        with explain_os_errors(target):
            os.rename(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
