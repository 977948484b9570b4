"""Import: other people's files into one zarr volume with raw, labels and mask on the same grid.

    raw     +---------------------------+      volumes/raw                uint8, or float32 in [0, 1]
            |        labels             |      volumes/labels/neuron_ids  uint64, 0 outside the labelled box
            |      +----------+         |      volumes/labels/mask        1 where the labels may be used
            |      |          |         |
            |      +----------+         |      labels may be smaller than raw when their offset is known;
            +---------------------------+      the raw around them is context to train with

Regions are read in whole chunks of source and volume, in bounded memory; regions too large for it (a stack of big
sections) pass through a scratch file beside the output. Everything is written in a hidden folder beside the output and
moved into place in one step: an interrupted import leaves nothing that looks whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.core.sync import sync

from neuroloom.errors import UserError
from neuroloom.files import explain_os_errors, lock
from neuroloom.volume.array import DATASETS, Nanometres, Triple, Volume, create_volume, open_volume
from neuroloom.volume.importing.conversion import (
    Convert,
    Rescale,
    labels_conversion,
    mask_conversion,
    raw_conversion,
)
from neuroloom.volume.importing.readers import open_source
from neuroloom.volume.importing.source import Source

Progress = Callable[[int, int], None]

CHUNK = 64  # voxels
SHARD = 256  # voxels; files of this size keep a large volume from becoming millions of files
_SHARD_ABOVE = 4 << 30  # voxels
_REGION = 1 << 23  # voxels; grow regions of finely chunked sources up to this size
_MEMORY = 1 << 29  # bytes; larger regions go through a scratch file


@dataclass(frozen=True)
class Imported:
    """What an import made.

    Attributes:
        path: The zarr container.
        written: Dataset to element type, in words: {"volumes/raw": "uint8"}.
        shape: Voxels, z y x.
        voxel_size: nm, z y x.
        offset: nm, z y x.
        notes: What the user should know: assumptions made, things that look odd.
    """

    path: Path
    written: dict[str, str]
    shape: Triple
    voxel_size: Nanometres
    offset: Nanometres
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Part:
    """One dataset to write: a source at its place in the grid, or None for a mask that is 1 in a box."""

    dataset: str
    source: Source | None
    begin: Triple
    extent: Triple
    dtype: np.dtype[Any]
    convert: Convert
    attributes: dict[str, Any]


def import_volume(
    out: str | Path,
    *,
    raw: str | None = None,
    labels: str | None = None,
    mask: str | None = None,
    voxel_size: Sequence[float] | None = None,
    offset: Sequence[float] | None = None,
    label_offset: Sequence[float] | None = None,
    axes: str | None = None,
    rescale: Rescale | None = None,
    background: Sequence[int] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Imported:
    """Import raw, labels and mask, or some of them, into a zarr volume.

    Args:
        out: The zarr container; datasets are added when it exists.
        raw: "FILE" or "FILE:DATASET" of the image.
        labels: The same of the labels.
        mask: The same of the mask; 1 over the labelled box when there are labels and no mask.
        voxel_size: nm z y x; None takes it from the files.
        offset: nm z y x of raw; None takes it from the file, or 0.
        label_offset: nm z y x of labels that are smaller than raw; None takes it from the file.
        axes: Order of the axes in all files named; None for what each says, else z y x (N5: x y z).
        rescale: Which raw values become 0 and 255; None refuses what is not uint8 or in [0, 1].
        background: Ids that become 0.
        overwrite: Replace datasets that exist.
        progress: Called with (voxels done, voxels in all).

    Returns:
        What was made.

    Raises:
        UserError: Anything about files, ranges, types, voxel sizes or places that does not fit; nothing is left.
    """
    out = Path(out)
    sources = {
        role: open_source(text, role, axes)  # type: ignore[arg-type]
        for role, text in (("raw", raw), ("labels", labels), ("mask", mask))
        if text is not None
    }
    if not sources:
        raise UserError("Nothing to import: name a file with --raw, --labels or --mask.")
    _check_output(out, [DATASETS[role] for role in sources], overwrite)
    notes = [note for source in sources.values() for note in source.notes]
    existing = None if "raw" in sources else _existing_raw(out)
    size = _voxel_size(sources, existing, voxel_size, notes)
    shape, origin = _grid(sources, existing, offset)
    parts = _parts(sources, shape, origin, size, label_offset, rescale, background, existing, notes)
    _check_output(out, [part.dataset for part in parts], overwrite)

    room = out.with_name(f".{out.name}.import")
    try:
        with lock(room / "lock", f"import of {out.name}"):
            partial = room / "partial.zarr"
            shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
            try:
                with explain_os_errors(out):
                    _write_parts(partial, parts, shape, size, origin, progress)
                    _publish(partial, out, [part.dataset for part in parts])
            finally:
                _remove(partial)
    finally:
        with contextlib.suppress(OSError):  # another run's lock is in it
            room.rmdir()
    return Imported(out, {p.dataset: str(p.dtype) for p in parts}, shape, size, origin, tuple(notes))


def _check_output(out: Path, names: Sequence[str], overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; expected the name of a zarr container (a folder). Choose another name.")
    if out.is_dir() and not (out / "zarr.json").exists() and any(out.iterdir()):
        what = "a zarr v2 container" if (out / ".zgroup").exists() else "a folder that is no zarr container"
        raise UserError(f"{out} is {what}; import writes zarr v3. Choose another name.")
    taken = [name for name in names if (out / name).exists()]
    if taken and not overwrite:
        raise UserError(f"{out} holds {' and '.join(taken)} already. Choose another name, or add --overwrite.")


def _existing_raw(out: Path) -> Volume | None:
    return open_volume(out, DATASETS["raw"]) if (out / DATASETS["raw"]).exists() else None


def _voxel_size(
    sources: dict[str, Source], existing: Volume | None, wanted: Sequence[float] | None, notes: list[str]
) -> Nanometres:
    """The voxel size of all parts: the user's word, else what the files say, which must agree."""
    if wanted is not None:
        z, y, x = (float(v) for v in wanted)
        if not all(math.isfinite(v) and v > 0 for v in (z, y, x)):
            raise UserError(f"--voxel-size {_text(wanted)}: expected three numbers above 0, in nm, z y x.")
        for source in sources.values():
            if any(v is not None and not _equal(v, w) for v, w in zip(source.voxel_size, (z, y, x), strict=True)):
                notes.append(
                    f"{source.location} says {_text(source.voxel_size)} nm per voxel; {_text((z, y, x))} was asked for "
                    "and is used"
                )
        if existing is not None and not all(map(_equal, existing.voxel_size, (z, y, x))):
            raise UserError(
                f"{existing.location} has voxels of {_text(existing.voxel_size)} nm, but --voxel-size is "
                f"{_text((z, y, x))}. Everything in a volume has one voxel size."
            )
        return z, y, x
    known: dict[str, tuple[float | None, ...]] = {s.location: s.voxel_size for s in sources.values()}
    if existing is not None:
        known[existing.location] = existing.voxel_size
    size: list[float | None] = [None, None, None]
    said: list[str] = ["", "", ""]
    for location, values in known.items():
        for axis, value in enumerate(values):
            if value is None:
                continue
            if size[axis] is None:
                size[axis], said[axis] = value, location
            elif not _equal(value, size[axis]):
                raise UserError(
                    f"{location} has voxels of {_text(values)} nm, but {said[axis]} of {_text(known[said[axis]])} nm "
                    "(z, y, x). Raw, labels and mask must agree: resample one of them, or, if a file is wrong, say "
                    "the true size with --voxel-size Z,Y,X."
                )
    if any(v is None or not math.isfinite(v) or v <= 0 for v in size):
        names = " and ".join(known)
        verb = "says" if len(known) == 1 else "say"
        found = f"only {_text(size)} nm (z, y, x)" if any(v is not None for v in size) else "nothing"
        raise UserError(f"{names} {verb} {found} about the voxel size. Add --voxel-size Z,Y,X in nm.")
    z, y, x = (float(v) for v in size if v is not None)
    return z, y, x


