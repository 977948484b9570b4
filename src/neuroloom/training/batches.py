"""From crops to what one training step needs: input, target and weights, prepared ahead by a thread.

    crop -> augment -> grow boundary -> descriptors | affinities -> weights;  raw to [-1, 1]

For setups fed by a descriptor network, raw is larger by that network's context; the loop runs the network on it. Or
descriptors are kept (see `kept`) and looked up here.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from neuroloom.networks import architecture
from neuroloom.networks.unet import crop
from neuroloom.project import Augmentation
from neuroloom.training import augmentation, descriptors
from neuroloom.training.affinities import affinities, edges_that_count, grow_boundary
from neuroloom.training.augmentation import augment
from neuroloom.training.crops import Crops
from neuroloom.training.job import TrainingJob
from neuroloom.training.truth import COUNTS, OUT
from neuroloom.training.weights import balance
from neuroloom.volume.array import Triple

THREADS = max(1, min(4, (os.cpu_count() or 1) // 4))
"""Threads that prepare batches: on two cores one, which takes about a thirtieth of the time of a step."""
AHEAD = 2 + THREADS
"""Batches prepared ahead."""


@dataclass(frozen=True)
class Batch:
    """What one step needs, on the training device.

    Attributes:
        raw: `(b, 1, Z, Y, X)` in [-1, 1].
        labels: `(b, z, y, x)` int64, boundaries grown.
        targets: For each head `(b, c, z, y, x)` in [0, 1].
        weights: For each head, broadcastable to its target.
        counts: `(b, 1, z, y, x)` bool, where the label is known.
        crops: Where each sample comes from, for messages.
        descriptors: `(b, 10, Z, Y, X)` in [0, 1] where they are kept, or None.
    """

    raw: torch.Tensor
    labels: torch.Tensor
    targets: dict[str, torch.Tensor]
    weights: dict[str, torch.Tensor]
    counts: torch.Tensor
    crops: tuple[str, ...]
    descriptors: torch.Tensor | None = None


class BatchMaker:
    """Makes batch number n of a job: crops n·b … n·b + b - 1, each a pure function of (seed, its number).

    Args:
        job: What is trained.
        crops: Of the training or the validation volumes.
        raw_shape: Extent of raw that the networks need for the job's crop, in voxels.
        device: Where batches are made and used.
        augmentation: What happens to the crops.
        batch_size: Crops per batch.
        kept_descriptors: Whether descriptors, which the crops' volumes have, are part of the batch.
    """

    def __init__(
        self,
        job: TrainingJob,
        crops: Crops,
        raw_shape: Triple,
        device: torch.device,
        augmentation: Augmentation,
        batch_size: int,
        kept_descriptors: bool = False,
    ) -> None:
        self.kept_descriptors = kept_descriptors
        self.job, self.crops, self.raw_shape, self.device = job, crops, raw_shape, device
        self.augmentation, self.batch_size = augmentation, batch_size
        reach = [1, 1, 1]
        if "affinities" in job.outputs:
            reach = [max(abs(o[axis]) for o in (*job.neighborhood, (1, 1, 1))) for axis in range(3)]
        if "lsd" in job.outputs:
            window = descriptors.context(job.sigma_nm, job.voxel_size, job.downsample)
            reach = [max(a, b) for a, b in zip(reach, window, strict=True)]
        self.reach = reach
        z, y, x = (n + 2 * r for n, r in zip(job.crop, reach, strict=True))
        self.label_shape: Triple = (z, y, x)

    def make(self, number: int) -> Batch:
        """Batch number n, from 0."""
        job, setting, voxel_size = self.job, self.augmentation, self.job.voxel_size
        raw_input = augmentation.input_shape(self.raw_shape, setting, voxel_size)
        label_input = augmentation.input_shape(self.label_shape, setting, voxel_size)
        first = number * self.batch_size
        numbers = range(first, first + self.batch_size)
        drawn = [self.crops.draw(n, raw_input, label_input) for n in numbers]
        kept = [piece.descriptors for piece in drawn if piece.descriptors is not None]
        raw, labels, roles, looked_up = augment(
            [piece.raw for piece in drawn],
            [piece.labels for piece in drawn],
            [piece.roles for piece in drawn],
            [_generator(job.seed, n) for n in numbers],
            setting,
            voxel_size,
            self.raw_shape,
            self.label_shape,
            self.device,
            kept if self.kept_descriptors else None,
        )
        labels = grow_boundary(labels, 1, only_xy=job.serial_sections, mask=roles != OUT)
        counts = crop(roles, job.crop)[:, None] == COUNTS
        targets, weights = {}, {}
        for name in job.outputs:
            if name == "lsd":
                targets[name] = self._descriptors(labels)
                weights[name] = counts.float()
            else:
                values, _ = affinities(labels, job.neighborhood)
                targets[name] = crop(values, job.crop)
                weights[name] = balance(targets[name], crop(edges_that_count(roles, job.neighborhood), job.crop))
        return Batch(
            raw=raw.mul_(2).sub_(1),
            labels=crop(labels, job.crop),
            # as the network's output lies in memory: the loss reads both side by side
            targets={name: t.contiguous(memory_format=torch.channels_last_3d) for name, t in targets.items()},
            weights=weights,
            counts=counts,
            crops=tuple(f"{piece.volume} around voxel {piece.centre}" for piece in drawn),
            descriptors=looked_up,
        )

    def _descriptors(self, labels: torch.Tensor) -> torch.Tensor:
        """Descriptors (b, 10, z, y, x) of the middle of labels (b, z, y, x), whose surroundings are context."""
        job = self.job
        roi = tuple(slice(r, r + n) for r, n in zip(self.reach, job.crop, strict=True))
        return descriptors.lsd_torch(labels, job.sigma_nm, job.voxel_size, job.downsample, roi)

    def ahead(self, numbers: Iterable[int]) -> Iterator[tuple[int, Batch]]:
        """Batches with their numbers, in the order of the numbers, prepared ahead by threads.

        Raises:
            Exception: What a thread raised, when its batch is due.
        """
        numbers = iter(numbers)
        pending: deque[tuple[int, Future[Batch]]] = deque()
        with ThreadPoolExecutor(THREADS, thread_name_prefix="batches") as pool:
            try:
                for number in itertools.islice(numbers, AHEAD):
                    pending.append((number, pool.submit(self.make, number)))
                while pending:
                    number, future = pending.popleft()
                    batch = future.result()
                    for following in itertools.islice(numbers, 1):
                        pending.append((following, pool.submit(self.make, following)))
                    yield number, batch
            finally:
                for _, future in pending:
                    future.cancel()


def _generator(seed: int, crop_number: int) -> torch.Generator:
    """Random numbers of one crop, whatever batch it is part of."""
    state = np.random.SeedSequence([seed, crop_number, 1]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))


def input_shapes(job: TrainingJob, lsd: architecture.UNetParameters | None) -> tuple[Triple, Triple]:
    """Extents of raw and of the affinity or descriptor network's input for the job's crop, in voxels.

    Args:
        job: What is trained.
        lsd: The descriptor network that feeds it, if any.

    Returns:
        Raw, and the input of the trained network (the same without a descriptor network).

    Raises:
        ValueError: The crop is no output of the network.
    """
    inner = architecture.input_shape(job.geometry, job.crop)
    if architecture.output_shape(job.geometry, inner) != tuple(job.crop):
        nearest = architecture.output_shape(job.geometry, inner)
        raise ValueError(f"training.crop {job.crop} is no output of the network; the next that is: {nearest}")
    if lsd is None:
        return inner, inner
    outer = architecture.input_shape(lsd, inner)
    # an even surplus keeps the centre
    while any((a - b) % 2 for a, b in zip(architecture.output_shape(lsd, outer), inner, strict=True)):
        outer = architecture.input_shape(lsd, [n + 1 for n in architecture.output_shape(lsd, outer)])
    return outer, inner
