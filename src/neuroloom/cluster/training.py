"""A training as one SLURM job: submitted, watched, and submitted again as long as that is of use.

    this process ---- sbatch, squeue, scancel ----> the job, on one node or several
         |  waits, shows progress                       |  trains (`chain.training_job`)
         +---------- <---- slurm/<job>.json <----------+

In the training's folder:

    slurm/training.json    what is to be trained          events.jsonl    when jobs began and ended, and why
    slurm/<job>.json       how far the job is             logs/<job>.log  what it wrote

A job that is evicted goes back to the queue by itself and goes on from the state that was saved last. At its time limit
it saves its state and ends, and another one goes on. It does not need this process: if that is killed, the job trains
on, and the next one finds it by its name and waits for it instead of submitting a second one.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from neuroloom.blockwise.interrupting import interruptible
from neuroloom.cluster import slurm
from neuroloom.cluster.ends import how, log_tail, read_told, why_training_ended
from neuroloom.cluster.job import most_memory_gb, sbatch_options, worker_script
from neuroloom.cluster.sacct import log_figures
from neuroloom.cluster.slurm import JobState
from neuroloom.errors import Interrupted, UserError
from neuroloom.files import append_line, lock, make_folder, take_away
from neuroloom.project import TrainJob
from neuroloom.training.job import CURVE

Report = Callable[[float, int, str], None]
"""Called with steps done, steps in all, and a few words."""

FUTILE_JOBS = 3
"""Jobs that end, one after the other, without a new step that is saved, after which the training is stopped."""

SIGNAL_SECONDS = 120
"""Before its time limit a job is told to save its state; sooner where that would be more than a quarter of it."""

SHOWN_SECONDS = 60.0
"""Until files that a job wrote on another machine are seen here, at most."""

SLURM = "slurm"
"""Folder in the training's folder."""


