"""Readers of images that come section by section: multi-page TIFF, folders of TIFF or PNG files.

    folder/section_1.png, section_2.png, ... section_10.png      natural order: 2 comes before 10

Voxel sizes are read from ImageJ's tags (pixels per unit, spacing) and from OME-XML (PhysicalSizeX and its unit).
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from neuroloom.errors import UserError
from neuroloom.volume.formats.file_array import FileArray, Lengths, readable
from neuroloom.volume.units import nanometres_per

_TIFF = (".tif", ".tiff")
SECTION_SUFFIXES = (".png", *_TIFF)


def natural_key(name: str) -> tuple[tuple[int, str], ...]:
    """Sort key that orders numbers inside names by value: section_2 before section_10."""
    parts = re.split(r"(\d+)", name)
    return tuple((int(part), part) if part.isdigit() else (-1, part.lower()) for part in parts)


def read_folder(folder: Path) -> FileArray:
    """A folder of sections, one PNG or TIFF file each, in natural order of their names.

    Args:
        folder: Files that are no images are passed over.

    Returns:
        The array `(z, y, x)`, or with a channel axis at the end for colour images.

    Raises:
        UserError: PNG and TIFF are mixed, a file is damaged, or the sections differ in size or type.
    """
    files = sorted(
        (p for p in folder.iterdir() if p.suffix.lower() in SECTION_SUFFIXES and not p.name.startswith(".")),
        key=lambda p: natural_key(p.name),
    )
    tiff = [p for p in files if p.suffix.lower() in _TIFF]
    if tiff and len(tiff) < len(files):
        raise UserError(f"{folder} holds {len(files) - len(tiff)} PNG and {len(tiff)} TIFF files. Keep one kind.")
    read_file: Callable[[Path], NDArray[Any]] = _read_tiff_section if tiff else _read_png
    first = read_file(files[0])
    if first.ndim not in (2, 3):
        raise UserError(f"{files[0]} has shape {first.shape}; expected one section, y and x, per file.")

    def read(at: tuple[slice, ...]) -> NDArray[Any]:
        sections = []
        for file in files[at[0]]:
            section = read_file(file)
            if section.shape != first.shape or section.dtype != first.dtype:
                raise UserError(
                    f"{file} is {section.shape} {section.dtype}, but {files[0].name} is {first.shape} {first.dtype}. "
                    "All sections must agree."
                )
            sections.append(section[at[1:]])
        return np.stack(sections)

    axes = "zyx" if first.ndim == 2 else "zyxc"
    nothing: Lengths = (None,) * len(axes)
    notes = (f"{folder}: {len(files)} sections, {files[0].name} … {files[-1].name}", *_gaps(folder, files))
    return FileArray(
        str(folder), (len(files), *first.shape), first.dtype, axes, (1, *first.shape), read, nothing, nothing, notes
    )


def _gaps(folder: Path, files: Sequence[Path]) -> list[str]:
    """Say so when the numbers in the names jump: a missing section shifts everything behind it."""
    numbers = [[int(n) for n in re.findall(r"\d+", file.stem)] for file in files]
    if not numbers[0] or len({len(n) for n in numbers}) != 1:
        return []
    last = [n[-1] for n in numbers]
    steps = [b - a for a, b in pairwise(last)]
    usual = min(steps, default=1)
    jumps = [i for i, step in enumerate(steps) if step != usual]
    if not jumps or usual < 1 or len({tuple(n[:-1]) for n in numbers}) != 1:
        return []
    i = jumps[0]
    return [
        f"{folder}: section numbers jump from {last[i]} to {last[i + 1]}"
        + (f" and in {len(jumps) - 1} more places" if len(jumps) > 1 else "")
        + "; a section may be missing"
    ]


def _read_png(file: Path) -> NDArray[Any]:
    with readable(str(file)), warnings.catch_warnings():
        # a section of 20,000² voxels is ordinary here, and no attack
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            with Image.open(file) as image:
                # of a palette image these are the numbers, not the colours: what a label painter saves
                return np.asarray(image)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _read_tiff_section(file: Path) -> NDArray[Any]:
    with _strict(str(file)), tifffile.TiffFile(file) as tiff:
        if len(tiff.pages) != 1:
            raise UserError(f"{file} has {len(tiff.pages)} pages; in a folder of sections each file must have one.")
        return np.asarray(tiff.pages[0].asarray())


def read_tiff(file: Path) -> FileArray:
    """A multi-page TIFF, plain, ImageJ or OME, of any compression.

    Args:
        file: Pages are sections, unless the file names its axes otherwise.

    Raises:
        UserError: The file is damaged or holds several images that are no stack.
    """
    with _strict(str(file)):
        tiff = tifffile.TiffFile(file)
        series = tiff.series[0]
        alike = all(s.shape == series.shape and s.dtype == series.dtype for s in tiff.series)
        if len(tiff.series) > 1 and not (alike and len(series.pages) == 1 and series.ndim == 2):
            raise UserError(
                f"{file} holds {len(tiff.series)} images ("
                + ", ".join(f"{s.shape} {s.dtype}" for s in tiff.series[:4])
                + "); expected one stack. Save the stack alone."
            )
        # pages that were added one by one are a stack too
        pages = [s.pages[0] for s in tiff.series] if len(tiff.series) > 1 else series.pages
        stack_shape = tuple(series.shape) if len(tiff.series) == 1 else (len(pages), *series.shape)
        axes = _tiff_axes(series.axes if len(tiff.series) == 1 else "ZYX")
        voxel_size = _tiff_voxel_size(tiff, axes, str(file))
        nothing: Lengths = (None,) * len(axes)
        if series.dataoffset is not None and len(tiff.series) == 1:
            data = tifffile.memmap(file, mode="r")
            chunks = (1,) * len(axes)
            shape, dtype = data.shape, data.dtype
            return FileArray(str(file), shape, dtype, axes, chunks, lambda at: np.array(data[at]), voxel_size, nothing)
        page_shape = tuple(pages[0].shape)
        outer = stack_shape[: len(stack_shape) - len(page_shape)]

    def read(at: tuple[slice, ...]) -> NDArray[Any]:
        leading, inner = at[: len(outer)], at[len(outer) :]
        ranges = [range(*part.indices(size)) for part, size in zip(leading, outer, strict=True)]
        numbers = np.arange(int(np.prod(outer, dtype=np.int64))).reshape(outer)[leading]
        with _strict(str(file)):
            data = [_page(pages, int(number), page_shape, str(file))[inner] for number in numbers.ravel()]
        return np.stack(data).reshape(*(len(r) for r in ranges), *data[0].shape)

    chunks = (1,) * len(outer) + page_shape
    return FileArray(str(file), stack_shape, series.dtype, axes, chunks, read, voxel_size, nothing)


@contextlib.contextmanager
def _strict(location: str) -> Iterator[None]:
    """Refuse what tifffile only logs: of a truncated stack it would quietly return the sections it can still find."""
    problems: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: problems.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tifffile")
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        with readable(location):
            yield
    finally:
        logger.propagate = propagate
        logger.removeHandler(handler)
    if problems:
        raise UserError(f"{location} is truncated or damaged ({problems[0]}). Copy or write it again.")


def _page(pages: Any, number: int, shape: tuple[int, ...], location: str) -> NDArray[Any]:
    page = pages[number]
    if page is None:
        raise UserError(f"{location}: page {number + 1} is missing. The file is truncated: copy or write it again.")
    return np.asarray(page.asarray()).reshape(shape)


def _tiff_axes(axes: str) -> str:
    """tifffile's letters as ours: a lone stack axis (pages, time, anything) is z, samples are channels."""
    names = axes.lower().replace("s", "c")
    if "z" not in names:
        stack = [name for name in names if name not in "yxc"]
        if len(stack) == 1:
            names = names.replace(stack[0], "z")
    return "".join(name if name in "zyxct" else "?" for name in names)


