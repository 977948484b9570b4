"""Training: our loop against the reference's pipeline, same machine, same volume, same network, MTLSD from raw.

Both draw random places, bend and turn them, grow boundaries, make descriptors of every second voxel and affinities with
balanced weights, and take a step of Adam. The reference does so with gunpowder, `lsds` and torch in fp32, batches made
by as many processes as there are cores (ten at most, as published); we with our kernels, threads, and bf16 where the
processor has it. Counted are whole iterations after a warm-up; idle is the share of the time the loop waits for
batches.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.peers import GUNPOWDER, ask, environment
from benchmarks.results import Disagreement, Result, alternate
from benchmarks.volumes import VOXEL_SIZE, Options, tissue
from neuroloom.networks.architecture import input_shape, parameter_count
from neuroloom.networks.precision import choose_precision
from neuroloom.project import Network
from neuroloom.training.batches import BatchMaker
from neuroloom.training.job import TrainingJob, TrainingVolume
from neuroloom.training.loop import train
from neuroloom.volume import create_volume

WARM_UP = 5
"""Iterations before the clock starts."""


def run(options: Options) -> list[Result]:
    """Compare iterations per second.

    Raises:
        Disagreement: The networks differ in size, so that nothing could be compared.
    """
    python = environment("gunpowder", (*GUNPOWDER, f"torch=={torch.__version__.split('+')[0]}"))
    what, raw, labels = tissue(options, "fib25-train", 96 if options.quick else 320)
    our_steps, peer_steps, repeats = (6, 2, 1) if options.quick else (40, 10, 3)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        volumes = {"raw": raw, "labels": labels, "mask": np.ones(labels.shape, np.uint8)}
        for name, values in volumes.items():
            np.save(folder / f"{name}.npy", values)
            create_volume(folder / "ours.zarr", name, values.shape, values.dtype, VOXEL_SIZE).write((0, 0, 0), values)
        job = TrainingJob(
            setup="mtlsd",
            network=Network(feature_maps=4 if options.quick else 12, growth=3, downsampling=((2, 2, 2), (2, 2, 2))),
            voxel_size=VOXEL_SIZE,
            sigma_nm=32.0 if options.quick else 80.0,
            crop=(20, 20, 20) if options.quick else (64, 64, 64),
            iterations=WARM_UP + our_steps,
            learning_rate=0.5e-4,
            volumes=(
                TrainingVolume(
                    name="tissue",
                    path=str(folder / "ours.zarr"),
                    raw="raw",
                    labels="labels",
                    mask="mask",
                    fingerprint="benchmark",
                ),
            ),
            validate_every=10**9,
            snapshot_every=10**9,
            checkpoint_every=10**9,
            device="cpu",
        )
        precision = choose_precision(torch.device("cpu"), job.precision)
        print(
            f"{what}; crops of {job.crop[0]}³, {job.network.feature_maps} feature maps, growth {job.network.growth}, "
            f"{parameter_count(job.geometry):,} weights; ours in {precision}, the reference in fp32; "
            f"{os.cpu_count()} cores"
        )
        idle: dict[str, list[float]] = {"ours": [], "peer": []}

        def ours() -> float:
            rate, waiting = train_ours(job, folder / f"run-{len(idle['ours'])}")
            idle["ours"].append(waiting)
            print(f"ours: {rate:.3f} iterations/s, idle {waiting:.1%}", file=sys.stderr, flush=True)
            return rate

        def peer() -> float:
            answer = ask(
                python,
                Path(__file__).parent / "peer_scripts" / "gunpowder_training.py",
                folder,
                voxel_size=[int(size) for size in VOXEL_SIZE],
                crop=job.crop,
                raw_shape=input_shape(job.geometry, job.crop),
                sigma=job.sigma_nm,
                downsample=job.downsample,
                neighborhood=job.neighborhood,
                feature_maps=job.network.feature_maps,
                growth=job.network.growth,
                downsampling=job.network.downsampling,
                workers=min(10, os.cpu_count() or 1),
                warm_up=2 if options.quick else WARM_UP,
                steps=peer_steps,
            )
            if answer["parameters"] != parameter_count(job.geometry):
                raise Disagreement(f"the reference's network has {answer['parameters']:,} weights")
            if not np.isfinite(answer["loss"]):
                raise Disagreement(f"the reference's loss is {answer['loss']}")
            idle["peer"].append(answer["idle"])
            print(
                f"reference: {answer['rate']:.3f} iterations/s, idle {answer['idle']:.1%}", file=sys.stderr, flush=True
            )
            return float(answer["rate"])

        mine, theirs = alternate(ours, peer, repeats)
    return [
        Result("training, MTLSD", tuple(mine), tuple(theirs), "iterations/s", less_is_better=False),
        Result(
            "time not spent waiting for batches",
            tuple(100 - 100 * waiting for waiting in idle["ours"]),
            tuple(100 - 100 * waiting for waiting in idle["peer"]),
            "%",
            less_is_better=False,
        ),
    ]


def train_ours(job: TrainingJob, folder: Path) -> tuple[float, float]:
    """Iterations per second after the warm-up, and the share of that time the loop waited for batches."""
    waited, done = [], []
    ahead = BatchMaker.ahead

    def timed(maker: BatchMaker, numbers: Iterable[int]) -> Iterator[Any]:
        batches = ahead(maker, numbers)
        while True:
            start = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            waited.append(time.perf_counter() - start)
            yield batch

    with patch.object(BatchMaker, "ahead", timed):
        train(job, folder, report=lambda step, total, words: done.append(time.perf_counter()))
    seconds = done[-1] - done[WARM_UP - 1]
    return (len(done) - WARM_UP) / seconds, sum(waited[WARM_UP:]) / seconds
