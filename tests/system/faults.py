"""Faults at random while a command runs on a SLURM; the same ones for the same seed, as far as time allows.

evict     a machine that has workers is taken away
worker    the process of a worker's job is killed
child     a process below it is killed: Python, where the job runs a script that starts it
master    the command is killed, and given again, as a user would

Each step of the chain gets its own faults, in an order of its own. Whatever is killed cannot clean up (SIGKILL).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from tests.system.slurm import Slurm

from neuroloom.files import read_owner

KINDS = ("evict", "worker", "child", "master")
WORKER = "neuroloom.blockwise.worker"


@dataclass(frozen=True)
class Fault:
    """Something that was broken.

    Attributes:
        time: When, as `time.time` counts.
        step: What ran: "affinities", "fragments", ...
        kind: One of `KINDS`.
        jobs: The jobs that were hit, by the names of their files.
    """

    time: float
    step: str
    kind: str
    jobs: tuple[str, ...]


@dataclass(frozen=True)
class Process:
    """A process of a worker's job.

    Attributes:
        pid: Its number.
        step: The step whose blocks it does.
        node: The machine it believes to be on.
        job: The name of its job.
        is_child: Whether another process of the job has started it.
    """

    pid: int
    step: str
    node: str
    job: str
    is_child: bool


class Faults:
    """Runs a command, and breaks things while it runs.

    Args:
        slurm: Where its workers are.
        command: Does all of a project that is missing.
        project: The project's folder.
        seed: Decides on the order of faults, on pauses and victims.
        per_step: Faults in each step of the chain; fewer where it is done before.
        pause: Seconds between two faults, at least and at most.

    Attributes:
        done: What was broken so far.
    """

    def __init__(
        self,
        slurm: Slurm,
        command: Sequence[str],
        project: Path,
        seed: int,
        per_step: int,
        pause: tuple[float, float] = (1.5, 3.5),
    ) -> None:
        self.slurm, self.command, self.project, self.pause = slurm, command, project, pause
        self.chance = random.Random(seed)
        self.per_step = per_step
        self.planned: dict[str, list[str]] = {}
        self.done: list[Fault] = []
        self.log = project / "master.log"
        self.master = self._start()

    def run(self, seconds: float) -> int:
        """Wait until the command has ended by itself, and break things meanwhile.

        Args:
            seconds: For all.

        Returns:
            Its exit code.

        Raises:
            TimeoutError: It has not ended.
        """
        end = time.monotonic() + seconds
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return self.master.wait(self.chance.uniform(*self.pause))
                if time.monotonic() > end:
                    raise TimeoutError(f"{self}\n{self.log.read_text()[-3000:]}")
                self.slurm.revive()
                self._break_something()
        finally:
            self.master.kill()
            self.master.wait()

    @property
    def kinds(self) -> Counter[str]:
        """How many there were of each kind."""
        return Counter(fault.kind for fault in self.done)

    def __str__(self) -> str:
        return "\n".join(f"{fault.time:.1f} {fault.step} {fault.kind} {' '.join(fault.jobs)}" for fault in self.done)

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            return subprocess.Popen(self.command, env=environment, stdout=log, stderr=log)

    def _break_something(self) -> None:
        """The next fault of a step that runs, unless there is nothing to break yet."""
        found = self._processes()
        for step in sorted({process.step for process in found} - self.planned.keys()):
            kinds = KINDS * -(-self.per_step // len(KINDS))
            self.planned[step] = self.chance.sample(kinds, self.per_step)
        steps = sorted({process.step for process in found if self.planned[process.step]})
        if not steps:
            return
        step = self.chance.choice(steps)
        processes = [process for process in found if process.step == step]
        kind = self.planned[step].pop(0)
        if kind == "child" and not any(process.is_child for process in processes):
            kind = "worker"
        victim = self.chance.choice([process for process in processes if process.is_child == (kind == "child")])
        jobs = {victim.job}
        if kind == "evict":
            jobs = {process.job for process in found if process.node == victim.node}
            self.slurm.evict(victim.node)
        elif kind == "master":
            jobs = {process.job for process in found}
            self.master.kill()
            self.master.wait()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim.pid, signal.SIGKILL)
        self.done.append(Fault(time.time(), step, kind, tuple(sorted(jobs))))
        if kind == "master":
            self.master = self._start()

    def _runs(self) -> set[str]:
        """Names of what the command runs now."""
        runs = set()
        for lock in self.project.glob("results/*/*/lock"):
            owner = read_owner(lock)
            if owner.get("pid") == self.master.pid:
                runs.add(owner["run"])
        return runs

    def _processes(self) -> list[Process]:
        """Processes of the workers of what the command runs now, in the order of their jobs."""
        runs = self._runs()
        found: dict[int, tuple[int, str, str, str]] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                command, told = process.cmdline(), process.environ()
                if WORKER in command and process.status() != psutil.STATUS_ZOMBIE and command[-1] in runs:
                    step = Path(command[-3]).parent.name.rpartition("-")[0]
                    job = f"{told['SLURM_ARRAY_JOB_ID']}_{told['SLURM_ARRAY_TASK_ID']}"
                    found[process.pid] = (process.ppid(), step, told["SLURMD_NODENAME"], job)
        processes = [Process(pid, step, node, job, parent in found) for pid, (parent, step, node, job) in found.items()]
        return sorted(processes, key=lambda process: (process.job, process.is_child))