def _grid(
    sources: dict[str, Source], existing: Volume | None, wanted: Sequence[float] | None
) -> tuple[Triple, Nanometres]:
    """Shape in voxels and offset in nm of the volume: those of raw, else of the labels, else of the mask."""
    if existing is not None:
        if wanted is not None and not all(map(_equal, wanted, existing.offset)):
            raise UserError(f"{existing.location} lies at {_text(existing.offset)} nm; leave out --offset.")
        return existing.shape, existing.offset
    source = next(iter(sources.values()))
    oz, oy, ox = (float(v) for v in (wanted or source.offset or (0.0, 0.0, 0.0)))
    if not all(math.isfinite(v) for v in (oz, oy, ox)):
        raise UserError(f"--offset {oz:g},{oy:g},{ox:g}: expected three numbers in nm, z y x.")
    return source.shape, (oz, oy, ox)


def _parts(
    sources: dict[str, Source],
    shape: Triple,
    origin: Nanometres,
    size: Nanometres,
    label_offset: Sequence[float] | None,
    rescale: Rescale | None,
    background: Sequence[int],
    existing: Volume | None,
    notes: list[str],
) -> list[_Part]:
    parts: list[_Part] = []
    if "raw" in sources:
        dtype, convert, values = raw_conversion(sources["raw"], rescale)
        attributes = {"imported_from": Path(sources["raw"].location).name}
        if values is not None:
            attributes |= {"rescaled_from": list(values)}  # type: ignore[dict-item]
            notes.append(f"raw values {values[0]:g} … {values[1]:g} became 0 … 255")
        parts.append(_Part(DATASETS["raw"], sources["raw"], (0, 0, 0), shape, dtype, convert, attributes))
    elif rescale is not None:
        raise UserError("--rescale is for raw, but no --raw is named.")
    # where raw stands in the coordinates of the labels' file; --offset moves both
    raw_place = sources["raw"].offset if "raw" in sources else (existing.offset if existing else None)
    box: tuple[Triple, Triple] = ((0, 0, 0), shape)
    if "labels" in sources:
        source = sources["labels"]
        begin = _place(source, shape, origin, raw_place, size, label_offset)
        box = (begin, source.shape)
        parts.append(
            _Part(
                DATASETS["labels"],
                source,
                begin,
                source.shape,
                np.dtype(np.uint64),
                labels_conversion(source, background),
                {"imported_from": Path(source.location).name},
            )
        )
    elif background or label_offset is not None:
        raise UserError("--background and --label-offset are for labels, but no --labels is named.")
    if "mask" in sources:
        source = sources["mask"]
        fits_labels = source.offset is None and source.shape == box[1]
        begin = box[0] if fits_labels else _place(source, shape, origin, raw_place, size, None)
        binarise = mask_conversion(source)
        start = begin

        def within(block: NDArray[Any], at: Sequence[int]) -> NDArray[Any]:
            inside = binarise(block, at)
            for axis, (low, extent) in enumerate(zip(*box, strict=True)):
                position = np.arange(inside.shape[axis]) + at[axis] + start[axis]
                inside[(slice(None),) * axis + ((position < low) | (position >= low + extent),)] = 0
            return inside

        attributes = {"imported_from": Path(source.location).name}
        parts.append(_Part(DATASETS["mask"], source, begin, source.shape, np.dtype(np.uint8), within, attributes))
    elif "labels" in sources:
        attributes = {"imported_from": "the extent of the labels"}
        ones: Convert = lambda block, at: np.ones(block.shape, np.uint8)  # noqa: E731
        parts.append(_Part(DATASETS["mask"], None, box[0], box[1], np.dtype(np.uint8), ones, attributes))
    return parts


