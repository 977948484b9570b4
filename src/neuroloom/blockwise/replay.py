"""What became of a stage's blocks, runs and jobs, read from its event log and from what its workers wrote down.

    events.jsonl, workers/*.jsonl  ->  replay(folder)  ->  Replay: runs, jobs, and a row for each block

A block may be done twice: its worker was taken away after it had written, and before the master heard of it. The last
attempt counts as the block's, all others are `repeated`, so that no sum holds a block twice. Lines are read in pieces:
a million take seconds and 80 MB, 72 bytes for each block.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
from numpy.typing import NDArray

from neuroloom.blockwise.events import EVENTS
from neuroloom.files import read_json

PIECE = 4 * 2**20
"""Bytes that are read at once."""

_ROWS = 2**16
"""Of blocks that are added up at once."""

_NUMBERS = {
    **dict.fromkeys(("began", "seconds", "cpu_seconds", "gpu_busy_seconds"), "f8"),
    **dict.fromkeys(("memory", "read", "written", "gpu_memory"), "i8"),
}
_ROW = np.dtype([*_NUMBERS.items(), ("worker", "i4"), ("run", "i4")])
_SCHEMA = pa.schema(
    [("block", pa.int64()), *((name, pa.float64() if kind == "f8" else pa.int64()) for name, kind in _NUMBERS.items())]
    + [(name, pa.string()) for name in ("run", "node", "worker", "failed")]
)
_KINDS: dict[str, type | tuple[type, ...]] = {
    "block": int,
    **{name: (int, float) if kind == "f8" else int for name, kind in _NUMBERS.items()},
    **dict.fromkeys(("run", "node", "worker", "failed"), str),
}
_ENDS = ("finished", "evicted", "memory", "time", "hung", "not started", "killed")


@dataclass
class Costs:
    """What attempts at blocks cost together.

    Attributes:
        blocks: How many attempts.
        seconds: Sum of their times.
        cpu_seconds: Of processors.
        memory: Bytes of the one that took most.
        read: Bytes.
        written: Bytes.
        gpu_seconds: Sum of the times of those that used a GPU.
        gpu_busy_seconds: In which their GPU computed, of those that tell; None where none does.
        gpu_memory: Bytes of the one that took most.
    """

    blocks: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    memory: int = 0
    read: int = 0
    written: int = 0
    gpu_seconds: float = 0.0
    gpu_busy_seconds: float | None = None
    gpu_memory: int = 0

    def add(self, rows: NDArray[np.void]) -> None:
        """Add attempts.

        Args:
            rows: As in `Replay.blocks`.
        """
        if not len(rows):
            return
        self.blocks += len(rows)
        for name in ("seconds", "cpu_seconds"):
            setattr(self, name, getattr(self, name) + float(rows[name].sum()))
        if not np.isnan(rows["gpu_busy_seconds"]).all():
            self.gpu_busy_seconds = (self.gpu_busy_seconds or 0.0) + float(np.nansum(rows["gpu_busy_seconds"]))
        for name in ("read", "written"):
            setattr(self, name, getattr(self, name) + int(rows[name].sum()))
        for name in ("memory", "gpu_memory"):
            setattr(self, name, max(getattr(self, name), int(rows[name].max())))
        self.gpu_seconds += float(rows["seconds"][rows["gpu_memory"] > 0].sum())


@dataclass
class Run:
    """One run of a stage.

    Attributes:
        name: Its name.
        host: Where it was started; None where that is not known.
        process: Its number there.
        began: When, in seconds since 1970.
        last: When something happened last.
        ended: When it ended; None if it was killed, or still goes on.
        how: "done", "failed" or "interrupted"; None likewise.
        message: Why it failed.
        workers: Local worker processes; None where others were supplied.
        done_before: Blocks that were done when its first was handed out; None where it came to none.
        failed: Blocks that failed for good.
    """

    name: str
    host: str | None = None
    process: int | None = None
    began: float | None = None
    last: float = 0.0
    ended: float | None = None
    how: str | None = None
    message: str | None = None
    workers: int | None = None
    done_before: int | None = None
    failed: list[int] = field(default_factory=list)


@dataclass
class Job:
    """One job of a cluster.

    Attributes:
        name: "12_3": of array 12, number 3.
        run: The name of the run that it was submitted by.
        state: "waiting", "running", or how it ended: "finished", "evicted", "memory", "time", "hung", "not started",
            "killed", "sent away"; "ended", by itself or cancelled, with the run.
        node: Where it runs, or ran last.
        cpus, gpus: That it asked for.
        seconds: That it was seen running.
        evictions: How often its machine was taken away.
        done: Blocks, as its worker told last.
        started: Since when it runs, in seconds since 1970.
        unwanted: Whether it was cancelled by the run.
        measured: SLURM's own figures, one for each time that it ran; empty where it keeps none.
    """

    name: str
    run: str
    state: str = "waiting"
    node: str | None = None
    cpus: int = 0
    gpus: int = 0
    seconds: float = 0.0
    evictions: int = 0
    done: int = 0
    started: float | None = None
    unwanted: bool = False
    measured: list[dict[str, Any]] = field(default_factory=list)

    def stop(self, state: str, at: float) -> None:
        """It runs no more.

        Args:
            state: What it is now.
            at: When, in seconds since 1970.
        """
        if self.started is not None:
            self.seconds += max(0.0, at - self.started)
        self.state, self.started = state, None

    def end_with(self, run: Run) -> None:
        """Its run has ended, if that was not known before.

        Args:
            run: Whose it is.
        """
        if self.state in ("waiting", "running"):
            self.stop("ended", run.last)


@dataclass
class Replay:
    """What became of a stage.

    Attributes:
        total: Blocks in all.
        blocks: A row for each block: when its last attempt `began`, what that cost, and the places of its `worker` and
            `run` in `workers` and `runs`; `began` is 0 where nobody has told that the block is done.
        workers: Each a name, a tab, and its node; a job that went back to the queue may come to another node.
        runs: In their order.
        jobs: By name.
        repeated: What blocks cost that were done once more.
        failed: What attempts cost that failed.
        left_out: Nodes where blocks failed.
        damaged: Lines that cannot be read.
    """

    total: int
    blocks: NDArray[np.void]
    workers: list[str] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    repeated: Costs = field(default_factory=Costs)
    failed: Costs = field(default_factory=Costs)
    left_out: list[str] = field(default_factory=list)
    damaged: int = 0

    @property
    def told(self) -> NDArray[np.bool_]:
        """Of each block, whether a worker told that it is done."""
        return np.asarray(self.blocks["began"] > 0)

    @property
    def costs(self) -> Costs:
        """What the blocks cost that are done, each counted once."""
        costs = Costs()
        for begin in range(0, self.total, _ROWS):
            rows = self.blocks[begin : begin + _ROWS]
            costs.add(rows[rows["began"] > 0])
        return costs

    @property
    def median_seconds(self) -> float | None:
        """Of a block; None where none is done."""
        return float(np.median(self.blocks["seconds"][self.told])) if self.told.any() else None

    @property
    def slowest(self) -> tuple[int, float] | None:
        """The block that took longest, and its seconds; None where none is done."""
        if not self.told.any():
            return None
        block = int(np.argmax(self.blocks["seconds"]))
        return block, float(self.blocks["seconds"][block])

    @property
    def evictions(self) -> int:
        """How often a machine was taken away from a job."""
        return sum(job.evictions for job in self.jobs.values())

    def done_in(self, run: Run) -> dict[str, int]:
        """How many blocks were done in a run by each worker, named as in `workers`.

        Args:
            run: One of `runs`.
        """
        theirs = self.blocks["worker"][self.told & (self.blocks["run"] == self.runs.index(run))]
        counts = np.bincount(theirs, minlength=len(self.workers))
        return {name: int(count) for name, count in zip(self.workers, counts, strict=True) if count}


def replay(folder: Path) -> Replay:
    """Read what became of a stage; what is just being written is left out.

    Args:
        folder: The stage's; it has a `stage.json`.

    Raises:
        UserError: `stage.json` is damaged.
    """
    parameters = read_json(folder / "stage.json")["parameters"]
    total = math.prod(-(-s // b) for s, b in zip(parameters["shape"], parameters["block_shape"], strict=True))
    found = Replay(total, np.zeros(total, _ROW))
    runs: dict[str, Run] = {}
    for event in _events(folder / EVENTS, found):
        try:
            _happened(event, found, runs)
        except (KeyError, TypeError, ValueError):
            found.damaged += 1
    found.runs = sorted(runs.values(), key=lambda run: run.began or 0.0)
    for file in sorted((folder / "workers").glob("*.jsonl")):
        for lines in _pieces(file):
            table, damaged = _parsed(lines, total)
            found.damaged += damaged
            _count(table, found)
    return found


def _events(file: Path, found: Replay) -> Iterator[dict[str, Any]]:
    for lines in _pieces(file):
        for line in lines.splitlines():
            event = _object(line)
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
    blocks = table["block"].to_numpy()
    rows = np.zeros(len(blocks), _ROW)
    for name in _NUMBERS:
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


def _pieces(file: Path) -> Iterator[bytes]:
    """Whole lines of a file, many at once."""
    rest = b""
    try:
        with open(file, "rb") as opened:
            while read := opened.read(PIECE):
                whole, newline, after = (rest + read).rpartition(b"\n")
                rest = after
                if newline:
                    yield whole + newline
    except FileNotFoundError:
        return


def _parsed(lines: bytes, total: int) -> tuple[pa.Table, int]:
    """Lines of costs as a table, and how many of them are none."""
    try:
        table = _read(lines)
    except pa.ArrowInvalid:
        table = _read(b"".join(line for line in lines.splitlines(keepends=True) if _is_cost(line)) or b"{}\n")
    fits = [pc.greater_equal(table["block"], 0), pc.less(table["block"], total), table["began"].is_valid()]
    kept = table.filter(pc.and_(pc.and_(fits[0], fits[1]), fits[2]))
    return kept, lines.count(b"\n") - len(kept)


def _read(lines: bytes) -> pa.Table:
    table = pyarrow.json.read_json(
        io.BytesIO(lines),
        read_options=pyarrow.json.ReadOptions(block_size=2**20),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=_SCHEMA, unexpected_field_behavior="ignore"),
    )
    for name in ("run", "node", "worker"):
        table = table.set_column(table.column_names.index(name), name, table[name].fill_null("?"))
    return table


def _is_cost(line: bytes) -> bool:
    content = _object(line)
    return content is not None and all(
        content.get(name) is None or isinstance(content[name], kinds) for name, kinds in _KINDS.items()
    )


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
