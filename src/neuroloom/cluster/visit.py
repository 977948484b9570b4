"""One job of the doctor from its submission to the end, as SLURM and the job itself tell it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from neuroloom.cluster import slurm
from neuroloom.cluster.answers import KINDS, Answers, parse_failed, parse_probe, read_answers
from neuroloom.cluster.job import sbatch_options
from neuroloom.cluster.outcome import Outcome
from neuroloom.cluster.slurm import JobState
from neuroloom.cluster.trial import MINUTES, Trial, trial_script
from neuroloom.errors import UserError

FILE_SECONDS = 20.0
"""After a job has told something, or has ended, for the rest to arrive."""

Tell = Callable[[dict[str, str], float], None]
"""Called with what is waited for, by the title of the job, and for how many seconds."""


class Visit:
    """A job of the doctor.

    Args:
        trial: What it is.
        answers: Who listens to it.
        folder: Where it writes what it tells.
        places: Folders that have a token.
        mark: The folder in each of them where it lies; the job's name in the queue, too.
    """

    def __init__(self, trial: Trial, answers: Answers, folder: Path, places: tuple[str, ...], mark: str) -> None:
        self.trial, self.answers, self.folder = trial, answers, folder
        self.host = trial.host or answers.address
        self.places, self.mark = places, mark
        self.submitted = time.monotonic()
        self.refused, self.array, self.reason = "", "", ""
        self.state: JobState | None = None
        self.ran_after: float | None = None
        self.told_at: float | None = None
        self.is_over = False

    def submit(self, places: list[dict[str, str]], packages: list[str]) -> None:
        """Submit the job; where SLURM refuses it, that is what is known of its partition.

        Args:
            places: What it looks at; see `probe`.
            packages: Of which it tells the versions.
        """
        job = self.trial.job
        options = sbatch_options(job, self.mark, Path("/dev/null"), self.trial.partition, job.memory_gb)
        to = {"token": self.answers.token, "host": self.host, "port": self.answers.port}
        script = trial_script(self.trial, places, packages, self.mark, self.folder, **to)
        self.submitted = time.monotonic()
        try:
            self.array = slurm.submit(options, script, 1)
        except UserError as error:
            self.refused, self.is_over = str(error), True

    def look(self, minutes: float) -> None:
        """Look once at the queue and at what the job tells.

        Args:
            minutes: After which it is over if no node has come.
        """
        now = time.monotonic()
        found = slurm.states([self.array])
        ended = not found or not (found[0].is_pending or found[0].is_running)
        self.state = found[0] if found else self.state
        if self.ran_after is None and self.state is not None and self.state.node and not self.state.is_pending:
            self.ran_after = now - self.submitted
        if ended or (self.trial.name, "probe") in self.answers.heard:
            self.told_at = now if self.told_at is None else self.told_at
            never_ran = ended and self.ran_after is None
            self.is_over = never_ran or self._is_all_there(ended) or now - self.told_at > FILE_SECONDS
        elif self.ran_after is None and now - self.submitted > 60 * minutes:
            self.reason, self.is_over = slurm.reason(self.array), True
        elif self.ran_after is not None and now - self.submitted - self.ran_after > 60 * (MINUTES + 1):
            self.is_over = True

    @property
    def phase(self) -> str:
        """What it is at, in a few words."""
        if self.is_over:
            return "done"
        if self.state is not None and self.state.state == "CONFIGURING":
            return f"{self.state.node or 'a node'} is being started"
        if self.ran_after is None or self.state is None:
            return "waits for a node"
        return f"runs on {self.state.node}" if self.told_at is None else "its files are waited for"

    def outcome(self, log: Path) -> Outcome:
        """What became of it.

        Args:
            log: Where the log of a job that failed is kept.
        """
        told = self._told()
        failed = {kind: parse_failed(told[kind]) if kind in told else None for kind in ("setup", "python")}
        logs = [found.log for found in failed.values() if found is not None]
        if logs:
            log.parent.mkdir(exist_ok=True)
            log.write_text(logs[-1] + "\n")
        return Outcome(
            address=f"{self.host}:{self.answers.port}",
            refused=self.refused,
            state=self.state,
            seconds=self.ran_after,
            reason=self.reason,
            setup=failed["setup"],
            python=failed["python"],
            probe=parse_probe(told.get("probe", "")),
            by_network=any(job == self.trial.name for job, _ in self.answers.heard),
            by_file=bool(read_answers(self.folder, self.trial.name)),
            read_back=self._read_back(),
            log=str(log) if logs else "",
        )

    def _told(self) -> dict[str, str]:
        heard = {kind: text for (job, kind), text in self.answers.heard.items() if job == self.trial.name}
        told = {**read_answers(self.folder, self.trial.name), **heard}
        return {kind: told[kind] for kind in KINDS if kind in told}

    def _read_back(self) -> dict[str, str]:
        """What the job has written in each place, as it is seen here."""
        found = {}
        for place in self.places:
            file = Path(place) / self.mark / self.trial.name
            if file.name in {other.name for other in file.parent.iterdir()}:
                found[place] = file.read_text()
        return found

    def _is_all_there(self, ended: bool) -> bool:
        """Whether nothing more can come: what it wrote is seen here, and nothing is on its way over the network."""
        report = parse_probe(self._told().get("probe", ""))
        written = {place["path"]: place["written"] for place in report.get("places", []) if "written" in place}
        if report and not written:
            return True
        heard = any(job == self.trial.name and kind in KINDS for job, kind in self.answers.heard)
        arrived = bool(read_answers(self.folder, self.trial.name)) and written.items() <= self._read_back().items()
        return arrived and (heard or ended)


def wait(visits: list[Visit], minutes: float, every: float, tell: Tell) -> None:
    """Wait until all is known that can be known.

    Args:
        visits: Jobs that were submitted.
        minutes: How long nodes are waited for.
        every: Seconds between two looks.
        tell: Hears what is waited for.
    """
    began = time.monotonic()
    while waiting := [visit for visit in visits if not visit.is_over]:
        for visit in waiting:
            visit.look(minutes)
        tell({visit.trial.title: visit.phase for visit in visits}, time.monotonic() - began)
        if not all(visit.is_over for visit in visits):
            time.sleep(every)