def _place(
    source: Source,
    shape: Triple,
    origin: Nanometres,
    raw_place: Nanometres | None,
    size: Nanometres,
    wanted: Sequence[float] | None,
) -> Triple:
    """The voxel of the grid at which a source begins.

    Raises:
        UserError: Its place is not known, lies between voxels, or it sticks out of the grid.
    """
    if wanted is not None:
        distance = [w - o for w, o in zip(wanted, origin, strict=True)]
    elif source.offset is not None and (raw_place is not None or source.shape != shape):
        distance = [a - b for a, b in zip(source.offset, raw_place or (0.0, 0.0, 0.0), strict=True)]
    elif source.shape == shape:
        return 0, 0, 0
    else:
        raise UserError(
            f"{source.location} has {_text(source.shape)} voxels, but raw has {_text(shape)} (z, y, x). If it covers "
            "a part of raw, say where it begins with --label-offset Z,Y,X in nm; otherwise crop one to fit the other."
        )
    begin = [round(d / s) for d, s in zip(distance, size, strict=True)]
    if any(abs(b * s - d) > 0.01 * s for b, s, d in zip(begin, size, distance, strict=True)):
        raise UserError(
            f"{source.location} begins {_text(distance)} nm from raw, which is no whole number of voxels of "
            f"{_text(size)} nm. Give its place with --label-offset, or resample it onto raw's voxels."
        )
    end = [b + e for b, e in zip(begin, source.shape, strict=True)]
    if any(b < 0 or e > s for b, e, s in zip(begin, end, shape, strict=True)):
        raise UserError(
            f"{source.location} covers voxels {_text(begin)} to {_text(end)} of raw, which has {_text(shape)} "
            "(z, y, x). Crop it, or give its place with --label-offset Z,Y,X in nm."
        )
    z, y, x = begin
    return z, y, x


