"""A worker process that another machine may run: it joins a stage's master, does blocks until there are none, and ends.

    python -m neuroloom.blockwise.worker STAGE_JSON --run NAME        DAISY_CONTEXT says where the master listens

What it is to do stands in the stage's `stage.json`; a worker of another version, which would give other results,
refuses. It tells in `workers/<id>.json` of the stage's folder which block it has, so that whoever supplies workers
knows what a worker was at when it was killed, and writes down what each block cost (`accounts`).

The master gives signs of life in the stage's lock. Where these stop, or another run has taken the lock, the worker ends
within `PATIENCE` seconds, in the middle of a block too.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import daisy.v2

from neuroloom.blockwise.accounts import Accounts
from neuroloom.blockwise.allocation import keep_freed_memory
from neuroloom.blockwise.connecting import connect
from neuroloom.blockwise.failures import failure_file, read_failure, record_exception, record_no_input
from neuroloom.blockwise.overlap import overlap_of
from neuroloom.blockwise.stage import Block, Stage, block_of, load_stage
from neuroloom.errors import UserError
from neuroloom.files import BEAT_SECONDS, is_full_disk, read_owner, tell

PATIENCE = 40.0
"""Seconds without a sign of life of the master after which a worker ends."""

CONNECT_SECONDS = 60.0
"""To reach the master."""

PAUSE_SECONDS = 1.0
"""Between two looks whether a stage that is ahead of those that read it may go on."""

UNREACHABLE, MASTER_GONE, NO_ROOM = 3, 4, 5
"""Exit codes."""


class Worker:
    """One worker process.

    Attributes:
        stage: What it does blocks of.
        run: The name of the run that it belongs to.
        node: The machine it runs on.
        name: Of its files: the job that runs it, or machine and process.
        memory_gb: What it may take, if that is limited.
        too_small: Whether it has met a block that needs more.
    """

    def __init__(self, stage: Stage, run: str) -> None:
        self.stage, self.run = stage, run
        self.node = os.environ.get("SLURMD_NODENAME", socket.gethostname())
        array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        self.name = f"{array}_{task}" if array and task else f"{self.node}-{os.getpid()}"
        self.restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        self.memory_gb = float(os.environ.get("NEUROLOOM_MEMORY_GB", "inf"))
        self.accounts = Accounts(stage.folder, run, self.node, self.name, self.restart)
        self.done, self.too_small = 0, False

    def work(self) -> None:
        """Do blocks until there are none."""
        self._tell(None, connected=False)
        unreachable = threading.Timer(CONNECT_SECONDS, _end, (UNREACHABLE, self._unreachable))
        unreachable.daemon = True
        unreachable.start()
        client = connect()
        unreachable.cancel()
        if not client.connected:
            print("The master has ended.", flush=True)
            return
        print(f"Connected with {client.host}:{client.port} from {self.node}.", flush=True)
        while True:
            self._tell(None)
            while overlap_of(self.stage).is_ahead():
                time.sleep(PAUSE_SECONDS)
            try:
                acquired = client.acquire_block()
                block = acquired.__enter__()
            except (OSError, RuntimeError) as error:
                print(f"The master has ended ({error}).", flush=True)
                return
            try:
                if block is None:
                    print(f"No blocks are left; {self.done} done here.", flush=True)
                    return
                if not self._process(block_of(self.stage, block)):
                    block.status = daisy.v2.BlockStatus.FAILED
            finally:
                # an error says that the block is not done: of its bookkeeping, too
                acquired.__exit__(*sys.exc_info())
            if self.too_small:
                print(f"What is left needs more memory than the {self.memory_gb:g} GB here.", flush=True)
                return

    def _process(self, block: Block) -> bool:
        """Do a block; whether daisy shall count it as done."""
        failure = read_failure(self.stage, block.number)
        if failure.get("given_up"):
            return True
        if lost := overlap_of(self.stage).lost_input(block):
            record_no_input(self.stage, block, lost)
            return True
        if failure.get("needs_memory_gb", 0) > self.memory_gb:
            self.too_small = True  # it would take the block again and again, and others would find none
            return False
        if failure and self._leave_to_others(failure):
            time.sleep(1.0)
            return False
        self._tell(block.number)
        keep_freed_memory()
        try:
            with self.accounts.block(block.number):
                self.stage.process(block)
        except Exception as error:
            if is_full_disk(error):  # no fault of the block's, and nobody could write down that it was
                raise
            found = record_exception(self.stage, block.number, self.node, error, worker=self.name)
            print(f"Block {block.number}:\n{found['traceback']}", flush=True)
            return bool(found["given_up"])
        finally:
            (self.stage.underway / f"{block.number}.json").unlink(missing_ok=True)
        if failure:
            failure_file(self.stage, block.number).unlink(missing_ok=True)
        self.done += 1
        return True

    def _leave_to_others(self, failure: dict[str, Any]) -> bool:
        """Whether a block that has failed is better tried on another machine."""
        tried = {attempt["node"] for attempt in failure["attempts"]}
        return self.node in tried and bool(set(self._active_nodes()) - tried)

    def _active_nodes(self) -> list[str]:
        """Machines with workers of this stage, as whoever supplies them says."""
        try:
            return list(json.loads((self.stage.folder / "workers" / "nodes.json").read_text()))
        except (OSError, ValueError):
            return []

    def _tell(self, block: int | None, connected: bool = True) -> None:
        content = {
            "block": block,
            "connected": connected,
            "done": self.done,
            "node": self.node,
            "process": os.getpid(),
            "restart": self.restart,
            "run": self.run,
            "since": time.time(),
        }
        tell(self.stage.folder / "workers" / f"{self.name}.json", content)

    @property
    def _unreachable(self) -> str:
        context = daisy.Context.from_env()
        return (
            f"{self.node} cannot reach the program that hands out blocks at {context['hostname']}:{context['port']}. "
            "Set `host` of the profile to an address that the nodes know, and let them connect to all its ports."
        )


def watch_master(lock_file: Path, run: str) -> None:
    """End this process when the run that it belongs to gives no sign of life any more; does not return.

    Args:
        lock_file: The stage's.
        run: The run's name.
    """
    beat, heard = -1, time.monotonic()
    while time.monotonic() - heard < PATIENCE:
        owner = read_owner(lock_file)
        if owner and owner.get("run") != run:
            break
        if owner and owner["beat"] != beat:
            beat, heard = owner["beat"], time.monotonic()
        time.sleep(BEAT_SECONDS)
    _end(MASTER_GONE, "The master has ended, or another one has taken its place.")


def _end(code: int, message: str) -> None:
    print(message, flush=True)
    os._exit(code)


def main() -> None:
    """Be a worker; exit code 2 with a message where it cannot be one, `NO_ROOM` where the disk is full."""
    parser = argparse.ArgumentParser(prog="neuroloom.blockwise.worker", description=__doc__)
    parser.add_argument("description", type=Path, help="the stage's `stage.json`")
    parser.add_argument("--run", required=True, help="name of the run that it belongs to")
    arguments = parser.parse_args()
    try:
        stage = load_stage(arguments.description)
        threading.Thread(target=watch_master, args=(stage.folder / "lock", arguments.run), daemon=True).start()
        Worker(stage, arguments.run).work()
    except (UserError, OSError) as error:
        full = is_full_disk(error)
        if not (full or isinstance(error, UserError)):
            raise
        print(error, file=sys.stderr, flush=True)
        raise SystemExit(NO_ROOM if full else 2) from None


if __name__ == "__main__":
    main()
