"""What follows from what the doctor's jobs tell: a sentence for each thing looked at, and one that puts it right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from neuroloom.cluster.answers import Failed
from neuroloom.cluster.slurm import JobState
from neuroloom.cluster.trial import PYTHON_FAILED, SETUP_ENDED, Trial, setup_line

SKEW_SECONDS = 5.0
"""Between two clocks, above which it is told."""

SLOW_MEGABYTES = 20.0
"""Per second, below which a disk is called slow."""

Severity = Literal["ok", "warning", "problem"]

_BUSY = ("Resources", "Priority", "")
_DOWN = ("PartitionDown", "PartitionInactive", "ReqNodeNotAvail", "NodeDown", "BadConstraints")
_ENDS = {
    "OUT_OF_MEMORY": ("was killed for memory", "Set `memory_gb` higher."),
    "TIMEOUT": ("did not come to its end in time: perhaps a disk hangs there", "Look at the disks of that node."),
    "NODE_FAIL": ("lost its node", "Try again."),
    "BOOT_FAIL": ("got a node that did not start", "Try again, or ask whoever keeps the cluster."),
    "PREEMPTED": ("was taken away", "Try again."),
    "CANCELLED": ("was cancelled by somebody else", "Try again."),
}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What it is: "node", "project", "network", ...
        severity: "problem": must be put right before a real job.
        what: What was found.
        fix: The sentence that puts it right; empty where nothing is to be done.
    """

    name: str
    severity: Severity
    what: str
    fix: str = ""


@dataclass(frozen=True)
class Place:
    """A folder or file that workers read or write.

    Attributes:
        path: As workers are told it.
        content: What tells it from others of that path (`probe.content_of`); None where a token was left.
    """

    path: str
    content: str | None = None