def _remove(folder: Path) -> None:
    """Delete a folder once nobody writes into it: after Ctrl-C, zarr's threads go on with what they were given."""
    if folder.exists():
        with contextlib.suppress(TimeoutError):
            sync(_writers_ended(), timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


async def _writers_ended() -> None:
    """Wait for what else runs in zarr's event loop: chunks that are being written."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)


def _write_parts(
    partial: Path,
    parts: Sequence[_Part],
    shape: Triple,
    size: Nanometres,
    origin: Nanometres,
    progress: Progress | None,
) -> None:
    total = sum(math.prod(part.extent) for part in parts)
    done = 0
    sharded = math.prod(shape) > _SHARD_ABOVE
    unit = SHARD if sharded else CHUNK
    for part in parts:
        volume = create_volume(
            partial,
            part.dataset,
            shape,
            part.dtype,
            size,
            origin,
            chunks=(CHUNK,) * 3,
            shards=(SHARD,) * 3 if sharded else None,
            attributes=part.attributes,
        )
        any_inside = False
        for begin, block in _regions(part, unit, partial.parent):
            for inner, piece in _pieces(part, begin, block, unit):
                converted = part.convert(piece, inner)
                any_inside = any_inside or bool(converted.any())
                volume.write([b + p for b, p in zip(inner, part.begin, strict=True)], converted)
                done += piece.size
                if progress is not None:
                    progress(done, total)
        if not any_inside:
            _refuse_empty(part)


def _refuse_empty(part: _Part) -> None:
    location = part.source.location if part.source else part.dataset
    if part.dataset == DATASETS["mask"]:
        raise UserError(f"{location} is 0 everywhere the labels are: no voxel could be trained on. Check the mask.")
    if part.dataset == DATASETS["labels"]:
        raise UserError(f"{location} is 0 everywhere: there are no labels in it. Check the file and the dataset.")
    raise UserError(f"{location} is 0 everywhere: there is no image in it. Check the file and the dataset.")


def _regions(part: _Part, unit: int, scratch: Path) -> Iterator[tuple[Triple, NDArray[Any]]]:
    """Read a part region by region; regions are whole chunks of the volume, and of the source where its are larger.

    Yields:
        First voxel within the part, z y x, and the region; a region too large for memory lies in a scratch file.
    """
    source = part.source
    extent = [unit] * 3
    if source is not None:
        # a section that is decoded as a whole is used as a whole
        extent = [max(unit, -(-chunk // unit) * unit) for chunk in source.chunks]
    for axis in (2, 1, 0):
        while extent[axis] < part.extent[axis] and 2 * math.prod(extent) <= _REGION:
            extent[axis] *= 2
    # borders on the volume's chunks: the first region is short where the part begins inside a chunk
    borders = [
        sorted({0, size, *range(-(b % e) + e, size, e)})
        for size, b, e in zip(part.extent, part.begin, extent, strict=True)
    ]
    spans = [list(pairwise(border)) for border in borders]
    for z0, z1 in spans[0]:
        for y0, y1 in spans[1]:
            for x0, x1 in spans[2]:
                begin, shape = (z0, y0, x0), (z1 - z0, y1 - y0, x1 - x0)
                if source is None:
                    yield begin, np.broadcast_to(np.uint8(1), shape)
                elif math.prod(shape) * source.dtype.itemsize <= _MEMORY:
                    yield begin, source.read(begin, shape)
                else:
                    with _spooled(source, begin, shape, scratch) as block:
                        yield begin, block


@contextlib.contextmanager
def _spooled(source: Source, begin: Triple, shape: Triple, folder: Path) -> Iterator[NDArray[Any]]:
    """A region in a scratch file, filled section by section along the axis of the source's thinnest chunks."""
    file = folder / f"scratch-{os.getpid()}"
    axis = int(np.argmin([c / s for c, s in zip(source.chunks, shape, strict=True)]))
    step = max(1, source.chunks[axis])
    try:
        with open(file, "wb") as room:
            # real blocks, not a sparse file: a full disk is found here, not as a crash while writing through the map
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(room.fileno(), 0, math.prod(shape) * source.dtype.itemsize)
            else:
                room.truncate(math.prod(shape) * source.dtype.itemsize)
        block: np.memmap[Any, Any] = np.memmap(file, dtype=source.dtype, mode="r+", shape=shape)
        first = begin[axis]
        last = begin[axis] + shape[axis]
        while first < last:
            stop = min(last, (first // step + 1) * step)
            at, size = list(begin), list(shape)
            at[axis], size[axis] = first, stop - first
            place = slice(first - begin[axis], stop - begin[axis])
            block[(slice(None),) * axis + (place,)] = source.read(at, size)
            first = stop
        yield block
    finally:
        file.unlink(missing_ok=True)


def _pieces(part: _Part, begin: Triple, block: NDArray[Any], unit: int) -> Iterator[tuple[Triple, NDArray[Any]]]:
    """Cut a large region into pieces of whole chunks, small enough to convert in memory."""
    side = max(unit, SHARD)
    # pieces end on the volume's chunk borders, wherever the region begins
    borders = [
        sorted({0, size, *range(side - (b + p) % side, size, side)})
        for size, b, p in zip(block.shape, begin, part.begin, strict=True)
    ]
    spans = [list(pairwise(border)) for border in borders]
    for z0, z1 in spans[0]:
        for y0, y1 in spans[1]:
            for x0, x1 in spans[2]:
                at = (begin[0] + z0, begin[1] + y0, begin[2] + x0)
                yield at, np.asarray(block[z0:z1, y0:y1, x0:x1])


def _publish(partial: Path, out: Path, names: Sequence[str]) -> None:
    """Move what is complete to its place: the whole container, or dataset by dataset into one that exists."""
    if not out.exists() or not any(out.iterdir()):
        os.rename(partial, out)
        return
    for name in names:
        target, old = out / name, partial / f"{name}.replaced"
        for parent in reversed([p for p in target.relative_to(out).parents if p.name]):
            if not (out / parent).exists():
                (out / parent).mkdir()
                shutil.copy(partial / parent / "zarr.json", out / parent / "zarr.json")
        if target.exists():
            os.rename(target, old)
        os.rename(partial / name, target)


def _equal(a: float | None, b: float | None) -> bool:
    return a is not None and b is not None and math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-6)


def _text(values: Sequence[float | None]) -> str:
    return ",".join("?" if value is None else f"{value:g}" for value in values)
