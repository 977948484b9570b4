"""The processes of one training: gradients are added up over all of them, and all take the same step.

    step n      crops n·b … n·b + b - 1, cut into parts of as many crops as are computed at once

    process 0   part 0   part 2   \\
                                    >   sum of the gradients / b   ->   the same weights everywhere
    process 1   part 1   part 3   /

How many processes there are changes nothing but the order in which numbers are added up.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import distributed

PATIENCE = datetime.timedelta(hours=12)
"""How long processes wait for the first of them, which scores a whole volume now and then."""


@dataclass(frozen=True)
class Group:
    """The processes of a training.

    Attributes:
        rank: This one's number; 0 writes all files.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def own(self, parts: int) -> range:
        """Which of a step's parts are this process's."""
        return range(self.rank, parts, self.size)

    def add_gradients(self, weights: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes; a weight without one counts as 0."""
        if self.size == 1:
            return
        weights = list(weights)
        flat = torch.cat([torch.zeros_like(w).flatten() if w.grad is None else w.grad.flatten() for w in weights])
        distributed.all_reduce(flat)
        for weight, part in zip(weights, torch.split(flat, [w.numel() for w in weights]), strict=True):
            weight.grad = part.view_as(weight).clone(memory_format=torch.preserve_format)

    def add(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Sums over all processes."""
        if self.size == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64, device=device)
        distributed.all_reduce(numbers)
        return [float(number) for number in numbers]

    def tell(self, values: Sequence[float], device: torch.device) -> list[float]:
        """What the first process says."""
        if self.size == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64, device=device)
        distributed.broadcast(numbers, 0)
        return [float(number) for number in numbers]


def join(rank: int, size: int, address: str, device: torch.device) -> Group:
    """Become one of the processes of a training.

    Args:
        rank: This process's number, from 0.
        size: How many there are.
        address: Where they meet, such as "tcp://127.0.0.1:4711" or "env://".
        device: What this process computes on.
    """
    if size == 1:
        return Group()
    # without naming the device, every process would take some memory on the first GPU
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group(backend, init_method=address, rank=rank, world_size=size, timeout=PATIENCE)
    return Group(rank, size)


def leave(group: Group) -> None:
    """End what `join` began."""
    if group.size > 1:
        distributed.destroy_process_group()