@dataclass(frozen=True)
class Here:
    """The machine that neuroloom runs on.

    Attributes:
        profile: The profile's name.
        places: Folders and files that nodes should see, the project's folder first.
        token: What was left in those without content.
        python: Its version.
        neuroloom: version and code, as `probe` tells them.
        packages: Versions by name.
        ahead_of_disk: Seconds by which the clock is ahead of the disk's.
    """

    profile: str
    places: tuple[Place, ...]
    token: str
    python: str
    neuroloom: dict[str, str]
    packages: dict[str, str | None]
    ahead_of_disk: float


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        address: Where it was to reach this machine.
        refused: Why it was not even submitted; empty if it was.
        state: What SLURM says of it last.
        seconds: From its submission until it ran; None if it never did.
        reason: Why it waits, in SLURM's word.
        setup: What its script tells of a set-up line that failed.
        python: Likewise, of a Python that did.
        probe: What its node found out; empty if nothing came.
        by_network: Whether anything came over the network.
        by_file: Whether anything came by a file.
        read_back: What was read here of the token that it wrote, by the path of the place.
        log: Where its log is kept now; empty if there is none.
    """

    address: str
    refused: str = ""
    state: JobState | None = None
    seconds: float | None = None
    reason: str = ""
    setup: Failed | None = None
    python: Failed | None = None
    probe: dict[str, Any] = field(default_factory=dict)
    by_network: bool = False
    by_file: bool = False
    read_back: dict[str, str] = field(default_factory=dict)
    log: str = ""

    @property
    def node(self) -> str:
        """Where it ran; empty if it did not, or nobody says."""
        failed = self.python or self.setup
        known = self.state.node if self.state is not None else ""
        return str(self.probe.get("node") or (failed.node if failed else "") or known)


def diagnose(trial: Trial, outcome: Outcome, here: Here) -> list[Check]:
    """Everything that can be said of a partition.

    Args:
        trial: The job that tried it.
        outcome: What became of it.
        here: This machine.
    """
    if outcome.refused:
        return [Check("node", "problem", outcome.refused)]
    if outcome.seconds is None:
        return [_no_node(outcome)]
    checks = [Check("node", "ok", f"{outcome.node or 'a node'}, {outcome.seconds:.0f} s after it was asked for")]
    if not (outcome.by_network or outcome.by_file):
        return [*checks, *_silent(trial, outcome, here)]
    checks += _setup(trial, outcome, here)
    if not outcome.probe:
        checks.append(_no_python(trial, outcome, here))
        if not outcome.by_file:
            checks.append(_unseen(trial, [here.places[0].path]))
        if not outcome.by_network:
            checks.append(_unreachable(outcome, ""))
        return checks
    found = outcome.probe
    checks += _python(found, here)
    checks += _places(trial, outcome, here)
    checks += disk_checks(found["disk"])
    checks += _clock(found, here)
    error = str(found["network"].get("error", ""))
    if error or not outcome.by_network:
        checks.append(_unreachable(outcome, error))
    else:
        milliseconds = 1000 * found["network"]["seconds"]
        checks.append(Check("network", "ok", f"{outcome.address} answers in {milliseconds:.3g} ms"))
    checks += [_memory(trial.job.memory_gb, found["memory_gb"]), _cores(trial.job.cpus, found["cores"])]
    if trial.job.gpus:
        checks.append(_gpu(trial, found["devices"]))
    return checks


def _no_node(outcome: Outcome) -> Check:
    state = outcome.state.state if outcome.state is not None else ""
    if state in _ENDS:
        what, fix = _ENDS[state]
        return Check("node", "problem", f"The job {what} ({state}).", fix)
    if state == "CONFIGURING":
        fix = "Wait longer with --minutes, or ask whoever keeps the cluster why machines do not start."
        return Check("node", "problem", "A machine is being started, but did not come in time.", fix)
    said = f" SLURM's reason: {outcome.reason}." if outcome.reason else ""
    if outcome.reason in _BUSY:
        fix = "The partition is busy: wait longer with --minutes, ask for less, or choose another partition."
    elif outcome.reason.startswith(_DOWN):
        fix = "Its nodes are down (`sinfo -R` says why): ask whoever keeps the cluster, or choose another partition."
    else:
        fix = "A limit of the cluster holds it back: ask for less, or set another `account`, `qos` or partition."
    return Check("node", "problem", f"No node came in time.{said}", fix)


def _silent(trial: Trial, outcome: Outcome, here: Here) -> Iterator[Check]:
    """Of a job that could tell nothing, all that is known is how SLURM says it ended."""
    state, code = (outcome.state.state, outcome.state.code) if outcome.state is not None else ("", 0)
    where = f"The job ran on {outcome.node or 'a node'}"
    if state == "COMPLETED" or code in (SETUP_ENDED, PYTHON_FAILED):
        if code == SETUP_ENDED:
            fix = f"Run the lines of `setup` of profile {here.profile!r} by hand on that node."
            yield Check(
                "set-up", "problem", "The set-up lines end the script, with an error that it could not tell.", fix
            )
        elif code == PYTHON_FAILED:
            yield Check("python", "problem", f"{_program(trial)} does not run there.", _PYTHON_FIX)
        yield _unseen(trial, [here.places[0].path], f"{where}, but it could not write here: ")
        yield _unreachable(outcome, "")
    elif state in _ENDS:
        what, fix = _ENDS[state]
        yield Check("job", "problem", f"The job {what} ({state}).", fix)
    else:
        yield Check(
            "job",
            "problem",
            f"{where} and ended at once ({state or 'SLURM has forgotten how'}, exit code {code}) without a word.",
            "Ask whoever keeps the cluster for the log of slurmd there: an unknown user, or no /tmp, for example.",
        )


_PYTHON_FIX = (
    "Set `python` of the profile to one in which neuroloom is installed and that nodes see, or load it in `setup`."
)


def _program(trial: Trial) -> str:
    return trial.job.python or ("python3 of the container" if trial.job.container else "This program's own Python")


def _setup(trial: Trial, outcome: Outcome, here: Here) -> Iterator[Check]:
    failed = outcome.setup
    if failed is None:
        if trial.job.setup:
            yield Check("set-up", "ok", "its lines run without an error")
        return
    line = setup_line(trial, failed.line)
    which = f"`{line}` ended" if line else "The set-up lines ended the script"
    fix = f"Correct `setup` of profile {here.profile!r}."
    yield Check("set-up", "problem", f"{which} with exit code {failed.code}{_last(failed)}", fix)


def _no_python(trial: Trial, outcome: Outcome, here: Here) -> Check:
    failed = outcome.python
    if failed is None and outcome.setup is not None and outcome.setup.ended:
        return Check("python", "problem", "It was not tried, since the set-up lines ended the script.", "")
    if failed is None:
        return Check("python", "problem", "What it found out did not arrive.", "Try again.")
    if failed.code in (126, 127, 255):
        return Check("python", "problem", f"{_program(trial)} does not run there{_last(failed)}", _PYTHON_FIX)
    killed = " It was killed, perhaps for memory: set `memory_gb` higher." if failed.code > 128 else _PYTHON_FIX
    what = f"{_program(trial)} runs there, but fails with exit code {failed.code}{_last(failed)}"
    return Check("python", "problem", what, killed.strip())


def _last(failed: Failed) -> str:
    lines = failed.log.splitlines()
    said = re.sub(r"^\S*/slurm_script: ", "", lines[-1].strip()) if lines else ""
    return f": {said}" if said else "."


def _python(found: dict[str, Any], here: Here) -> Iterator[Check]:
    python, ours = found["python"], found["neuroloom"]
    said = f"{python['version']}, {python['executable']}"
    if python["version"] == here.python:
        yield Check("python", "ok", said)
    else:
        yield Check("python", "warning", f"{said}; here it is {here.python}.", "Use the same version on both.")
    version = here.neuroloom["version"]
    if "error" in ours:
        what = f"It cannot be imported by {python['executable']}: {ours['error']}"
        yield Check("neuroloom", "problem", what, f"Install neuroloom {version} there. {_PYTHON_FIX}")
    elif ours["version"] != version:
        what = f"{ours['version']} ({ours['folder']}); here it is {version}."
        yield Check("neuroloom", "problem", what, f"Install neuroloom {version} there. {_PYTHON_FIX}")
    elif ours["code"] != here.neuroloom["code"]:
        what = f"{version} as here, but other files ({ours['folder']})."
        yield Check("neuroloom", "problem", what, "Install there what is installed here.")
    else:
        yield Check("neuroloom", "ok", f"{version}, the same files as here")
    packages = found["packages"]
    others = [
        f"{name} {packages[name]} instead of {version}" if packages[name] else f"no {name}"
        for name, version in here.packages.items()
        if name in packages and packages[name] != version
    ]
    if others:
        fix = "Install the same versions on both: results may differ, or workers fail."
        yield Check("packages", "warning", f"{', '.join(others)}.", fix)
    elif packages and "error" not in packages:
        yield Check("packages", "ok", f"{len(packages)} packages of the same versions as here")


def _places(trial: Trial, outcome: Outcome, here: Here) -> Iterator[Check]:
    """Where what a node sees differs from what is here; of places within one that differs, nothing is said."""
    found = {seen["path"]: seen for seen in outcome.probe["places"]}
    troubles: dict[str, list[str]] = {}
    bad: list[str] = []
    for place in here.places:
        trouble = _trouble(place, found.get(place.path, {}), outcome.read_back.get(place.path), here.token)
        if trouble and not any(place.path.startswith(f"{path}/") for path in bad):
            bad.append(place.path)
            troubles.setdefault(trouble, []).append(place.path)
    for trouble, paths in troubles.items():
        yield _unseen(trial, paths, trouble=trouble)
    if not troubles:
        first, *more = here.places
        others = f" and {len(more)} other place{'s' * (len(more) != 1)}" if more else ""
        yield Check(
            "project", "ok", f"{first.path}{others} are the same there" if more else f"{first.path} is the same there"
        )


_MISSING, _OTHER = "not seen there", "something else there"


def _trouble(place: Place, seen: dict[str, Any], read_back: str | None, token: str) -> str:
    """What is wrong with a place, in a few words; empty if nothing is."""
    error = str(seen.get("error", ""))
    if error.startswith("no answer"):
        return f"on a disk that does not answer there ({error})"
    if not seen.get("exists"):
        return f"{_MISSING} ({error})" if error and "No such file" not in error else _MISSING
    if place.content is not None:
        return "" if seen.get("content") == place.content else _OTHER
    if seen.get("token") != token:
        return _OTHER if not error or "No such file" in error else f"not readable there ({error})"
    if "written" not in seen:
        return f"not writable there ({error})"
    return "" if read_back == seen["written"] else "written there, but what is written does not arrive here"


def _unseen(trial: Trial, paths: list[str], begin: str = "", trouble: str = _MISSING) -> Check:
    shown = ", ".join(paths)
    are = "are" if len(paths) > 1 else "is"
    nodes = f"on the nodes of {trial.partition}"
    fix = f"Mount the disk of {paths[0]} {nodes}, under the same path, or move it to a disk that they see."
    if trial.job.container is not None:
        fix += ' In a container it must be bound, too: `container_options`, such as "--bind=/data".'
    if "writable" in trouble:
        fix = f"Have it mounted for writing {nodes}, or give your user the right to write there."
    return Check("project", "problem", f"{begin}{shown} {are} {trouble}.", fix)


def disk_checks(disk: dict[str, Any]) -> Iterator[Check]:
    """What follows from how fast a file was written; nothing where none could be.

    Args:
        disk: As `probe.write_speed` tells it.
    """
    if "error" in disk:
        return  # told with the places
    speed, free = disk["megabytes_per_second"], disk["free_gb"]
    said = f"{speed:.0f} MB/s, {free:.0f} GB free"
    if speed < SLOW_MEGABYTES:
        fix = "Workers will wait for the disk: use fewer (`workers_max`), or move the project to a faster one."
        yield Check("write speed", "warning", f"{said}.", fix)
    else:
        yield Check("write speed", "ok", said)


def _clock(found: dict[str, Any], here: Here) -> Iterator[Check]:
    if "ahead" in found["network"]:
        ahead = float(found["network"]["ahead"])
    elif "ahead" in found["clock"]:
        ahead = float(found["clock"]["ahead"]) - here.ahead_of_disk
    else:
        return
    said = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the one here"
    if abs(ahead) > SKEW_SECONDS:
        yield Check("clock", "warning", f"{said}.", "Have the clocks of nodes set by the network (NTP).")
    else:
        yield Check("clock", "ok", said)


def _unreachable(outcome: Outcome, error: str) -> Check:
    said = f": {error}" if error else ""
    return Check(
        "network",
        "problem",
        f"The node cannot connect to this machine at {outcome.address}{said}.",
        "Set `host` of the profile to an address of this machine that nodes reach, and let them connect to all its "
        "ports.",
    )


def _memory(asked_gb: float, limits: dict[str, Any]) -> Check:
    known = {name: float(limits[name]) for name in ("cgroup", "ulimit", "slurm", "machine") if name in limits}
    if not known:
        return Check("memory", "warning", "Its limit is not known.")
    kind = min(known, key=lambda name: known[name])
    names = {
        "cgroup": "the job's limit",
        "ulimit": "`ulimit -v`",
        "slurm": "what SLURM gives the job",
        "machine": "all that the node has",
    }
    said = f"{known[kind]:.4g} GB ({names[kind]})"
    if known[kind] < 0.95 * asked_gb:
        fix = "Ask whoever keeps the cluster about that limit, or set `memory_gb` to it."
        return Check("memory", "problem", f"{said}, although {asked_gb:g} GB were asked for.", fix)
    return Check("memory", "ok", f"{said}, {asked_gb:g} GB asked for")


def _cores(asked: int, cores: int) -> Check:
    if cores < asked:
        fix = "Set `cpus` to what a job gets, or ask whoever keeps the cluster."
        return Check("cores", "warning", f"{cores}, although {asked} were asked for.", fix)
    return Check("cores", "ok", f"{cores}, {asked} asked for")


def _gpu(trial: Trial, devices: dict[str, Any]) -> Check:
    seen = [f"{gpu['name']} ({gpu['memory_gb']:.0f} GB, driver {gpu['driver']})" for gpu in devices.get("gpus", [])]
    torch = devices.get("torch", {})
    why = torch.get("error") or devices.get("error") or ""
    if torch.get("computes"):
        names = ", ".join(seen or torch["names"])
        return Check("GPU", "ok", f"{names}; PyTorch {torch['torch']} computes on it")
    if not seen and not torch.get("count"):
        why = devices.get("nvidia_smi") or why
        fix = "Choose a partition with GPUs, or another `gpu_option`; or the driver of GPUs is missing there."
        return Check("GPU", "problem", f"None is found, although {trial.job.gpus} was asked for{_because(why)}.", fix)
    if torch and torch.get("cuda") is None and "torch" in torch:
        fix = "Install a PyTorch with CUDA there."
        return Check("GPU", "problem", f"{', '.join(seen)}, but PyTorch {torch['torch']} is built without CUDA.", fix)
    fix = "Use a PyTorch that goes with this driver, or a newer driver."
    return Check("GPU", "problem", f"{', '.join(seen)}, but PyTorch cannot use it{_because(why)}.", fix)


def _because(why: str) -> str:
    return f" ({why})" if why else ""
