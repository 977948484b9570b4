"""What a worker's job asks for, as sbatch wants to hear it, and the script that it runs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from neuroloom.project import Job


def sbatch_options(
    job: Job, name: str, log: Path, partition: str | None, memory_gb: float, excluded: tuple[str, ...] = ()
) -> list[str]:
    """Options of sbatch for a worker.

    Args:
        job: What it is.
        name: Of the job, in the queue.
        log: Where it writes, with %A for the array and %a for the number in it.
        partition: Where it goes; None for the cluster's default.
        memory_gb: Its memory, which may be more than the profile's.
        excluded: Nodes where it must not run.
    """
    options = [
        f"--job-name={name}",
        f"--output={log}",
        "--open-mode=append",
        "--requeue",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={job.cpus}",
        f"--mem={round(memory_gb * 1024)}M",
    ]
    if partition is not None:
        options.append(f"--partition={partition}")
    if job.gpus:
        kind = f"{job.gpu_type}:" if job.gpu_type else ""
        options.append(f"--gres=gpu:{kind}{job.gpus}" if job.gpu_option == "gres" else f"--gpus={kind}{job.gpus}")
    if job.minutes is not None:
        options.append(f"--time={max(1, round(job.minutes))}")
    for option, value in (("account", job.account), ("qos", job.qos), ("constraint", job.constraint)):
        if value is not None:
            options.append(f"--{option}={value}")
    if excluded:
        options.append(f"--exclude={','.join(excluded)}")
    return [*options, *job.extra]


def worker_script(job: Job, arguments: list[str], variables: dict[str, str]) -> str:
    """The shell script of a job.

    Args:
        job: What the worker is.
        arguments: Of Python.
        variables: Environment variables of the worker.
    """
    command = shlex.join(worker_command(job, arguments))
    return "\n".join(["#!/bin/bash", *worker_exports(job, variables), *job.setup, f"exec {command}", ""])


def worker_command(job: Job, arguments: list[str]) -> list[str]:
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


def worker_exports(job: Job, variables: dict[str, str]) -> list[str]:
    """Lines of the shell that set a worker's environment variables.

    Args:
        job: What the worker is.
        variables: More of them.
    """
    # a library that starts a thread per core of the machine would be slow on the few that a worker has
    threads = {name: str(job.cpus) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")}
    return [f"export {name}={shlex.quote(value)}" for name, value in {**threads, **variables}.items()]
