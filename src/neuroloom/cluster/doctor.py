"""`neuroloom cluster doctor`: one short job per partition that a profile uses, before the first real one.

    doctor  --- sbatch --->  job on a node: set-up lines, Python, probe
       ^ ^                        |    |
       | +------- network --------+    |
       +----- file in the project -----+

A job tells what it finds out both ways, so that either may be broken; where both are, SLURM's word for its end is
left. `trial` is what a job is, `probe` what it looks at, `visit` its way, `answers` how it is heard, `diagnosis` what
follows.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import re
import secrets
import shutil
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import neuroloom
from neuroloom.addresses import scheme_of, sqlite_path
from neuroloom.cluster import probe, slurm
from neuroloom.cluster.answers import Answers
from neuroloom.cluster.check import check_profile
from neuroloom.cluster.diagnosis import diagnose
from neuroloom.cluster.findings import disk_checks
from neuroloom.cluster.outcome import Check, Here, Place
from neuroloom.cluster.trial import STEPS, title_of, trials_of
from neuroloom.cluster.visit import Tell, Visit, wait
from neuroloom.errors import Interrupted
from neuroloom.files import explain_os_errors
from neuroloom.models import is_path
from neuroloom.project import Profile, Project, StageName

LOOK_SECONDS = 2.0
"""Between two looks at the queue, at most."""

LOGS = "doctor"
"""Folder of the project where logs of jobs that failed are kept."""


@dataclass(frozen=True)
class Examined:
    """What is known of one partition.

    Attributes:
        partition: Its name.
        stages: Whose workers the job was like.
        checks: What was looked at.
        log: Of a job that failed; empty if there is none.
        measured: All that the node told.
    """

    partition: str
    stages: tuple[str, ...]
    checks: tuple[Check, ...]
    log: str = ""
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """For people: "gpu (predict)"."""
        return title_of(self.partition, self.stages)

    @property
    def problems(self) -> int:
        """How many checks found one."""
        return sum(check.severity == "problem" for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)


def examine(project: Project, name: str, profile: Profile, minutes: float, tell: Tell) -> list[Examined]:
    """Try every partition that a profile uses.

    Args:
        project: Whose files nodes should see.
        name: The profile's.
        profile: One of SLURM.
        minutes: How long nodes are waited for.
        tell: Hears what is waited for.

    Raises:
        UserError: The cluster cannot do what the profile asks for, or the project's folder cannot be written.
        Interrupted: Ctrl-C or SIGTERM; all jobs are cancelled.
    """
    check_profile(name, profile, (*get_args(StageName), "train"))
    default = next((offer.name for offer in slurm.partitions().values() if offer.default), "")
    _remove_logs(project.folder / LOGS)
    places = places_of(project)
    marked = tuple(place.path for place in places if place.content is None)
    mark = f".neuroloom-doctor-{secrets.token_hex(4)}"
    with _stoppable(), Answers() as answers, _tokens(marked, mark) as token:
        folder = _home(project) / mark
        here = _here(name, places, token, folder)
        asked = [{"path": place.path, **({"content": ""} if place.content else {})} for place in places]
        visits = [Visit(trial, answers, folder, marked, mark) for trial in trials_of(profile, default)]
        try:
            for visit in visits:
                visit.submit(asked, list(here.packages))
            wait(visits, minutes, min(LOOK_SECONDS, profile.poll_seconds), tell)
        finally:
            slurm.cancel([f"--name={mark}"])
        return [_examined(visit, here, project.folder / LOGS) for visit in visits]


def examine_here(project: Project) -> Examined:
    """What can be said of this machine, where a profile has its workers here.

    Args:
        project: Whose folder is written to.

    Raises:
        UserError: The project's folder cannot be written.
    """
    mark = f".neuroloom-doctor-{secrets.token_hex(4)}"
    home = _home(project)
    with _tokens((str(home),), mark), explain_os_errors(home):
        checks = disk_checks(probe.write_speed(str(home / mark)))
    return Examined("this machine", STEPS, tuple(checks))


def _remove_logs(folder: Path) -> None:
    """Remove what an earlier doctor kept, and nothing else."""
    for file in folder.glob("*-job*.log"):
        file.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _examined(visit: Visit, here: Here, logs: Path) -> Examined:
    trial = visit.trial
    outcome = visit.outcome(logs / f"{trial.partition}-{trial.name}.log")
    return Examined(
        trial.partition, trial.stages, tuple(diagnose(trial, outcome, here)), outcome.log, dict(outcome.probe)
    )


def places_of(project: Project) -> tuple[Place, ...]:
    """What workers read and write on disks: the project, its results, the graph, volumes and weights.

    Args:
        project: The project.
    """
    parameters = project.parameters
    folders = [project.folder, _home(project)]
    if scheme_of(project.graph_store) == "sqlite":
        folders.append(Path(sqlite_path(project.graph_store)).parent)
    inputs = []
    volumes = parameters.volumes
    for volume in (*volumes.train, *volumes.validate_, *volumes.predict):
        path = project.locate(volume.path)
        inputs += [path, f"{path}/{volume.raw}"]
    given = (parameters.prediction.model, *parameters.prediction.ensemble)
    inputs += [project.locate(model) for model in given if model is not None and is_path(model)]
    contents = {path: probe.content_of(path) for path in dict.fromkeys(inputs) if "://" not in path}
    return (
        *(Place(path) for path in dict.fromkeys(str(folder) for folder in folders if folder.is_dir())),
        *(Place(path, content) for path, content in contents.items() if content is not None),
    )


def _home(project: Project) -> Path:
    """Where results lie, which may be on another disk than the project's file."""
    results = project.folder / "results"
    return results if results.is_dir() else project.folder


@contextlib.contextmanager
def _tokens(places: tuple[str, ...], mark: str) -> Iterator[str]:
    """A token in each place, which others can read, as long as it is needed."""
    token = secrets.token_hex(16)
    try:
        for place in places:
            folder = Path(place) / mark
            with explain_os_errors(folder):
                folder.mkdir()
                (folder / "token").write_text(token)
        yield token
    finally:
        for place in places:
            shutil.rmtree(Path(place) / mark, ignore_errors=True)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into `Interrupted`; more of them are not heard, while jobs are cancelled."""
    signals = (signal.SIGINT, signal.SIGTERM)

    def stop(*_: object) -> None:
        for heard in signals:
            signal.signal(heard, signal.SIG_IGN)
        raise Interrupted("Stopped. All jobs of the doctor are cancelled.")

    previous = {heard: signal.signal(heard, stop) for heard in signals}
    try:
        yield
    finally:
        for heard, handler in previous.items():
            signal.signal(heard, handler)


def _here(profile: str, places: tuple[Place, ...], token: str, folder: Path) -> Here:
    return Here(
        profile=profile,
        places=places,
        token=token,
        python=platform.python_version(),
        neuroloom={"version": neuroloom.__version__, "code": probe.code_of(str(Path(neuroloom.__file__).parent))},
        packages=probe.versions(_needed_packages()),
        ahead_of_disk=probe.ahead_of_disk(str(folder))["ahead"],
    )


def _needed_packages() -> list[str]:
    """Packages that neuroloom needs, without those of extras."""
    try:
        needed = importlib.metadata.requires("neuroloom") or []
    except importlib.metadata.PackageNotFoundError:  # run from its source
        return []
    return [re.split(r"[^\w.-]", need, maxsplit=1)[0] for need in needed if "extra ==" not in need]