def _tiff_voxel_size(tiff: tifffile.TiffFile, axes: str, location: str) -> Lengths:
    sizes: dict[str, float | None] = {}
    if tiff.ome_metadata:
        pixels = next((e for e in ElementTree.fromstring(tiff.ome_metadata).iter() if e.tag.endswith("}Pixels")), None)
        for name in "zyx" if pixels is not None else "":
            value = pixels.get(f"PhysicalSize{name.upper()}") if pixels is not None else None
            unit = pixels.get(f"PhysicalSize{name.upper()}Unit", "µm") if pixels is not None else ""
            factor = nanometres_per(unit, location) if value is not None else None
            sizes[name] = None if factor is None or value is None else float(value) * factor
    elif tiff.imagej_metadata is not None:
        unit = str(tiff.imagej_metadata.get("unit", ""))
        factor = nanometres_per(unit, location)
        if factor is not None:
            spacing = tiff.imagej_metadata.get("spacing")
            sizes["z"] = None if spacing is None else abs(float(spacing)) * factor
            for name, tag in (("y", "YResolution"), ("x", "XResolution")):
                ratio = tiff.pages[0].tags.get(tag)
                if ratio is not None and ratio.value[0]:
                    sizes[name] = ratio.value[1] / ratio.value[0] * factor
    # plain TIFF's resolution is for printing (72 per inch) and says nothing of the microscope
    return tuple(sizes.get(name) for name in axes)
