"""What worker processes of this machine do with the blocks that daisy hands them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from neuroloom.blockwise.accounts import Accounts
from neuroloom.blockwise.allocation import keep_freed_memory
from neuroloom.blockwise.connecting import connect
from neuroloom.blockwise.failures import record_exception
from neuroloom.blockwise.overlap import overlap_of
from neuroloom.blockwise.stage import Stage, block_of, load_stage
from neuroloom.forking import StandIn, fork_server

PAUSE_SECONDS = 0.5
"""Between two looks whether a stage that is ahead may go on."""


def local_worker(stage: Stage, run: str) -> Callable[[], None]:
    """What daisy starts for each worker of a stage on this machine.

    Args:
        stage: The stage, described.
        run: The name of the run.
    """
    if type(stage).__module__ == "__main__":  # of a script or a notebook: nobody else can import it
        return lambda: do_blocks(stage, run)
    loads = (__name__, "neuroloom.blockwise.preload", type(stage).__module__, *stage.loads)
    return StandIn(fork_server(), __name__, do_described.__name__, (str(stage.description), run), loads)


def do_described(description: str, run: str) -> None:
    """`do_blocks` of the stage that its `stage.json` describes."""
    do_blocks(load_stage(Path(description)), run)


def do_blocks(stage: Stage, run: str) -> None:
    """Do blocks of a stage until there are none; a block that raises ends the worker, and is remembered with its why.

    Args:
        stage: The stage.
        run: The name of the run.
    """
    node = socket.gethostname()
    accounts = Accounts(stage.folder, run, node, f"{node}-{os.getpid()}")
    keep_freed_memory()
    overlap, master = overlap_of(stage), os.getppid()
    client = connect()
    while True:
        with client.acquire_block() as block:
            if block is None:
                return
            while overlap.is_ahead() and os.getppid() == master:
                time.sleep(PAUSE_SECONDS)
            _process(stage, accounts, block)


def _process(stage: Stage, accounts: Accounts, block: Any) -> None:
    ours = block_of(stage, block)
    try:
        with accounts.block(ours.number):
            stage.process(ours)
    except Exception as error:
        record_exception(stage, ours.number, socket.gethostname(), error)
        raise
    finally:
        (stage.underway / f"{ours.number}.json").unlink(missing_ok=True)
