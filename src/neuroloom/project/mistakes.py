"""Mistakes in a project file, each told in one sentence with its line, what was expected and the nearest right word."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError

from neuroloom.project.parameters import Parameters, model_in
from neuroloom.project.toml_lines import Location, line_of

Problem = tuple[Location, str]
"""Where in the file, ("volumes", "train", 0, "path"), and one sentence on what is wrong."""


def list_problems(file: Path, problems: list[str]) -> str:
    """One message for all mistakes in a file."""
    if len(problems) == 1:
        return f"{file}, {problems[0]}"
    return f"{file} has {len(problems)} mistakes:\n" + "\n".join(f"  {problem}" for problem in problems)


def at_line(lines: dict[Location, int], location: Location, message: str) -> str:
    """A message with the line it is about."""
    line = line_of(lines, location)
    return f"line {line}: {message}" if line else message


def explain(error: ValidationError, lines: dict[Location, int], model: type[BaseModel] = Parameters) -> list[str]:
    """One sentence for each mistake that the models found, with its line."""
    return [_explain(problem, lines, model) for problem in _innermost(error.errors())]


def _innermost(problems: Sequence[Any]) -> list[Any]:
    """One problem for each place: a wrong entry makes its list wrong too, a choice of types is wrong once for each."""
    places = [tuple(part for part in problem["loc"] if not _is_union_branch(part)) for problem in problems]
    return [
        problem
        for number, (problem, place) in enumerate(zip(problems, places, strict=True))
        if place not in places[:number]
        and not any(len(other) > len(place) and other[: len(place)] == place for other in places)
    ]


def _explain(problem: Any, lines: dict[Location, int], model: type[BaseModel]) -> str:
    location = tuple(part for part in problem["loc"] if not _is_union_branch(part))
    name = _dotted(location)
    found = problem["input"]
    if problem["type"] == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.4)
        hint = f"did you mean `{near[0]}`?" if near else f"expected one of {', '.join(known)}."
        return at_line(lines, location, f"unknown key `{name}`; {hint}")
    if problem["type"] == "missing":
        return at_line(lines, location[:-1], f"`{name}` is missing ({_description(model, location)}).")
    if problem["type"] == "literal_error":
        expected = str(problem["ctx"]["expected"])
        near = difflib.get_close_matches(
            str(found), [e.strip("' ") for e in expected.replace(" or ", ",").split(",")], 1
        )
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return at_line(lines, location, f"`{name}` is {found!r}; expected {expected}{hint}")
    if problem["type"] == "string_pattern_mismatch":
        return at_line(
            lines, location, f"`{name}` is {found!r}; expected letters, digits, dots, dashes and underscores."
        )
    reason = str(problem["msg"])
    if problem["type"] == "value_error":
        return at_line(lines, location, f"`{name}`: {reason.removeprefix('Value error, ')}.")
    reason = reason.removeprefix("Input should be ").replace("a valid tuple", "a list in [ ]")
    return at_line(
        lines, location, f"`{name}` is {_short(found)}; expected {reason} ({_description(model, location)})."
    )


def _is_union_branch(part: str | int) -> bool:
    return isinstance(part, str) and ("[" in part or part.startswith(("literal", "constrained", "function-")))


def _dotted(location: Location) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _model_at(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    named = False  # whether the part is a name that the user gave, of an entry in a table of entries
    for part in location:
        if current is None or isinstance(part, int):
            continue
        if named:
            named = False
            continue
        field = next((f for n, f in current.model_fields.items() if (f.alias or n) == part), None)
        current = None if field is None else model_in(field.annotation)
        named = field is not None and get_origin(field.annotation) is dict
    return current


def _fields_at(model: type[BaseModel], location: Location) -> list[str]:
    found = _model_at(model, location)
    return [field.alias or name for name, field in found.model_fields.items()] if found else []


def _description(model: type[BaseModel], location: Location) -> str:
    names = [part for part in location if isinstance(part, str)]
    parent = _model_at(model, tuple(names[:-1]))
    for name, field in parent.model_fields.items() if parent else ():
        if (field.alias or name) == names[-1]:
            return field.description or f"section [{names[-1]}]"
    return "see the reference of the project file"
