"""Lines that workers wrote of what blocks cost, read in pieces as rows of numbers.

workers/*.jsonl  ->  pieces(file)  ->  parsed(lines)  ->  a table with a row for each line that is one
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json

PIECE = 4 * 2**20
"""Bytes that are read at once."""

NUMBERS = {
    **dict.fromkeys(("began", "seconds", "cpu_seconds", "gpu_busy_seconds"), "f8"),
    **dict.fromkeys(("memory", "read", "written", "gpu_memory"), "i8"),
}
ROW = np.dtype([*NUMBERS.items(), ("worker", "i4"), ("run", "i4")])
_SCHEMA = pa.schema(
    [("block", pa.int64()), *((name, pa.float64() if kind == "f8" else pa.int64()) for name, kind in NUMBERS.items())]
    + [(name, pa.string()) for name in ("run", "node", "worker", "failed")]
)
_KINDS: dict[str, type | tuple[type, ...]] = {
    "block": int,
    **{name: (int, float) if kind == "f8" else int for name, kind in NUMBERS.items()},
    **dict.fromkeys(("run", "node", "worker", "failed"), str),
}


def pieces(file: Path) -> Iterator[bytes]:
    """Whole lines of a file, many at once; none where there is no file.

    Args:
        file: What is just being written of it is left out.
    """
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


def parsed(lines: bytes, total: int) -> tuple[pa.Table, int]:
    """Lines of costs as a table, and how many of them are none.

    Args:
        lines: Whole ones.
        total: Blocks of the stage.
    """
    import pyarrow.compute as pc  # takes a while to load, and many commands read no costs

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
    content = as_object(line)
    return content is not None and all(
        content.get(name) is None or isinstance(content[name], kinds) for name, kinds in _KINDS.items()
    )


def as_object(line: bytes) -> dict[str, Any] | None:
    """What a line of JSON holds; None where it is no object."""
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
