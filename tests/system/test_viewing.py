"""What a real browser shows: every layer at its place, from this machine alone.

One cube of 200 x 160 x 240 nm lies in volumes of different voxel size, offset and zarr format:

    nm               0        304   400        544   640   784
    raw       x      |---------------[##########]-----------|        8 nm, zarr v2
    affinities x               |-----------[...........red>........  16 nm, channels, zarr v3
    labels    x           |----------[##########]------|             40 x 4 x 4 nm, zarr v3 in shards
    copies    x           |----------[##########]------|             likewise, and 8, 16 nm without the full resolution

Each is switched on alone, and its picture compared with where the cube must appear.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from http_folder import served
from neuroloom.segmentation.pyramid import Level, majority, ome_metadata
from neuroloom.viewing import Layer, Viewer, view
from neuroloom.volume import Volume, create_volume, open_volume

from .chromium import Page, open_page

pytestmark = pytest.mark.system

CUBE = ((200, 400), (160, 320), (400, 640))
"""First and last nm along z, y, x."""
CENTRE = (300.0, 241.2, 501.2)
"""What the middle of the panel shows, nm z y x; no edge lies in the middle of a pixel, where rounding would decide."""
NM_PER_PIXEL = 2.0
FARTHER = 5
"""How many times more nm are in a pixel where copies are looked at."""
LOOKED_AT = (slice(150, -10), slice(10, -10))
"""Rows and columns of the page without layer names, buttons and borders."""


def cube_mask(volume: Volume) -> NDArray[np.bool_]:
    """Voxels of a volume inside the cube."""
    slices = tuple(
        slice(round((low - o) / v), round((high - o) / v))
        for (low, high), o, v in zip(CUBE, volume.offset, volume.voxel_size, strict=True)
    )
    mask = np.zeros(volume.shape, bool)
    mask[slices] = True
    return mask


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Layer]]:
    folder = tmp_path_factory.mktemp("volumes")
    old = zarr.open_group(str(folder / "old.zarr"), mode="w", zarr_format=2)
    old.create_array(
        "volumes/raw", shape=(96, 96, 96), dtype="uint8", chunks=(32, 32, 32), compressors=numcodecs.Blosc(),
        attributes={"resolution": [8, 8, 8], "offset": [0, 0, 0]},
    )  # fmt: skip
    raw = open_volume(folder / "old.zarr", "volumes/raw")
    noise = np.random.default_rng(0).integers(0, 40, raw.shape)
    raw.write((0, 0, 0), np.where(cube_mask(raw), 220, noise).astype(np.uint8))

    path = folder / "new.zarr"
    labels = create_volume(
        path, "labels", (10, 80, 100), "uint64", (40, 4, 4), (80, 120, 360), chunks=(5, 20, 25), shards=(10, 40, 50)
    )
    # two fragments of one segment, and ids beyond what a double can hold
    left, right, other = 2**63 + 1, 2**63 + 3, 2**40
    fragments = np.where(cube_mask(labels), np.uint64(left), np.uint64(0))
    fragments[:, :, 40:][fragments[:, :, 40:] == left] = right
    fragments[:, :10] = other
    labels.write((0, 0, 0), fragments)
    table = np.array([[other, left, right], [other, left, left]], np.uint64)

    # full resolution is empty: what is seen from afar is the copies
    copies = create_volume(folder / "copies.zarr", "labels", labels.shape, "uint64", labels.voxel_size, labels.offset)
    pyramid = [Level("labels", (1, 1, 1), (1, 1, 1), labels.shape)]
    for number in (1, 2):
        last = pyramid[-1]
        z, y, x = last.shape
        pyramid.append(Level(f"s{number}", (1, 2, 2), (1, 2**number, 2**number), (z, y // 2, x // 2)))
        fragments = majority(fragments, (1, 2, 2))
        size = pyramid[-1].voxel_size(labels.voxel_size)
        copy = create_volume(folder / "copies.zarr", f"s{number}", fragments.shape, "uint64", size, labels.offset)
        copy.write((0, 0, 0), fragments)
    metadata = ome_metadata("labels", pyramid, labels.voxel_size, labels.offset)
    zarr.open_group(folder / "copies.zarr", mode="r+").attrs["ome"] = metadata

    affinities = create_volume(
        path, "affinities", (3, 24, 24, 24), "uint8", (16, 16, 16), (104, 80, 304), chunks=(8, 8, 8)
    )
    values = np.zeros(affinities.array.shape, np.uint8)
    values[0] = 255
    values[2, :, :, 12:] = 255  # from x = 304 + 12 * 16 = 496 nm on
    affinities.write((0, 0, 0), values)
    with served(folder) as url:
        yield [
            Layer("raw", "image", raw),
            Layer("raw behind a URL", "image", open_volume(f"{url}/old.zarr", "volumes/raw")),
            Layer("affinities", "affinities", affinities),
            Layer("fragments", "labels", labels),
            Layer("shards behind a URL", "labels", open_volume(f"{url}/new.zarr", "labels")),
            Layer("segments", "labels", labels, lookup=table),
            Layer("copies", "labels", copies, copies=True),
        ]


@pytest.fixture(scope="module")
def viewer(layers: list[Layer]) -> Iterator[Viewer]:
    opened = view(layers)
    with opened.state.txn() as state:
        state.layout = "xy"
        state.cross_section_scale = NM_PER_PIXEL / 8
        state.position = [c / 8 for c in CENTRE]
        state.show_axis_lines = state.show_scale_bar = state.show_default_annotations = False
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def page(viewer: Viewer) -> Iterator[Page]:
    with open_page(viewer.url) as opened:
        yield opened


def picture_of(viewer: Viewer, page: Page, name: str, file: Path, wanted: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The panel with one layer switched on, once the wanted pixels are marked, or after a minute."""
    show(viewer, None)
    page.picture_when(file, lambda seen: not marked(seen)[LOOKED_AT].any())
    show(viewer, name)
    complete = 0.98 * wanted.sum()
    return page.picture_when(file, lambda seen: (marked(seen) & wanted).sum() >= complete)


