"""On which line of a TOML text each key stands, so that an error can point at it."""

from __future__ import annotations

import re
from collections import defaultdict

Location = tuple[str | int, ...]

_TABLE = re.compile(r"^\s*\[(?!\[)\s*([^\]]+?)\s*\]\s*(#.*)?$")
_ARRAY_TABLE = re.compile(r"^\s*\[\[\s*([^\]]+?)\s*\]\]\s*(#.*)?$")
_KEY = re.compile(r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")


def key_lines(text: str) -> dict[Location, int]:
    """Line number, from 1, of every table and key.

    Args:
        text: TOML that parses.

    Returns:
        Locations as pydantic names them, ("volumes", "train", 0, "path"), to lines. Keys inside inline tables and
        values over several lines are found at the line of their outermost key (see `line_of`).
    """
    lines: dict[Location, int] = {}
    counts: dict[Location, int] = defaultdict(int)
    table: Location = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _ARRAY_TABLE.match(line):
            name: Location = _split(match[1])
            table = (*name, counts[name])
            counts[name] += 1
            lines.setdefault(name, number)
            lines[table] = number
        elif match := _TABLE.match(line):
            table = _split(match[1])
            lines[table] = number
        elif match := _KEY.match(line):
            lines.setdefault((*table, *_split(match[1])), number)
    return lines


def line_of(lines: dict[Location, int], location: Location) -> int | None:
    """The line of a location, or of the innermost table or key around it."""
    for length in range(len(location), 0, -1):
        if location[:length] in lines:
            return lines[location[:length]]
    return None


def _split(dotted: str) -> Location:
    return tuple(
        part.strip().strip("\"'") for part in re.findall(r"""[^."']+|"[^"]*"|'[^']*'""", dotted) if part.strip()
    )
