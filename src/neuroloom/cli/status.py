"""`neuroloom status`: what is done, who is at it, what it has cost, and why something will be done again."""

from __future__ import annotations

import json
from pathlib import Path

from neuroloom.blockwise.standing import Account, RunNow, Standing, standing
from neuroloom.chain import Chain, Step, all_steps, open_project
from neuroloom.cli.progress import duration
from neuroloom.cli.run import JsonOption, ProjectOption, print_plan, print_results, step_json

WIDTH = 120
"""Characters of a line about costs."""


def status_command(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Say what is done and what is not, what blocks have cost, who works on them, and why something will be done again.

    It may be called at any time, also while a run is at work.
    """
    chain = Chain(open_project(project))
    steps = all_steps(chain)
    found = {step.name: standing(step.folder) for step in steps if _has_blocks(step) and step.folder is not None}
    if as_json:
        content = {
            "project": str(chain.project.folder),
            "threshold": chain.project.threshold,
            "steps": [
                {**step_json(step), "blocks": found[step.name].as_json() if step.name in found else None}
                for step in steps
            ],
        }
        print(json.dumps(content, indent=2))
    else:
        print_plan(chain, steps, {name: lines(stage) for name, stage in found.items()})
        print_results(chain)


def _has_blocks(step: Step) -> bool:
    return step.folder is not None and (step.folder / "stage.json").exists()


def lines(stage: Standing) -> list[str]:
    """What is to be said of a stage: how far it is and who works on it, then what it has cost."""
    told = [] if stage.done == stage.total and stage.run is None else [_progress(stage)]
    return [*told, *_costs(stage.account)]


def _progress(stage: Standing) -> str:
    words = f"{stage.done} of {stage.total} blocks are done"
    if stage.failed:
        more = ", ..." if len(stage.failed) > 5 else ""
        words += f", {len(stage.failed)} failed ({', '.join(map(str, stage.failed[:5]))}{more})"
    return f"{words}; {'nobody is at it' if stage.run is None else _run(stage.run)}"


def _run(run: RunNow) -> str:
    if not run.alive:
        return f"the run of {run.since} on {run.host} gives no sign of life"
    words = f"{run.workers_now} worker{'s' * (run.workers_now != 1)} now"
    if run.waiting:
        words += f", {run.waiting} job{'s' * (run.waiting != 1)} in the queue"
    return f"{words}, run on {run.host} since {run.since}"


def _costs(account: Account) -> list[str]:
    """One line, or two where one would be long."""
    if account.block_seconds is None:
        return []
    words = [_hours(account.core_hours, "core")]
    if account.gpu_hours:
        told = account.gpu_busy_hours
        busy = "" if told is None else f" ({told / account.gpu_hours:.0%} busy)"
        words.append(_hours(account.gpu_hours, "GPU") + busy)
    words += [
        f"{size(account.bytes_read)} read",
        f"{size(account.bytes_written)} written",
        f"{size(max(account.block_memory, account.block_gpu_memory))} of memory at most",
    ]
    of_blocks = [
        f"{_time(account.block_seconds)} a block (slowest {account.slowest_block}: {_time(account.slowest_seconds)})",
    ]
    for count, what in (
        (account.evictions, "machine{} taken away"),
        (account.repeated_blocks, "block{} done twice"),
        (account.failed_attempts, "attempt{} failed"),
    ):
        if count:
            of_blocks.append(f"{count} {what.format('s' * (count != 1))}")
    line = ", ".join([*words, *of_blocks])
    return [line] if len(line) <= WIDTH else [", ".join(words), ", ".join(of_blocks)]


def _hours(hours: float, of: str) -> str:
    return f"{hours:.3g} {of}-hours" if hours >= 0.1 else f"{3600 * hours:.2g} {of}-seconds"


def size(count: int) -> str:
    """Bytes for people: "3.1 GB"."""
    value, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"


def _time(seconds: float | None) -> str:
    return f"{seconds:.2g} s" if seconds is not None and seconds < 10 else duration(seconds or 0.0)
