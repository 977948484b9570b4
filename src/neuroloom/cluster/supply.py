"""Keeps as many SLURM jobs as a stage's blocks need, until all blocks are done.

daisy holds this in one process of its own, beside the master:

    master (daisy)  <---- blocks ---->  worker, worker, ... (jobs of arrays)
       |  holds                            ^
       +------- supply ---- sbatch, squeue, scancel

Every `poll_seconds` it looks at the queue, finds out why jobs have ended (`ends`), and submits as many as are missing:
the smaller of `workers_max` and the blocks that can be done now. Jobs that were evicted go back to the queue by
themselves and join again. Whatever ends it cancels its jobs: the last block, the master's end, a signal. What was left
behind by one that could not is cancelled by the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from neuroloom.blockwise.connecting import CLAIMS
from neuroloom.blockwise.events import log_event
from neuroloom.blockwise.failures import all_failures, read_failure, record_failure
from neuroloom.blockwise.overlap import WANTED, overlap_of
from neuroloom.blockwise.stage import Stage, load_stage
from neuroloom.blockwise.work import STOPPED, Supply
from neuroloom.cluster import slurm
from neuroloom.cluster.ends import how, log_tail, read_told, why_ended
from neuroloom.cluster.job import most_memory_gb, sbatch_options, worker_script
from neuroloom.cluster.sacct import log_figures
from neuroloom.cluster.slurm import JobState
from neuroloom.errors import UserError
from neuroloom.files import no_room, read_owner, write_json
from neuroloom.project import Job

WORKERS = 10
"""At most, where a profile does not say."""

LOOK_SECONDS = 0.5
"""Between two looks whether workers are still wanted."""

IDLE_SECONDS = 60.0
"""After which a worker that waits, with fewer blocks left than workers, is sent away."""

SILENT_SECONDS = 15.0
"""A worker that has told nothing for longer than a block may take, and so much more, stands still: it would have
stopped itself before."""

BAD_STARTS = 3
"""Workers that fail at start, with none that does not in between, after which a stage is stopped."""

BAD_STARTS_BY_CHANCE = 10
"""Likewise, where others have started before, or one was killed from outside: that may happen to any."""

BAD_BLOCKS = 3
"""Different blocks that fail on a node, after which it is left out."""


@dataclass(frozen=True)
class Array:
    """A job array.

    Attributes:
        memory_gb: Of each of its jobs.
        spot: Whether it went to the spot partition.
    """

    memory_gb: float
    spot: bool


def slurm_supply(job: Job, title: str) -> Supply:
    """Workers of a stage from SLURM.

    Args:
        job: What a worker is.
        title: What jobs are called in the queue.
    """
    return Supply(partial(SlurmWorkers.of, job, title), job.host, 60 * job.block_minutes)


@dataclass(frozen=True)
class SlurmWorkers:
    """What daisy calls in a process of its own, and holds as long as it runs."""

    job: Job
    title: str
    description: Path
    run: str

    @staticmethod
    def of(job: Job, title: str, stage: Stage, run: str) -> SlurmWorkers:
        """For a stage and a run."""
        return SlurmWorkers(job, title, stage.description, run)

    def __call__(self, *, context: Any) -> None:
        """Keep workers until none are wanted; where that cannot be, say why and end with exit code 1."""
        stage = load_stage(self.description)
        if (stage.folder / STOPPED).exists():
            raise SystemExit(1)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        # the whole address but the number: a job's worker is none of the processes that daisy counts
        address = {name: str(value) for name, value in context.items()}
        address |= {"worker_id": "-1", "logdir": "", CLAIMS: str(Path(address["logdir"]) / CLAIMS)}
        context = context.copy()
        for name, value in address.items():
            context[name] = value
        try:
            master = address["hostname"], int(address["port"])
            Keeper(stage, self.job, self.title, self.run, context.to_env(), master).keep()
        except UserError as error:
            with contextlib.suppress(UserError):  # a disk that is full, which the master notices itself
                write_json(stage.folder / STOPPED, {"message": str(error)})
            raise SystemExit(1) from None


class Keeper:
    """Keeps the workers of one run of a stage.

    Args:
        stage: The stage.
        job: What a worker is.
        title: What jobs are called.
        run: The name of the run.
        context: daisy's address, for workers.
        address: Host and port of it.
    """

    def __init__(self, stage: Stage, job: Job, title: str, run: str, context: str, address: tuple[str, int]) -> None:
        self.stage, self.job, self.title, self.run, self.context = stage, job, title, run, context
        self.master, self.address = os.getppid(), address
        self.folder = stage.folder / "workers"
        self.arrays: dict[str, Array] = {}
        self.submitted: list[str] = []
        self.began = time.time()
        self.known: dict[str, JobState] = {}
        self.memory_gb = job.memory_gb
        self.spot = job.spot_partition is not None
        self.enough_since = time.monotonic()
        self.needy: set[int] = set()
        self.bad_starts: list[JobState] = []
        self.started: set[tuple[str, int]] = set()
        self.too_short = 0
        self.excluded: set[str] = set()
        self.heard: dict[str, tuple[Any, float]] = {}
        self.silent: set[tuple[str, int]] = set()
        self.not_before = 0.0

    def keep(self) -> None:
        """Keep workers until all blocks are done or the master is gone.

        Raises:
            UserError: There is no use in going on.
        """
        self.folder.mkdir(exist_ok=True)
        self._cancel_left_over()
        next_look = 0.0
        try:
            while self._is_wanted():
                if time.monotonic() >= next_look:
                    if not self._master_answers():  # it was interrupted, and waits for this process
                        break
                    self._look(self._blocks_open())
                    next_look = time.monotonic() + self.job.poll_seconds
                time.sleep(LOOK_SECONDS)
        finally:
            slurm.cancel(list(self.arrays))
            self._event("ended", arrays=list(self.arrays))
            (self.folder / "arrays.json").unlink(missing_ok=True)
            log_figures(self._event, self.submitted, self.began)

    def _is_wanted(self) -> bool:
        """Whether there are blocks that are not done, and somebody hands them out."""
        wanted = os.getppid() == self.master and (self.stage.folder / WANTED).exists()
        return wanted and read_owner(self.stage.folder / "lock").get("run") == self.run

    def _blocks_open(self) -> int:
        """Blocks that can be done now."""
        overlap = overlap_of(self.stage)
        return 0 if overlap.is_ahead() else overlap.open_blocks()

    def _master_answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(self.address, timeout=10):
            return True
        return False

    def _cancel_left_over(self) -> None:
        """Cancel what an earlier run could not, and forget what its workers said."""
        file = self.folder / "arrays.json"
        if file.exists():
            slurm.cancel(json.loads(file.read_text()))
        for told in self.folder.glob("*.json"):
            told.unlink()

    def _look(self, left: int) -> None:
        """Look at the queue once, and do what follows."""
        states = slurm.states(list(self.arrays))
        self._greet(states)
        for state in states:
            before = self.known.get(state.name)
            self.known[state.name] = state
            if before is not None and state.restarts > before.restarts:
                self._event("requeued", job=state.name, node=before.node, restarts=state.restarts)
            ended = not (state.is_pending or state.is_running)
            if ended and (before is None or before.is_pending or before.is_running):
                self._ended(state)
        active = [state for state in states if state.is_pending or state.is_running]
        active = self._leave_silent(self._leave_held(active))
        self._exclude_bad_nodes(active)
        active = self._send_away(active, left)
        alive = {state.name.partition("_")[0] for state in active}
        self.arrays = {name: array for name, array in self.arrays.items() if name in alive}
        write_json(self.folder / "nodes.json", sorted({state.node for state in active if state.is_running}))
        active = self._leave_spot(active)
        self._submit(active, left)

    def _greet(self, states: list[JobState]) -> None:
        """Notice workers that have connected."""
        for state in states:
            if state.is_running and (state.name, state.restarts) not in self.started:
                told = read_told(self.folder, state)
                if told.get("connected"):
                    self.started.add((state.name, state.restarts))
                    self.bad_starts.clear()
                    self._event("started", job=state.name, node=state.node)

    def _ended(self, state: JobState) -> None:
        """Draw the consequences of a job's end.

        Raises:
            UserError: There is no use in going on.
        """
        told, log = read_told(self.folder, state), self._log(state)
        why = why_ended(state, told, log_tail(log))
        block = told.get("block")
        self._event(why, job=state.name, node=state.node, state=state.state, block=block, done=told.get("done", 0))
        if why == "memory":
            self._out_of_memory(state, block)
        elif why == "no room":
            raise UserError(no_room(self.stage.folder))
        elif why == "not started":
            self._did_not_start(state)
        elif why == "time":
            self.too_short = 0 if told.get("done") else self.too_short + 1
            if self.too_short >= BAD_STARTS:
                raise UserError(
                    f"{self.stage.title}: {self.too_short} workers reached their time limit before they had done a "
                    "block. Set `minutes` of the profile higher, or make blocks smaller."
                )
        elif block is not None and why in ("hung", "killed"):
            what = "was killed" if why == "killed" else f"took longer than {self.job.block_minutes:g} minutes"
            record_failure(
                self.stage, block, state.node, f"its worker {what} ({how(state)})", worker=state.name, log=str(log)
            )

    def _out_of_memory(self, state: JobState, block: int | None) -> None:
        """Give more memory to the block, and to all workers from now on; once."""
        had = self.arrays[state.name.partition("_")[0]].memory_gb
        most = most_memory_gb(self.job)
        what = "A worker" if block is None else f"Block {block}"
        if had >= most:
            raise UserError(
                f"{self.stage.title}: {what} was killed for taking more than {had:g} GB on {state.node}, which is all "
                "that the profile allows. Set `memory_gb` or `memory_max_gb` higher, or make blocks smaller. "
                f"Its log: {self._log(state)}"
            )
        self.memory_gb = max(self.memory_gb, min(2 * had, most))
        if block is not None:
            self.needy.add(block)
            why = f"killed for taking more than {had:g} GB"
            record_failure(self.stage, block, state.node, why, worker=state.name, needs_memory_gb=self.memory_gb)

    def _did_not_start(self, state: JobState) -> None:
        self.bad_starts.append(state)
        self.not_before = time.monotonic() + min(60.0, 2.0 ** len(self.bad_starts))
        by_chance = bool(self.started) or any(9 in (bad.signal, bad.code - 128) for bad in self.bad_starts)
        if len(self.bad_starts) >= (BAD_STARTS_BY_CHANCE if by_chance else BAD_STARTS):
            first = self.bad_starts[0]
            log = self._log(first)
            raise UserError(
                f"{self.stage.title}: {len(self.bad_starts)} workers failed at start, and none did not. The first, on "
                f"{first.node} ({how(first)}), wrote into {log}:\n{log_tail(log) or '(nothing)'}"
            )

    def _exclude_bad_nodes(self, active: list[JobState]) -> None:
        """Leave out nodes where several different blocks have failed, as long as blocks succeed on others."""
        failed: dict[str, set[int]] = defaultdict(set)
        for failure in all_failures(self.stage):
            for attempt in failure["attempts"]:
                failed[attempt["node"]].add(failure["block"])
        for number, state in enumerate(self.bad_starts):
            failed[state.node].add(-1 - number)
        good = {s.node for s in active if s.is_running and read_told(self.folder, s).get("done")} - self.excluded
        for node, blocks in failed.items():
            if len(blocks) >= BAD_BLOCKS and node not in self.excluded and good - {node}:
                self.excluded.add(node)
                self._event("node left out", node=node, blocks=sorted(blocks))
                slurm.cancel([state.name for state in active if state.node == node])

    def _leave_held(self, active: list[JobState]) -> list[JobState]:
        """Cancel jobs that SLURM could not launch, and holds; the others.

        Raises:
            UserError: There is no use in going on.
        """
        for state in active:
            if state.is_held and (state.name, state.restarts) not in self.silent:
                self.silent.add((state.name, state.restarts))
                slurm.cancel([state.name])
                self._event("not started", job=state.name, node=state.node, state=state.state, reason=state.reason)
                self._did_not_start(state)
        return [state for state in active if not state.is_held]

    def _leave_silent(self, active: list[JobState]) -> list[JobState]:
        """Cancel jobs whose workers stand still, on a machine or a disk that hangs for instance; the others.

        daisy gives their blocks to others, which somebody must be there to do.
        """
        now = time.monotonic()
        for state in active:
            key, told = (state.name, state.restarts), read_told(self.folder, state)
            said = (state.restarts, told.get("since"))
            before, since = self.heard.get(state.name, (None, now))
            waits = told.get("connected") and told["block"] is None  # for what another stage has not done yet
            if state.is_pending or waits or said != before:
                self.heard[state.name] = (said, now)
            elif key not in self.silent and now - since > 60 * self.job.block_minutes + SILENT_SECONDS:
                self.silent.add(key)
                slurm.cancel([state.name])
                self._event("hung", job=state.name, node=state.node, state=state.state, block=told.get("block"))
                if told.get("block") is not None:
                    why = f"its worker stood still for more than {self.job.block_minutes:g} minutes"
                    log = str(self._log(state))
                    record_failure(self.stage, told["block"], state.node, why, worker=state.name, log=log)
        return [state for state in active if (state.name, state.restarts) not in self.silent]

    def _send_away(self, active: list[JobState], left: int) -> list[JobState]:
        """Cancel jobs that have nothing to do: those that wait, then those whose workers wait; the others."""
        surplus = len(active) - left - len(self.needy)
        if surplus <= 0:
            return active
        idle = [state for state in active if state.is_pending]
        now = time.time()
        for state in active:
            told = read_told(self.folder, state) if state.is_running else {}
            if told.get("connected") and told["block"] is None and now - told["since"] > IDLE_SECONDS:
                idle.append(state)
        going = {state.name for state in idle[:surplus]}
        if going:
            slurm.cancel(sorted(going))
            self._event("sent away", jobs=sorted(going))
        return [state for state in active if state.name not in going]

    def _leave_spot(self, active: list[JobState]) -> list[JobState]:
        """Where spot machines have not come for too long, ask for others instead."""
        spot = [state for state in active if self.arrays[state.name.partition("_")[0]].spot]
        if sum(state.is_running for state in spot) >= self.job.workers_min or not spot:
            self.enough_since = time.monotonic()
        if not self.spot or time.monotonic() - self.enough_since < 60 * self.job.spot_minutes:
            return active
        self.spot = False
        waiting = [state.name for state in spot if state.is_pending]
        slurm.cancel(waiting)
        self._event("no spot machines", jobs=waiting)
        return [state for state in active if state.name not in waiting]

    def _submit(self, active: list[JobState], left: int) -> None:
        """Submit the jobs that are missing."""
        self.needy = {block for block in self.needy if read_failure(self.stage, block)}
        wanted = min(left, self.job.workers_max or WORKERS)
        able = sum(self.arrays[state.name.partition("_")[0]].memory_gb >= self.memory_gb for state in active)
        missing = max(wanted - len(active), min(len(self.needy), wanted) - able)
        if missing <= 0 or time.monotonic() < self.not_before:
            return
        logs = self.stage.folder / "logs"
        logs.mkdir(exist_ok=True)
        options = sbatch_options(
            self.job,
            self.title,
            logs / "%A_%a.log",
            self.job.spot_partition if self.spot else self.job.partition,
            self.memory_gb,
            tuple(sorted(self.excluded)),
        )
        arguments = ["-m", "neuroloom.blockwise.worker", str(self.stage.description), "--run", self.run]
        variables = {"DAISY_CONTEXT": self.context, "NEUROLOOM_MEMORY_GB": str(self.memory_gb)}
        try:
            array = slurm.submit(options, worker_script(self.job, arguments, variables), missing)
        except UserError:
            if not active:
                raise
            self.not_before = time.monotonic() + 60  # a limit of jobs at once, perhaps: those that run go on
            return
        self.arrays[array] = Array(self.memory_gb, self.spot)
        self.submitted.append(array)
        write_json(self.folder / "arrays.json", list(self.arrays))
        asked = {"cpus": self.job.cpus, "gpus": self.job.gpus, "memory_gb": self.memory_gb, "spot": self.spot}
        self._event("submitted", array=array, jobs=missing, **asked, left=left)

    def _log(self, state: JobState) -> Path:
        return self.stage.folder / "logs" / f"{state.name}.log"

    def _event(self, what: str, **more: Any) -> None:
        with contextlib.suppress(UserError):  # a full disk is told by others
            log_event(self.stage.folder, self.run, what, **more)
