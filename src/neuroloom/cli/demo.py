"""`neuroloom demo`: the main job, end to end, on made or on given volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from neuroloom.chain import Chain, all_steps, open_project
from neuroloom.cli.progress import show_progress
from neuroloom.cli.run import print_plan, run_all
from neuroloom.errors import UserError
from neuroloom.files import write_text
from neuroloom.project import FILE_NAME
from neuroloom.project.template import render
from neuroloom.volume.sample import SampleParameters, write_sample

TRAIN, VALIDATE = "fib25-train", "fib25-val"

SAMPLE: dict[str, Any] = {
    "voxel_size": [8.0, 8.0, 8.0],
    "network": {"feature_maps": 8, "growth": 3},
    "training": {
        "sigma_nm": 80.0,
        "crop": [40, 40, 40],
        "learning_rate": 0.002,
        "lsd": {"iterations": 120},
        "affinities": {"iterations": 320},
        "validate_every": 30,
        "score_every": 80,
        "snapshot_every": 50,
        "checkpoint_every": 20,
    },
    "fragments": {"threshold": 0.6, "min_seed_distance": 8},
    "agglomeration": {"merge_function": "hist_quant_75"},
}
"""Small enough for ten minutes on two cores."""

REAL: dict[str, Any] = {
    "voxel_size": [8.0, 8.0, 8.0],
    "network": {"feature_maps": 16, "growth": 3, "downsampling": [[2, 2, 2], [5, 5, 5]]},
    "training": {
        "sigma_nm": 80.0,
        "crop": [58, 58, 58],
        "learning_rate": 0.002,
        "validate_every": 100,
        "score_every": 100,
        "snapshot_every": 100,
        "checkpoint_every": 25,
    },
    "fragments": {"min_seed_distance": 8},
    "agglomeration": {"merge_function": "hist_quant_90"},
}
"""Pooling by 5 lets the network see past a mitochondrion. The numbers of steps are fitted to the machine."""

REAL_MINUTES = 60.0
"""Both trainings on real data."""


def demo_command(
    folder: Annotated[Path, typer.Argument(help="The demo's project folder.")] = Path("demo"),
    data: Annotated[
        Path | None, typer.Option(help=f"Folder with {TRAIN}.zarr and {VALIDATE}.zarr; default: a made sample.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            help=f"With --data: time to train (default {REAL_MINUTES:g}); steps are fitted to this machine.",
        ),
    ] = None,
    baseline: Annotated[
        bool, typer.Option(help="Also train the same network straight from raw and compare (twice as long).")
    ] = False,
) -> None:
    """Do the whole chain on a made sample, or on real electron microscopy; goes on where it was stopped."""
    if minutes is not None and data is None:
        raise UserError("--minutes goes with --data: the made sample is always trained for the same number of steps.")
    file = folder / FILE_NAME
    if not file.exists():
        values = _fitted(_real_project(data), minutes or REAL_MINUTES) if data else _sample_project(folder)
        values["training"] = {**values["training"], "baseline": baseline}
        write_text(file, render(values))
    elif minutes is not None or baseline:
        print(f"{file} is there already and counts as it is; for other settings choose another folder, or edit it.")
    chain = Chain(open_project(folder))
    if data and chain.parameters.volumes.train[0].name != TRAIN:
        raise UserError(f"{folder} is a demo of other data. Choose another folder, or delete it first.")
    print_plan(chain, all_steps(chain))
    run_all(chain)


def _sample_project(folder: Path) -> dict[str, Any]:
    parameters = SampleParameters(seed=1, voxel_size=(8.0, 8.0, 8.0), look="em", calibre=300.0)
    volumes = {"train": (0, (192, 192, 192)), "validate": (1000, (160, 160, 160))}
    for kind, (begin, shape) in volumes.items():
        path = folder / "data" / f"{kind}.zarr"
        if not path.exists():
            with show_progress(f"sample {kind}") as advance:
                write_sample(
                    path,
                    parameters,
                    shape,
                    (begin, begin, begin),
                    progress=lambda d, t: advance(d, t, "voxels"),
                )
    return {**SAMPLE, "volumes": {kind: [_entry(f"sample-{kind}", f"data/{kind}.zarr")] for kind in volumes}}


def _real_project(data: Path) -> dict[str, Any]:
    for name in (TRAIN, VALIDATE):
        if not (data / f"{name}.zarr").exists():
            raise UserError(
                f"{data} holds no {name}.zarr. Give the folder of the two FIB-25 volumes (groups with volumes/raw, "
                "volumes/labels/neuron_ids and volumes/labels/mask)."
            )
    return {
        **REAL,
        "volumes": {
            "train": [_entry(TRAIN, str((data / f"{TRAIN}.zarr").resolve()))],
            "validate": [_entry(VALIDATE, str((data / f"{VALIDATE}.zarr").resolve()))],
        },
    }


def _fitted(values: dict[str, Any], minutes: float) -> dict[str, Any]:
    from neuroloom.chain.pacing import fit_training  # loads PyTorch

    print(f"Timing a few training steps, to see how many fit into {minutes:g} minutes on this machine.", flush=True)
    with show_progress("trial") as advance:
        return fit_training(values, 60 * minutes, advance)


def _entry(name: str, path: str) -> dict[str, str]:
    return {"name": name, "path": path, "mask": "volumes/labels/mask"}
