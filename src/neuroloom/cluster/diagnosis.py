"""What follows from what the doctor's jobs tell: a sentence for each thing looked at, and one that puts it right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from neuroloom.cluster.answers import Failed
from neuroloom.cluster.findings import PYTHON_FIX, node_checks, unreachable, unseen
from neuroloom.cluster.outcome import Check, Here, Outcome
from neuroloom.cluster.trial import PYTHON_FAILED, SETUP_ENDED, Trial, setup_line

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
        checks.append(_no_python(trial, outcome))
        if not outcome.by_file:
            checks.append(unseen(trial, [here.places[0].path]))
        if not outcome.by_network:
            checks.append(unreachable(outcome, ""))
        return checks
    return [*checks, *node_checks(trial, outcome, here)]


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
    if outcome.state is not None and (outcome.state.is_pending or outcome.state.is_running):
        state = "TIMEOUT"  # the doctor's own patience is hardly longer than SLURM's
    where = f"The job ran on {outcome.node or 'a node'}"
    if state == "COMPLETED" or code in (SETUP_ENDED, PYTHON_FAILED):
        if code == SETUP_ENDED:
            fix = f"Run the lines of `setup` of profile {here.profile!r} by hand on that node."
            yield Check(
                "set-up", "problem", "The set-up lines end the script, with an error that it could not tell.", fix
            )
        elif code == PYTHON_FAILED:
            yield Check("python", "problem", f"{_program(trial)} does not run there.", PYTHON_FIX)
        yield replace(unseen(trial, [here.places[0].path]), what=f"{where}, but what it wrote is not seen here.")
        yield unreachable(outcome, "")
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


def _no_python(trial: Trial, outcome: Outcome) -> Check:
    failed = outcome.python
    if failed is None and outcome.setup is not None and outcome.setup.ended:
        return Check("python", "problem", "It was not tried, since the set-up lines ended the script.")
    if failed is None:
        return Check("python", "problem", "It did not tell what it found out.", "Try again.")
    fix = PYTHON_FIX
    if trial.job.container is not None:
        program = trial.job.container_program
        fix = f"See that {program} is there (`setup` may load it), and that the image has a Python with neuroloom."
    if failed.code in (126, 127):
        return Check("python", "problem", f"{_program(trial)} does not run there{_last(failed)}", fix)
    if failed.code > 128:
        fix = "It was killed, perhaps for memory: set `memory_gb` higher."
    what = f"{_program(trial)} runs there, but fails with exit code {failed.code}{_last(failed)}"
    return Check("python", "problem", what, fix)


def _last(failed: Failed) -> str:
    """The last thing that was written, without the place where the script lies."""
    lines = failed.log.splitlines()
    said = re.sub(r"^\S*slurm_script: (line \d+: )?", "", lines[-1].strip()) if lines else ""
    return f": {said}" if said else "."
