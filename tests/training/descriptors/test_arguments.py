"""What cannot be meant is refused in words, and what is not asked for is not loaded."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

import neuroloom
from neuroloom.training import descriptors
from neuroloom.training.descriptors import context, lsd, lsd_torch

from .definition import by_matrices

NAN = float("nan")
SIZE = (8.0, 8.0, 8.0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sigma_nm": 0.0}, "sigma_nm must be one positive number or 3, not 0.0"),
        ({"sigma_nm": -80.0}, "sigma_nm"),
        ({"sigma_nm": NAN}, "sigma_nm"),
        ({"sigma_nm": float("inf")}, "sigma_nm"),
        ({"sigma_nm": "wide"}, "sigma_nm"),
        ({"sigma_nm": None}, "sigma_nm"),
        ({"sigma_nm": (8.0, 8.0)}, "sigma_nm"),
        ({"sigma_nm": (8.0, 8.0, NAN)}, "sigma_nm"),
        ({"voxel_size": (8.0, 8.0)}, "voxel_size must have 3 positive numbers"),
        ({"voxel_size": (8.0, 8.0, NAN)}, "voxel_size"),
        ({"voxel_size": (8.0, 8.0, 0.0)}, "voxel_size"),
        ({"voxel_size": 8.0}, "voxel_size"),
        ({"downsample": 0}, "downsample must be a whole number, 1 or more"),
        ({"downsample": 1.5}, "downsample"),
        ({"downsample": NAN}, "downsample"),
        ({"window": "cube"}, 'window must be "gaussian" or "sphere", not \'cube\''),
        ({"components": ()}, "components must be whole numbers from 0 to 9 in ascending order"),
        ({"components": (0, 10)}, "components"),
        ({"components": (-1, 2)}, "components"),
        ({"components": (2, 1)}, "components"),
        ({"components": (1, 1)}, "components"),
        ({"components": "0129"}, "components"),
        ({"components": 3}, "components"),
        ({"components": (0.5,)}, "components"),
        ({"roi": (slice(None), slice(None))}, "roi"),
        ({"roi": (slice(None), slice(None), slice(0, 4, 2))}, "roi"),
    ],
)
def test_refuses_nonsense(changed: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"sigma_nm": 8.0, "voxel_size": SIZE, **changed}
    labels = np.ones((4, 4, 4), dtype=np.int64)
    with pytest.raises(ValueError, match=message):
        lsd(labels, **arguments)
    with pytest.raises(ValueError, match=message):
        lsd_torch(torch.from_numpy(labels)[None], **arguments)
    with pytest.raises(ValueError, match=message):
        by_matrices(torch.from_numpy(labels), **arguments)
    if {"sigma_nm", "downsample", "window"} & set(changed):
        with pytest.raises(ValueError, match=message):
            context(**arguments)


def test_refuses_floats_and_other_dimensions() -> None:
    with pytest.raises(ValueError, match="integers"):
        lsd(np.ones((4, 4, 4)), 8.0, SIZE)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="integers"):
        lsd_torch(torch.ones((1, 4, 4, 4)), 8.0, SIZE)
    with pytest.raises(ValueError, match="integers"):
        by_matrices(torch.ones((4, 4, 4), dtype=torch.bool), 8.0, SIZE)
    with pytest.raises(ValueError, match="2 or 3 axes"):
        lsd(np.ones((4, 4, 4, 4), dtype=int), 8.0, (8.0,) * 4)
    with pytest.raises(ValueError, match=r"\(b, z, y, x\) or \(b, y, x\)"):
        lsd_torch(torch.ones((4, 4), dtype=torch.int64), 8.0, SIZE)
    with pytest.raises(ValueError, match="components must be whole numbers from 0 to 5"):
        lsd(np.ones((4, 4), dtype=int), 8.0, (8.0, 8.0), components=(0, 6))


def test_whole_numbers_of_all_kinds_will_do() -> None:
    labels = np.ones((6, 6, 6), dtype=np.uint8)
    expected = lsd(labels, 16.0, SIZE, 2)
    assert np.array_equal(lsd(labels, np.float32(16), np.array([8, 8, 8]), np.int64(2)), expected)  # type: ignore[arg-type]
    assert np.array_equal(lsd(labels, 16, (8, 8, 8), 2, components=np.arange(10)), expected)  # type: ignore[arg-type]


def test_one_call_on_the_package() -> None:
    labels = np.ones((6, 7, 8), dtype=np.uint8)
    assert np.array_equal(neuroloom.lsd(labels, 16.0, SIZE), lsd(labels, 16.0, SIZE))
    with pytest.raises(AttributeError, match="nothing"):
        _ = neuroloom.nothing  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="nothing"):
        _ = descriptors.nothing


def test_neither_the_package_nor_the_kernels_load_torch() -> None:
    code = (
        "import sys, neuroloom; assert 'numba' not in sys.modules; "
        "neuroloom.lsd; assert not {'torch', 'zarr', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
