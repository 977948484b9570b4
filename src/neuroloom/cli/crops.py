"""`neuroloom crops`: training crops to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuroloom.chain import Chain, open_project
from neuroloom.cli.run import ProjectOption


def crops_command(
    project: ProjectOption = Path(),
    number: Annotated[int, typer.Option(min=1, max=100, help="How many crops.")] = 6,
    seed: Annotated[int | None, typer.Option(min=0, help="Other crops than those that training begins with.")] = None,
) -> None:
    """Draw training crops as the network will see them: augmented, with labels, targets and what counts."""
    chain = Chain(open_project(project))
    drawn = chain.draw_crops(number, seed)
    for volume, ids in drawn.absent.items():
        print(f"Note: {volume} has no label {', '.join(map(str, ids))}, which its zero_ids or ignore_ids name.")
    print(f"Wrote {drawn.path}.")
    print(
        "Colours should end at membranes; what is red in the last column is not learned from. Turns, bends and steps, "
        "dark, black and blurred sections are meant: [training.augmentation] in the project file says how many."
    )