def show(viewer: Viewer, name: str | None) -> None:
    with viewer.state.txn() as state:
        for layer in state.layers:
            layer.visible = layer.name == name


def marked(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Bright or coloured pixels; the panel's own grey and dark noise are neither."""
    high, low = picture.max(axis=-1).astype(int), picture.min(axis=-1).astype(int)
    return (low > 200) | (high - low > 40)


def expected(
    page: Page, y: tuple[float, float], x: tuple[float, float], nm_per_pixel: float = NM_PER_PIXEL
) -> NDArray[np.bool_]:
    """Pixels of the page that show nm y[0] … y[1], x[0] … x[1]."""
    page.page.wait_for_selector(".neuroglancer-rendered-data-panel", state="attached", timeout=60_000)
    box = page.page.evaluate(
        "() => { const r = document.querySelector('.neuroglancer-rendered-data-panel').getBoundingClientRect();"
        " return [r.top + r.height / 2, r.left + r.width / 2]; }"
    )
    size = page.page.viewport_size
    rows, columns = np.arange(size["height"]) + 0.5, np.arange(size["width"]) + 0.5
    nm_y = CENTRE[1] + (rows - box[0]) * nm_per_pixel
    nm_x = CENTRE[2] + (columns - box[1]) * nm_per_pixel
    inside_y, inside_x = (nm_y >= y[0]) & (nm_y < y[1]), (nm_x >= x[0]) & (nm_x < x[1])
    return inside_y[:, None] & inside_x[None, :]


def assert_same_place(seen: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> None:
    """The same pixels, up to one at the border (a voxel has 2 pixels or more)."""
    seen, wanted = seen[LOOKED_AT], wanted[LOOKED_AT]
    for picture in (seen, wanted):
        assert picture.any()
    seen_box, wanted_box = box_of(seen), box_of(wanted)
    assert np.abs(np.subtract(seen_box, wanted_box)).max() <= 1, (seen_box, wanted_box)
    assert (seen & wanted).sum() / (seen | wanted).sum() > 0.97


def box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


@pytest.mark.parametrize("name", ["raw", "raw behind a URL"])
def test_raw_shows_the_cube_where_it_lies(viewer: Viewer, page: Page, tmp_path: Path, name: str) -> None:
    wanted = expected(page, *CUBE[1:])
    picture = picture_of(viewer, page, name, tmp_path / "raw.png", wanted)
    assert_same_place(marked(picture), wanted)


@pytest.mark.parametrize("name", ["fragments", "shards behind a URL"])
def test_labels_of_another_offset_and_voxel_size_lie_on_it(
    viewer: Viewer, page: Page, tmp_path: Path, name: str
) -> None:
    cube, other = expected(page, *CUBE[1:]), expected(page, (120, 160), (360, 760))
    picture = picture_of(viewer, page, name, tmp_path / "fragments.png", cube | other)
    assert_same_place(marked(picture), cube | other)
    left, right = expected(page, CUBE[1], (400, 520)), expected(page, CUBE[1], (520, 640))
    assert not same_colour(picture, left, right)


def test_from_afar_copies_lie_at_the_same_place(viewer: Viewer, page: Page, tmp_path: Path) -> None:
    show(viewer, None)
    with viewer.state.txn() as state:
        state.cross_section_scale *= FARTHER
    try:
        cube = expected(page, *CUBE[1:], NM_PER_PIXEL * FARTHER)
        other = expected(page, (120, 160), (360, 760), NM_PER_PIXEL * FARTHER)
        picture = picture_of(viewer, page, "copies", tmp_path / "copies.png", cube | other)
        assert_same_place(marked(picture), cube | other)
    finally:
        with viewer.state.txn() as state:
            state.cross_section_scale /= FARTHER


def test_a_lookup_table_gives_fragments_of_a_segment_one_colour(viewer: Viewer, page: Page, tmp_path: Path) -> None:
    cube, other = expected(page, *CUBE[1:]), expected(page, (120, 160), (360, 760))
    picture = picture_of(viewer, page, "segments", tmp_path / "segments.png", cube | other)
    assert_same_place(marked(picture), cube | other)
    left, right = expected(page, CUBE[1], (400, 520)), expected(page, CUBE[1], (520, 640))
    assert same_colour(picture, left, right)
    assert not same_colour(picture, left, other)


def test_affinities_are_red_green_and_blue_at_their_place(viewer: Viewer, page: Page, tmp_path: Path) -> None:
    whole = expected(page, (80, 464), (304, 688))
    picture = picture_of(viewer, page, "affinities", tmp_path / "affinities.png", whole)
    assert_same_place(marked(picture), whole)
    red, _, blue = np.moveaxis(picture.astype(int), -1, 0)
    assert_same_place(marked(picture) & (red - blue < 40), expected(page, (80, 464), (496, 688)))


def test_nothing_is_asked_of_another_machine(viewer: Viewer, page: Page, tmp_path: Path) -> None:
    picture_of(viewer, page, "raw", tmp_path / "raw.png", expected(page, *CUBE[1:]))
    assert page.errors == []
    assert page.outside_requests() == []
    ports = {int(url.split("/")[2].rpartition(":")[2]) for url in page.requests if url.startswith("http")}
    assert ports == set(viewer.ports)


def same_colour(picture: NDArray[np.uint8], first: NDArray[np.bool_], second: NDArray[np.bool_]) -> bool:
    colours = [np.median(picture[mask], axis=0) for mask in (first, second)]
    return bool(np.abs(colours[0] - colours[1]).max() <= 2)
