"""A project small enough for tests: two made volumes with membranes, a network of a few thousand weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from neuroloom.files import write_text
from neuroloom.forking import StandIn, fork_server
from neuroloom.project import FILE_NAME
from neuroloom.project.template import render
from neuroloom.volume import create_volume

VOXEL_SIZE = (8.0, 8.0, 8.0)

VALUES: dict[str, Any] = {
    "voxel_size": list(VOXEL_SIZE),
    "network": {"feature_maps": 4, "growth": 2, "downsampling": [[2, 2, 2]]},
    "training": {
        "sigma_nm": 40.0,
        "crop": [16, 16, 16],
        "learning_rate": 0.01,
        "lsd": {"iterations": 4},
        "affinities": {"iterations": 12},
        "validate_every": 4,
        "score_every": 6,
        "snapshot_every": 4,
        "checkpoint_every": 2,
    },
    "prediction": {"block": [16, 24, 24]},
    "fragments": {"block": [16, 24, 24], "context": [4, 4, 4], "min_seed_distance": 4},
    "agglomeration": {"block": [32, 24, 48], "context": [8, 8, 8]},
    "resources": {"workers": 2, "device": "cpu", "precision": "fp32"},
    "volumes": {
        "train": [{"name": "train", "path": "data/train.zarr", "mask": "volumes/labels/mask"}],
        "validate": [{"name": "val", "path": "data/val.zarr"}],
    },
}


def cells(
    seed: int, shape: tuple[int, int, int], voxel_size: tuple[float, float, float] = VOXEL_SIZE
) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """Raw with dark membranes between random cells of about 85 nm, and the cells."""
    random = np.random.default_rng(seed)
    voxels = np.array(voxel_size) / VOXEL_SIZE
    extent = np.array(shape) * voxels
    centres = random.uniform(0, 1, (int(np.prod(extent) / 1200), 3)) * extent
    places = np.stack(np.meshgrid(*(np.arange(s) for s in shape), indexing="ij"), axis=-1) * voxels
    distance, nearest = cKDTree(centres).query(places, k=2)
    raw = np.clip((distance[..., 1] - distance[..., 0]) * 60, 20, 200) + random.normal(0, 8, shape)
    return np.clip(raw, 0, 255).astype(np.uint8), nearest[..., 0].astype(np.uint64) + 1


def make_volume(
    path: Path, seed: int, shape: tuple[int, int, int], voxel_size: tuple[float, float, float] = VOXEL_SIZE
) -> None:
    """A volume in the layout of the field."""
    raw, labels = cells(seed, shape, voxel_size)
    mask = np.ones(shape, dtype=np.uint8)
    for name, data in (("raw", raw), ("labels/neuron_ids", labels), ("labels/mask", mask)):
        create_volume(path, f"volumes/{name}", shape, data.dtype, voxel_size, chunks=(16, 16, 16)).write(
            (0, 0, 0), data
        )


def make_project(
    folder: Path, values: dict[str, Any] | None = None, shape: tuple[int, int, int] = (30, 40, 44)
) -> Path:
    """A project with its volumes; `values` replace whole sections, `shape` is that of the volume to segment."""
    make_volume(folder / "data" / "train.zarr", 1, (40, 44, 48))
    make_volume(folder / "data" / "val.zarr", 2, shape)
    write_text(folder / FILE_NAME, render({**VALUES, **(values or {})}))
    return folder


def neuroloom(*arguments: str | Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would, but for the loading: it and its workers are forked from what has loaded all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        loads = ("neuroloom.cli", "neuroloom.blockwise.preload", "neuroloom.prediction.foreign", "torch._dynamo")
        server = fork_server()
        command = StandIn(server, "small_project", "be_command", (server or "", *map(str, arguments)), loads)
        code = f"import sys; sys.path[:] = {sys.path!r}; from neuroloom.forking import StandIn; {command!r}()"
        try:
            return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            said = b"".join(part for part in (error.stdout, error.stderr) if isinstance(part, bytes)).decode()
            raise AssertionError(f"{arguments} has not ended after {timeout} s, and said:\n{said[-5000:]}") from None


def be_command(server: str, *arguments: str) -> None:
    """Be the command of these arguments; of a fork server's address, if any, it has its workers from there."""
    from neuroloom.blockwise import local
    from neuroloom.cli import main

    if server:
        local.fork_server = lambda: server
    sys.argv = ["neuroloom", *arguments]
    main()
