"""Blank parts of images, whatever region is asked for; masks on coarser grids are tested with fragments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuroloom.volume import create_volume
from neuroloom.volume.masks import CELL, blank_cells

SHAPE = (40, 20, 50)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), dtype=st.sampled_from(["uint8", "float32"]))
def test_cells_of_one_value_are_blank_whatever_the_region(tmp_path: Path, data: st.DataObject, dtype: str) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = rng.integers(0, 256, SHAPE).astype(dtype)
    expected = np.zeros(SHAPE, bool)
    for z in range(0, SHAPE[0], CELL):
        for y in range(0, SHAPE[1], CELL):
            for x in range(0, SHAPE[2], CELL):
                cell = (slice(z, z + CELL), slice(y, y + CELL), slice(x, x + CELL))
                if rng.random() < 0.5:
                    values[cell] = rng.choice([0, 255])
                    expected[cell] = True
    raw = create_volume(tmp_path / "v.zarr", "raw", SHAPE, dtype, (8, 8, 8), overwrite=True)
    raw.write((0, 0, 0), values)
    ends = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in SHAPE]
    if any(low == high for low, high in ends):
        return
    begin, shape = tuple(low for low, _ in ends), tuple(high - low for low, high in ends)
    window = tuple(slice(low, high) for low, high in ends)
    np.testing.assert_array_equal(blank_cells(raw, begin, shape), expected[window])  # type: ignore[arg-type]


def test_a_single_other_voxel_makes_a_cell_an_image(tmp_path: Path) -> None:
    values = np.full(SHAPE, 7, np.uint8)
    values[17, 3, 20] = 8
    raw = create_volume(tmp_path / "v.zarr", "raw", SHAPE, "uint8", (8, 8, 8))
    raw.write((0, 0, 0), values)
    there = ~blank_cells(raw, (0, 0, 0), SHAPE)
    assert there[16:32, :16, 16:32].all()
    assert there.sum() == 16**3
