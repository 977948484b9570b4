"""What a profile asks for that the cluster does not have, told before anything is submitted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from neuroloom.cluster.slurm import Partition, check_installed, partitions
from neuroloom.errors import UserError, one_of
from neuroloom.project import AnyJob, Job, Profile, StageName, TrainJob


def check_profile(name: str, profile: Profile, steps: Iterable[StageName | Literal["train"]]) -> None:
    """Refuse a profile that the cluster cannot do.

    Args:
        name: The profile's.
        profile: One of SLURM.
        steps: That are wanted.

    Raises:
        UserError: No sbatch, an unknown partition, or more than any of its nodes has.
    """
    check_installed()
    offers = partitions()
    for step in steps:
        job: AnyJob = profile.train_job if step == "train" else profile.job(step)
        spot_partition = job.spot_partition if isinstance(job, Job) else None
        for key, partition in (("partition", job.partition), ("spot_partition", spot_partition)):
            if partition is not None or key == "partition":
                problem = find_problem(job, key, partition, offers)
                if problem:
                    raise UserError(f"Profile {name!r}, {step}: {problem}")


def find_problem(job: AnyJob, key: str, partition: str | None, offers: dict[str, Partition]) -> str | None:
    """What is wrong with a job in a partition, in one sentence; None if nothing is.

    Args:
        job: A worker, or a training.
        key: That names the partition.
        partition: Its name; None for the cluster's default.
        offers: All partitions.
    """
    if partition is None:
        offer = next((offer for offer in offers.values() if offer.default), None)
        if offer is None:
            return f"the cluster has no default partition; set `partition` to one of {', '.join(offers)}."
    elif partition in offers:
        offer = offers[partition]
    else:
        return f"`{key}` is {partition!r}, which the cluster does not have; expected one of {one_of(partition, offers)}"
    where = f"any node of partition {offer.name} has"
    for key, wanted in (("memory_gb", job.memory_gb), ("memory_max_gb", job.memory_max_gb or 0.0)):
        if wanted > offer.memory_gb:
            return (
                f"`{key}` is {wanted:g}, more than {where}: {offer.memory_gb:.4g}. Ask for less, or choose another "
                "partition."
            )
    if job.cpus > offer.cpus:
        return f"`cpus` is {job.cpus}, more than {where}: {offer.cpus}. Ask for less, or choose another partition."
    if job.gpus > offer.gpus:
        with_gpus = ", ".join(other.name for other in offers.values() if other.gpus) or "none"
        return f"`gpus` is {job.gpus}, more than {where}: {offer.gpus}. Partitions with GPUs: {with_gpus}."
    if isinstance(job, TrainJob) and job.nodes > offer.nodes:
        return f"`nodes` is {job.nodes}, more than partition {offer.name} has: {offer.nodes}."
    if job.minutes is not None and offer.minutes is not None and job.minutes > offer.minutes:
        return f"`minutes` is {job.minutes:g}, more than partition {offer.name} allows: {offer.minutes:g}."
    if job.constraint is not None and job.constraint.isidentifier() and job.constraint not in offer.features:
        return f"`constraint` is {job.constraint!r}, which no node of partition {offer.name} has."
    if job.container is not None and "/" in job.container and not Path(job.container).exists():
        return f"`container` is {job.container}, which does not exist."
    return None