class TrainingWatcher:
    """Submits the job of a training, and watches it.

    Args:
        folder: The training's.
        setup: What is trained, for names.
        steps: In all.
        job: What the job asks for.
        arguments: Of Python in the job.
        report: Called when there is something new.
    """

    def __init__(
        self, folder: Path, setup: str, steps: int, job: TrainJob, arguments: Sequence[str], report: Report
    ) -> None:
        self.folder, self.setup, self.steps, self.job, self.arguments = folder, setup, steps, job, arguments
        self.report = report
        # the folder in the name: copies of a project train apart
        self.name = f"neuroloom-train-{setup}-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
        self.memory_gb = job.memory_gb
        self.saved = self._saved_steps()
        self.shown = self.saved
        self.futile: list[JobState] = []
        self.told: tuple[str, int] | None = None
        self.run = ""
        self.jobs: list[str] = []
        self.began = time.time()

    def train(self, take_over: bool = False) -> None:
        """Wait until the training is finished.

        Args:
            take_over: Whether the lock of one on another machine that gives no sign of life is taken over.

        Raises:
            UserError: Another one watches this training, or there is no use in going on.
            Interrupted: Ctrl-C, SIGTERM, or the job was cancelled; the state is saved.
        """
        with (
            interruptible(),
            lock(self.folder / SLURM / "lock", f"watching the training of {self.setup}", take_over) as self.run,
        ):
            try:
                job = self._running_job()
                while not self._is_done():
                    job = self._submit() if job is None else job
                    job = self._watch(job)
            except KeyboardInterrupt:
                slurm.cancel([f"--name={self.name}"])  # by name: a job's number may not be known yet
                self._event("stopped")
                raise
            finally:
                log_figures(self._event, self.jobs, self.began)

    def _is_done(self) -> bool:
        return (self.folder / "done.json").exists()

    def _running_job(self) -> str | None:
        """The job that an earlier one has left behind; one that is about to end is waited for."""
        while found := slurm.jobs_named(self.name):
            if not any(state.state == "COMPLETING" for state in found):
                self.jobs.append(found[0].name)
                self._event("found", job=found[0].name, state=found[0].state)
                return found[0].name
            self.report(self.shown, self.steps, f"waits until job {found[0].name} has ended")
            time.sleep(self.job.poll_seconds)
        return None

    def _submit(self) -> str:
        logs = self.folder / "logs"
        make_folder(logs)
        options = sbatch_options(self.job, self.name, logs / "%j.log", self.job.partition, self.memory_gb)
        script = worker_script(self.job, self.arguments, {})
        job = slurm.submit([signal_option(self.job), *options], script)
        self.jobs.append(job)
        self._event("submitted", job=job, memory_gb=self.memory_gb, step=self.saved)
        self.report(self.shown, self.steps, f"job {job} is submitted")
        return job

    def _watch(self, job: str) -> str | None:
        """Wait for a job; what it is once it has ended, which is nothing, so that another one is submitted.

        Raises:
            UserError: There is no use in going on.
        """
        before: JobState | None = None
        while True:
            time.sleep(self.job.poll_seconds)
            state = next(iter(slurm.states([job])), None)
            if state is None:  # so long ago that SLURM has forgotten it
                self._event("forgotten", job=job)
                take_away(self.folder / "lock", job)
                return None
            if before is not None and state.restarts > before.restarts:
                self.shown = self._saved_steps()
                self._event("requeued", job=job, node=before.node, restarts=state.restarts, step=self.shown)
            if not (state.is_pending or state.is_running):
                self._ended(state)
                return None
            self._show(state)
            before = state

    def _show(self, state: JobState) -> None:
        """Say how far a job is."""
        told = read_told(self.folder / SLURM, state)
        if "done" in told and (state.name, state.restarts) != self.told:
            self.told = state.name, state.restarts
            self._event("started", job=state.name, node=state.node, step=told["done"])
        self.shown = int(told.get("done", self.shown))
        if state.is_pending:
            words = f"job {state.name} waits for a node ({state.reason})"
        else:
            words = f"job {state.name} on {state.node}: {told.get('words', 'starts')}"
        self.report(self.shown, self.steps, words)

    def _ended(self, state: JobState) -> None:
        """Draw the consequences of a job's end.

        Raises:
            UserError: There is no use in going on.
            Interrupted: Somebody has cancelled it.
        """
        told, log = read_told(self.folder / SLURM, state), self.folder / "logs" / f"{state.name}.log"
        why = why_training_ended(state, told, log_tail(log))
        take_away(self.folder / "lock", state.name)
        saved = self._saved_steps()
        self._event(why, job=state.name, node=state.node, state=state.state, step=saved)
        if saved > self.saved:
            self.futile.clear()
        advanced, self.saved, self.shown = saved > self.saved, saved, saved
        if why == "finished" and self._appears_done():
            return
        if "mistake" in told:
            raise UserError(told["mistake"])
        if why == "cancelled":
            raise Interrupted(
                f"Job {state.name} was cancelled. Its training is kept until step {saved}; run the same command again "
                "to go on from there."
            )
        if why == "memory":
            self._out_of_memory(state, log)
        elif why != "evicted" and not advanced:
            self._came_to_nothing(state, why)

    def _appears_done(self) -> bool:
        end = time.monotonic() + SHOWN_SECONDS
        while not self._is_done() and time.monotonic() < end:
            time.sleep(1.0)
        return self._is_done()

    def _out_of_memory(self, state: JobState, log: Path) -> None:
        """Ask for more memory from now on; once."""
        most = most_memory_gb(self.job)
        if self.memory_gb >= most:
            raise UserError(
                f"The training of {self.setup} was killed for taking more than {self.memory_gb:g} GB on {state.node}, "
                "which is all that the profile allows. Set `memory_gb` or `memory_max_gb` of its table `train` higher, "
                f"or make `training.crop` smaller. Its log: {log}"
            )
        self.memory_gb = most

    def _came_to_nothing(self, state: JobState, why: str) -> None:
        """Count a job that ended without a new step; after several, give up."""
        self.futile.append(state)
        if len(self.futile) < FUTILE_JOBS:
            if why != "time":
                time.sleep(min(60.0, 2.0 ** len(self.futile)))
            return
        if why == "time":
            raise UserError(
                f"{FUTILE_JOBS} jobs for the training of {self.setup} were stopped, at their time limit or by a "
                "signal, before a new step was saved. Set `minutes` of the profile's table `train` higher."
            )
        first = self.futile[0]
        log = self.folder / "logs" / f"{first.name}.log"
        raise UserError(
            f"{FUTILE_JOBS} jobs for the training of {self.setup} ended without a new step. The first, on "
            f"{first.node} ({how(first)}), wrote into {log}:\n{log_tail(log) or '(nothing)'}"
        )

    def _saved_steps(self) -> int:
        """Steps until the state that was saved last, as the end of the curve has it."""
        steps = re.findall(r'"step": (\d+)', log_tail(self.folder / CURVE))
        return int(steps[-1]) if steps else 0

    def _event(self, what: str, **more: Any) -> None:
        append_line(
            self.folder / "events.jsonl", {"time": round(time.time(), 3), "run": self.run, "event": what, **more}
        )


def signal_option(job: TrainJob) -> str:
    """What sbatch must hear so that a training is told to save its state before its time limit.

    On one node the shell of the job has become the training (B:); on several, what `srun` started hears it.
    """
    seconds = SIGNAL_SECONDS if job.minutes is None else min(SIGNAL_SECONDS, round(15 * job.minutes))
    return f"--signal={'B:' if job.nodes == 1 else ''}USR1@{max(1, seconds)}"
