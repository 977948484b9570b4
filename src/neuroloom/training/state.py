"""The state of a training on disk: what a stopped run goes on from.

The curve is text, for people and plots, and may be longer than the state that was saved after it: the state knows how
much of it counts.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from neuroloom.errors import UserError
from neuroloom.files import write_bytes, write_text
from neuroloom.networks.checkpoint import load_tensors
from neuroloom.training.job import CURVE

STATE = "state.pt"


def save_state(folder: Path, state: dict[str, Any], curve: list[dict[str, Any]]) -> None:
    """Write a state, each file atomically: if the disk is full, the previous state stays.

    Args:
        folder: The training's folder.
        state: Tensors and plain values.
        curve: All entries until now.

    Raises:
        UserError: The disk is full or the folder cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({**state, "curve_lines": len(curve)}, buffer)
    # the curve first: of a longer one the state knows how much counts
    write_text(folder / CURVE, "".join(json.dumps(entry) + "\n" for entry in curve))
    write_bytes(folder / STATE, buffer.getvalue())


def load_state(
    folder: Path, device: torch.device, take: Callable[[dict[str, Any], list[dict[str, Any]]], None]
) -> None:
    """Read the state that was saved last, if there is one.

    Args:
        folder: The training's folder.
        device: Where tensors shall lie.
        take: Called with the state and the curve that belongs to it.

    Raises:
        UserError: The state is damaged, or `take` cannot use it.
    """
    path = folder / STATE
    if not path.exists():
        return
    try:
        state = load_tensors(path.read_bytes(), device)
        lines = (folder / CURVE).read_text().splitlines()[: state["curve_lines"]]
        take(state, [json.loads(line) for line in lines])
    except Exception as error:  # whatever is wrong with the file, the way out is the same
        raise UserError(
            f"The training state {path} cannot be read ({type(error).__name__}). Delete {folder} to train again from "
            "the beginning."
        ) from error
