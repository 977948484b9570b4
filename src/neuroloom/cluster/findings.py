"""What follows from what a node found out about itself; see `probe`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from neuroloom.cluster.outcome import Check, Here, Outcome, Place
from neuroloom.cluster.probe import WRITE_MEGABYTES
from neuroloom.cluster.trial import Trial

SKEW_SECONDS = 5.0
"""Between two clocks, above which it is told."""

SLOW_MEGABYTES = 20.0
"""Per second, below which a disk is called slow."""

PYTHON_FIX = (
    "Set `python` of the profile to one in which neuroloom is installed and that nodes see, or load it in `setup`."
)

_MISSING, _OTHER = "not seen there", "something else there"


def node_checks(trial: Trial, outcome: Outcome, here: Here) -> Iterator[Check]:
    """What follows from a node's report.

    Args:
        trial: The job that made it.
        outcome: With the report.
        here: This machine.
    """
    found = outcome.probe
    yield from _python(found, here)
    yield from _places(trial, outcome, here)
    yield from disk_checks(found["disk"])
    yield from _clock(found, here)
    error = str(found["network"].get("error", ""))
    if error or not outcome.by_network:
        yield unreachable(outcome, error)
    else:
        milliseconds = 1000 * found["network"]["seconds"]
        yield Check("network", "ok", f"{outcome.address} answers in {milliseconds:.3g} ms")
    yield _memory(trial.job.memory_gb, found["memory_gb"])
    yield _cores(trial.job.cpus, found["cores"])
    if trial.job.gpus:
        yield _gpu(trial, found["devices"])


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
        yield Check("neuroloom", "problem", what, f"Install neuroloom {version} there. {PYTHON_FIX}")
    elif ours["version"] != version:
        what = f"{ours['version']} ({ours['folder']}); here it is {version}."
        yield Check("neuroloom", "problem", what, f"Install neuroloom {version} there. {PYTHON_FIX}")
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
        yield unseen(trial, paths, trouble)
    if not troubles:
        first, *more = (place.path for place in here.places)
        what = f"{first} and {len(more)} more places are" if more else f"{first} is"
        yield Check("project", "ok", f"{what} the same there")


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


def unseen(trial: Trial, paths: list[str], trouble: str = _MISSING) -> Check:
    """Places that a node does not see as they are.

    Args:
        trial: The job that looked.
        paths: Theirs.
        trouble: What they are instead.
    """
    nodes = f"on the nodes of {trial.partition}"
    fix = f"Mount the disk of {paths[0]} {nodes}, under the same path, or move it to a disk that they see."
    if trial.job.container is not None:
        fix += ' In a container it must be bound, too: `container_options`, such as "--bind=/data".'
    if "writable" in trouble:
        fix = f"Have it mounted for writing {nodes}, or give your user the right to write there."
    return Check("project", "problem", f"{', '.join(paths)} {'are' if len(paths) > 1 else 'is'} {trouble}.", fix)


def disk_checks(disk: dict[str, Any]) -> Iterator[Check]:
    """What follows from how fast a file was written; nothing where its folder is not there, which is told elsewhere.

    Args:
        disk: As `probe.write_speed` tells it.
    """
    if "error" in disk:
        if "No such file" not in disk["error"]:
            what = f"No file of {WRITE_MEGABYTES} MB could be written: {disk['error']}."
            yield Check(
                "write speed", "problem", what, "Make room on the disk of the project, or ask for a larger quota."
            )
        return
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
    if torch.get("computes"):
        names = ", ".join(seen or torch["names"])
        return Check("GPU", "ok", f"{names}; PyTorch {torch['torch']} computes on it")
    if not seen and not torch.get("count"):
        why = _because(devices.get("nvidia_smi") or devices.get("error"))
        fix = "Choose a partition with GPUs, or another `gpu_option`; or the driver of GPUs is missing there."
        return Check("GPU", "problem", f"None is found, although {trial.job.gpus} was asked for{why}.", fix)
    names = ", ".join(seen or torch["names"])
    if "torch" in torch and torch["cuda"] is None:
        what = f"{names}, but PyTorch {torch['torch']} is built without CUDA."
        return Check("GPU", "problem", what, "Install a PyTorch with CUDA there.")
    fix = "Use a PyTorch that goes with this driver, or a newer driver."
    return Check("GPU", "problem", f"{names}, but PyTorch cannot use it{_because(torch.get('error'))}.", fix)


def _because(why: str | None) -> str:
    return f" ({why})" if why else ""


def unreachable(outcome: Outcome, error: str) -> Check:
    """A network on which a node does not find this machine.

    Args:
        outcome: Of its job.
        error: What it was told; empty if that is not known.
    """
    said = f": {error}" if error else ""
    return Check(
        "network",
        "problem",
        f"The node cannot connect to this machine at {outcome.address}{said}.",
        "Set `host` of the profile to an address of this machine that nodes reach, and let them connect to all its "
        "ports.",
    )
