"""What is known of blocks that failed: one file for each in the stage's folder, written by whoever saw it.

    failures/block-7.json   block, write_roi, message, traceback, attempts: [{node, why}, ...], given_up, no_input

A worker writes it when a block raises, and whoever supplies workers when one was killed. It goes when the block
succeeds after all. daisy is told that a block that is given up is done, so that the rest goes on; at the end it is
taken back (`tracking.take_back`).
"""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloom.blockwise.stage import Block, Stage
from neuroloom.blockwise.tracking import done_blocks
from neuroloom.errors import UserError
from neuroloom.files import write_json

ATTEMPTS = 3
"""After how many a block is given up."""


def failure_file(stage: Stage, number: int) -> Path:
    """Where the failures of a block are told."""
    return stage.folder / "failures" / f"block-{number}.json"


def read_failure(stage: Stage, number: int) -> dict[str, Any]:
    """What is known of a block's failures; empty where it has none."""
    return _read(failure_file(stage, number))


def all_failures(stage: Stage) -> list[dict[str, Any]]:
    """What is known of all blocks that failed, in their order."""
    return failures_in(stage.folder)


def failures_in(folder: Path) -> list[dict[str, Any]]:
    """What is known of all blocks that failed of the stage in a folder, in their order."""
    files = sorted((folder / "failures").glob("block-*.json"), key=lambda file: int(file.stem[6:]))
    return [found for file in files if (found := _read(file))]


def finished_blocks(stage: Stage) -> NDArray[np.bool_]:
    """Which blocks of a stage are done and not given up, `(z, y, x)` of its grid."""
    finished = done_blocks(stage.folder / "blocks", stage.grid)
    for failure in all_failures(stage):
        if failure["given_up"]:
            finished[stage.place_of(failure["block"])] = False
    return finished


def record_exception(stage: Stage, number: int, node: str, error: Exception, **more: Any) -> dict[str, Any]:
    """Write down that a block raised; called while the exception is handled.

    Args:
        stage: The stage.
        number: The block's.
        node: Where it raised.
        error: What it raised.
        more: Other keys.

    Returns:
        What is known of the block now.
    """
    why = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    more = {"user_error": isinstance(error, UserError), "traceback": traceback.format_exc(), **more}
    return record_failure(stage, number, node, why, process=os.getpid(), **more)


def record_failure(stage: Stage, number: int, node: str, why: str, **more: Any) -> dict[str, Any]:
    """Write down that an attempt at a block failed.

    Args:
        stage: The stage.
        number: The block's.
        node: Where it failed.
        why: In a few words.
        more: Other keys.

    Returns:
        What is known of the block now.
    """
    before = read_failure(stage, number)
    attempts = [*before.get("attempts", []), {"node": node, "why": why}]
    content = {
        **_about(stage.block_at(stage.place_of(number)), why),
        **more,
        "attempts": attempts,
        "given_up": len(attempts) >= ATTEMPTS,
    }
    write_json(failure_file(stage, number), content)
    return content


def record_no_input(stage: Stage, block: Block, why: str) -> None:
    """Write down that a block cannot be done, since one that it reads was given up.

    Args:
        stage: The stage.
        block: One of its.
        why: In a few words.
    """
    content = {**_about(block, why), "attempts": [], "given_up": True, "no_input": True}
    write_json(failure_file(stage, block.number), content)


def _about(block: Block, message: str) -> dict[str, Any]:
    roi = [list(block.write_roi.begin), list(block.write_roi.end)]
    return {"block": block.number, "write_roi": roi, "user_error": False, "message": message, "no_input": False}


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
