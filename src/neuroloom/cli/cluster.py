"""`neuroloom cluster`: what a cluster is like, before it is given work."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from neuroloom.chain import open_project
from neuroloom.cli.progress import LINE_EVERY
from neuroloom.cli.run import JsonOption, ProjectOption
from neuroloom.cluster.doctor import Examined, examine, examine_here
from neuroloom.cluster.visit import Tell
from neuroloom.project import find_profile

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "red")}

cluster_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@cluster_app.callback()
def cluster_command() -> None:
    """Clusters that workers come from."""


@cluster_app.command("doctor")
def doctor_command(
    profile: Annotated[str, typer.Argument(help="The profile.")],
    project: ProjectOption = Path(),
    minutes: Annotated[float, typer.Option(min=0.0, help="How long nodes are waited for.")] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Try a profile with one short job per partition: disks, network, Python, GPU. Exit code 1: there are problems."""
    opened = open_project(project)
    parameters = opened.parameters
    found = find_profile(opened.folder, parameters.profiles, parameters.cluster, profile)
    if found.kind == "local":
        examined = [examine_here(opened)]
    else:
        with _waiting() as tell:
            examined = examine(opened, profile, found, minutes, tell)
    problems = sum(one.problems for one in examined)
    if as_json:
        content = {
            "profile": profile,
            "kind": found.kind,
            "project": str(opened.folder),
            "problems": problems,
            "partitions": [one.as_dict() for one in examined],
        }
        print(json.dumps(content, indent=2))
    else:
        if found.kind == "local":
            print(f"Profile {profile} has its workers on this machine: there is nothing to submit.")
        for one in examined:
            _show(one, Console())
        print(f"{problems} problem{'s' * (problems != 1)}." if problems else "No problems.")
    raise typer.Exit(1 if problems else 0)


@contextmanager
def _waiting() -> Iterator[Tell]:
    """Shows what jobs are waited for, on standard error: as it changes in a terminal, a line now and then elsewhere."""
    console = Console(stderr=True)
    shown: dict[str, str] = {}
    told_at = 0.0

    def line(phases: dict[str, str], seconds: float) -> str:
        return "; ".join(f"{title}: {phase}" for title, phase in phases.items()) + f", {seconds:.0f} s"

    def tell(phases: dict[str, str], seconds: float) -> None:
        nonlocal shown, told_at
        if phases != shown or time.monotonic() - told_at > LINE_EVERY:
            console.print(f"  {line(phases, seconds)}", highlight=False, soft_wrap=True)
            shown, told_at = phases, time.monotonic()

    if not console.is_terminal:
        yield tell
        return
    with console.status("") as status:
        yield lambda phases, seconds: status.update(line(phases, seconds))


def _show(examined: Examined, console: Console) -> None:
    console.print(Text(examined.title, style="bold"), soft_wrap=True)
    for check in examined.checks:
        mark, colour = _MARKS[check.severity]
        line = Text.assemble((f"{mark} ", colour), (f"{check.name}: ", "bold"), check.what)
        console.print(Padding(line, (0, 0, 0, 2), expand=False))
        if check.fix:
            console.print(Padding(Text.assemble(("do: ", "dim"), check.fix), (0, 0, 0, 6), expand=False))
    if examined.log:
        console.print(Padding(Text(f"What the job wrote: {examined.log}"), (0, 0, 0, 2), expand=False))
