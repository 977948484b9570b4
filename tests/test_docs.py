"""What the documentation shows works: commands and their options exist, examples of the project file are valid."""

from __future__ import annotations

import re
import runpy
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from neuroloom.cli import app
from neuroloom.project import Parameters

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
COMPLETE = {"voxel_size": [8, 8, 8], "volumes": {"train": [{"name": "train", "path": "train.zarr"}]}}
"""What an example that shows a part of the file leaves out."""


def code(page: Path, language: str) -> Iterator[str]:
    for match in re.finditer(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        yield match[1]


def commands_shown() -> list[tuple[str, str]]:
    """Name of the page and the command line, for each `neuroloom ...` in a code block or between backticks."""
    shown = []
    for page in PAGES:
        lines = [line.partition("#")[0].strip() for block in code(page, "sh") for line in block.splitlines()]
        lines += re.findall(r"`(neuroloom [a-z][^`]*)`", page.read_text())
        shown += [(page.name, line) for line in lines if line.startswith("neuroloom ")]
    return sorted(set(shown))


@pytest.mark.parametrize(("page", "line"), commands_shown())
def test_commands_exist(page: str, line: str) -> None:
    group = typer.main.get_command(app)
    words = line.split()[1:]
    if words[0] == "COMMAND":
        return
    commands = group.commands  # type: ignore[attr-defined]
    assert words[0] in commands, f"{page}: {line}"
    command = commands[words[0]]
    command = getattr(command, "commands", {}).get(" ".join(words[1:2]), command)
    known = {"--help"}.union(*([*p.opts, *p.secondary_opts] for p in command.params))
    used = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert used <= known, f"{page}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_of_the_project_file_are_valid(page: Path) -> None:
    for text in code(page, "toml"):
        given = tomllib.loads(text)
        volumes = {**COMPLETE["volumes"], **given.get("volumes", {})}  # type: ignore[dict-item]
        Parameters.model_validate({**COMPLETE, **given, "volumes": volumes})


def test_the_reference_lists_every_key_and_command() -> None:
    hooks = runpy.run_path(str(ROOT / "docs" / "hooks.py"))
    keys = hooks["project_file_keys"]()
    for name, info in Parameters.model_fields.items():
        assert f"`{info.alias or name}`" in keys or f"## `[{name}]`" in keys or f"## `[{name}.NAME]`" in keys
    assert "| `sigma_nm` | `80.0` |" in keys
    assert "## `[[volumes.train]]`" in keys
    commands = hooks["commands"]()
    for name in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert f"## `neuroloom {name}`" in commands
