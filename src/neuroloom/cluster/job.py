"""What a job asks for, as sbatch wants to hear it, and the script that it runs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from neuroloom.cluster import slurm
from neuroloom.project import AnyJob, TrainJob


def sbatch_options(
    job: AnyJob, name: str, log: Path, partition: str | None, memory_gb: float, excluded: tuple[str, ...] = ()
) -> list[str]:
    """Options of sbatch for a worker, or for a training.

    Args:
        job: What it is.
        name: Of the job, in the queue.
        log: Where it writes, with %A for the array and %a for the number in it, or %j for a job of none.
        partition: Where it goes; None for the cluster's default.
        memory_gb: Its memory, which may be more than the profile's.
        excluded: Nodes where it must not run.
    """
    nodes, tasks = _nodes_and_tasks(job)
    options = [
        f"--job-name={name}",
        f"--output={str(log.parent).replace('%', '%%')}/{log.name}",  # only in the name has % a meaning
        "--open-mode=append",
        "--requeue",
        f"--nodes={nodes}",
        f"--ntasks-per-node={tasks}",
        f"--cpus-per-task={max(1, job.cpus // tasks)}",
        f"--mem={round(memory_gb * 1024)}M",
    ]
    if partition is not None:
        options.append(f"--partition={partition}")
    if job.gpus:
        kind = f"{job.gpu_type}:" if job.gpu_type else ""
        per_node = "--gpus-per-node=" if nodes > 1 else "--gpus="
        options.append(f"{'--gres=gpu:' if job.gpu_option == 'gres' else per_node}{kind}{job.gpus}")
    if job.minutes is not None:
        options.append(f"--time={max(1, round(job.minutes))}")
    for option, value in (("account", job.account), ("qos", job.qos), ("constraint", job.constraint)):
        if value is not None:
            options.append(f"--{option}={value}")
    if excluded:
        options.append(f"--exclude={','.join(excluded)}")
    return [*options, *job.extra]


def most_memory_gb(job: AnyJob) -> float:
    """What may be asked for after a job was killed for its memory: twice as much, if nodes have it.

    Raises:
        UserError: SLURM does not answer.
    """
    if job.memory_max_gb is not None:
        return job.memory_max_gb
    offers = slurm.partitions()
    wanted = job.partition or next((name for name, offer in offers.items() if offer.default), "")
    return min(2 * job.memory_gb, offers[wanted].memory_gb if wanted in offers else 2 * job.memory_gb)


def worker_script(job: AnyJob, arguments: Sequence[str], variables: dict[str, str]) -> str:
    """The shell script of a job.

    Args:
        job: What it is. Of a training on several nodes, `srun` starts one process for each GPU or node.
        arguments: Of Python.
        variables: Environment variables of its processes.
    """
    command = worker_command(job, arguments)
    nodes, tasks = _nodes_and_tasks(job)
    if nodes > 1:
        # one that fails takes the others with it: they would wait for it
        command = ["srun", "--kill-on-bad-exit=1", "--wait=0", f"--cpus-per-task={max(1, job.cpus // tasks)}", *command]
    before = [*worker_exports(job, variables), *job.setup, *(_MEETING if nodes > 1 else ())]
    return "\n".join(["#!/bin/bash", *before, f"exec {shlex.join(command)}", ""])


def worker_command(job: AnyJob, arguments: Sequence[str]) -> list[str]:
    """What starts a worker's Python, in its container if it has one.

    Args:
        job: What the worker is.
        arguments: Of Python.
    """
    command = [job.python or ("python3" if job.container else sys.executable), *arguments]
    if job.container is None:
        return command
    gpu = ["--nv"] if job.gpus else []
    return [job.container_program, "exec", *gpu, *job.container_options, job.container, *command]


def worker_exports(job: AnyJob, variables: dict[str, str]) -> list[str]:
    """Lines of the shell that set a worker's environment variables.

    Args:
        job: What the worker is.
        variables: More of them.
    """
    # a library that starts a thread per core of the machine would be slow on the few that a process has
    cpus = max(1, job.cpus // max(1, job.gpus))
    threads = {name: str(cpus) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")}
    return [f"export {name}={shlex.quote(value)}" for name, value in {**threads, **variables}.items()]


_MEETING = (
    'first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
    # by which SLURM itself reaches it: a name that others do not know is of no use
    'address=$(scontrol show node "$first" | grep -o "NodeAddr=[^ ]*" | cut -d = -f 2)',
    'export MASTER_ADDR="${address:-$first}" MASTER_PORT=$((15000 + SLURM_JOB_ID % 15000))',
)
"""Where the processes of several nodes meet, as torch wants to hear it: at the first node, where the first one is."""


def _nodes_and_tasks(job: AnyJob) -> tuple[int, int]:
    """Nodes of a job, and processes that `srun` starts on each; on one node, a program starts its own."""
    if isinstance(job, TrainJob) and job.nodes > 1:
        return job.nodes, max(1, job.gpus)
    return 1, 1
