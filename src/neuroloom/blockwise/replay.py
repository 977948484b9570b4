"""What became of a stage's blocks, runs and jobs, read from its event log and from what its workers wrote down.

    events.jsonl, workers/*.jsonl  ->  replay(folder)  ->  Replay: runs, jobs, and a row for each block

Lines are read in pieces: a million take seconds and 80 MB, 72 bytes for each block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from neuroloom.blockwise.cost_lines import NUMBERS, ROW, as_object, parsed, pieces
from neuroloom.blockwise.events import EVENTS
from neuroloom.blockwise.history import Job, Replay, Run
from neuroloom.blockwise.stage import described_grid

_ENDS = ("finished", "evicted", "memory", "time", "no room", "hung", "not started", "killed")


def replay(folder: Path) -> Replay:
    """Read what became of a stage; what is just being written is left out.

    Args:
        folder: The stage's; it has a `stage.json`.

    Raises:
        UserError: `stage.json` is damaged.
    """
    total = math.prod(described_grid(folder / "stage.json"))
    found = Replay(total, np.zeros(total, ROW))
    runs: dict[str, Run] = {}
    for event in _events(folder / EVENTS, found):
        try:
            _happened(event, found, runs)
        except (KeyError, TypeError, ValueError):
            found.damaged += 1
    found.runs = sorted(runs.values(), key=lambda run: run.began or 0.0)
    for file in sorted((folder / "workers").glob("*.jsonl")):
        for lines in pieces(file):
            table, damaged = parsed(lines, total)
            found.damaged += damaged
            _count(table, found)
    return found


def _events(file: Path, found: Replay) -> Iterator[dict[str, Any]]:
    for lines in pieces(file):
        for line in lines.splitlines():
            event = as_object(line)
            if event is not None and isinstance(event.get("event"), str):
                yield event
            else:
                found.damaged += 1


def _happened(event: dict[str, Any], found: Replay, runs: dict[str, Run]) -> None:
    """Let one event have its consequences."""
    what, at, name = event["event"], float(event["time"]), str(event["run"])
    run = runs.setdefault(name, Run(name))
    run.last = at
    job = found.jobs.setdefault(event["job"], Job(event["job"], name)) if "job" in event else None
    if what == "run began":
        run.began, run.host, run.process, run.workers = at, event["host"], event["process"], event["workers"]
        for other in found.jobs.values():  # of a run that was killed
            other.end_with(runs[other.run])
    elif what == "blocks began":
        run.done_before = event["done"]
    elif what == "block failed":
        run.failed.append(event["block"])
    elif what == "run ended":
        run.ended, run.how, run.message = at, event["how"], event["message"]
    elif what == "submitted":
        for number in range(event["jobs"]):
            asked = f"{event['array']}_{number}"
            found.jobs[asked] = Job(asked, name, cpus=event["cpus"], gpus=event["gpus"])
    elif what in ("sent away", "no spot machines"):
        for unwanted in event["jobs"]:
            found.jobs[unwanted].unwanted = True
    elif what == "node left out":
        found.left_out.append(event["node"])
        for other in found.jobs.values():
            other.unwanted |= other.state == "running" and other.node == event["node"]
    elif what == "ended":  # what still waited or ran was cancelled
        for other in found.jobs.values():
            if other.run == name:
                other.end_with(run)
    elif job is not None and what == "started":
        job.state, job.started, job.node = "running", at, event["node"]
    elif job is not None and what == "requeued":
        job.evictions += 1
        job.stop("waiting", at)
    elif job is not None and what == "measured":
        job.measured.append({key: event[key] for key in event.keys() - {"time", "run", "event", "job"}})
    elif job is not None and what in _ENDS:
        job.node, job.done = event["node"] or job.node, event.get("done", job.done)
        cancelled = what == "evicted" and job.unwanted
        job.evictions += what == "evicted" and not cancelled
        job.stop("sent away" if cancelled else what, at)


def _count(table: pa.Table, found: Replay) -> None:
    """Give each block its last attempt, and add up the others."""
    import pyarrow.compute as pc  # takes a while to load, and many commands read no costs

    blocks = table["block"].to_numpy()
    rows = np.zeros(len(blocks), ROW)
    for name in NUMBERS:
        numbers = table[name].to_numpy()  # those that are null as NaN
        rows[name] = numbers if name == "gpu_busy_seconds" else np.nan_to_num(numbers)
    rows["worker"] = _numbered(pc.binary_join_element_wise(table["worker"], table["node"], "\t"), found.workers)
    names = [run.name for run in found.runs]
    rows["run"] = _numbered(table["run"], names)
    found.runs += [Run(name) for name in names[len(found.runs) :]]
    failed = table["failed"].is_valid().to_numpy()
    found.failed.add(rows[failed])
    blocks, rows = blocks[~failed], rows[~failed]
    order = np.argsort(rows["began"], kind="stable")[::-1]
    newest = order[np.unique(blocks[order], return_index=True)[1]]
    others = np.ones(len(blocks), bool)
    others[newest] = False
    found.repeated.add(rows[others])
    blocks, rows = blocks[newest], rows[newest]
    before = found.blocks[blocks]
    later = rows["began"] > before["began"]
    found.repeated.add(before[later & (before["began"] > 0)])
    found.repeated.add(rows[~later])
    found.blocks[blocks[later]] = rows[later]


def _numbered(names: pa.ChunkedArray, known: list[str]) -> NDArray[np.int64]:
    """Places of names in a list of those that are known, to which others are added."""
    encoded = names.combine_chunks().dictionary_encode()
    places = []
    for name in encoded.dictionary.to_pylist():
        if name not in known:
            known.append(name)
        places.append(known.index(name))
    return np.asarray(places, np.int64)[encoded.indices.to_numpy()]
