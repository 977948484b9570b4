"""Fixtures shared by all rooms."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from benchmarks.postgres import PostgresServer

DATA = Path(os.environ.get("NEUROLOOM_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real EM volumes with ground truth; the test is skipped where there is none, and fails in CI."""
    if (DATA / "fib25-val.zarr").exists():
        return DATA
    reason = f"no real EM volumes in {DATA} (set NEUROLOOM_TEST_DATA)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def _postgres_server() -> Iterator[PostgresServer]:
    from benchmarks.postgres import PostgresServer
    from postgres_server import require_postgres

    server = PostgresServer(require_postgres(), ("fsync=off", "max_connections=50"))
    yield server
    server.remove()


@pytest.fixture
def postgres(_postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> PostgresServer:
    """A real PostgreSQL on loopback, whose credentials the environment holds."""
    monkeypatch.setenv("NEUROLOOM_POSTGRES", _postgres_server.credentials)
    return _postgres_server


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process: exit code, what it prints, and what it says on standard error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        from neuroloom.cli import main

        monkeypatch.setattr(sys, "argv", ["neuroloom", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


_LONG = [
    "volume/sample/test_blocks.py",
    "chain/test_chain.py",
    "exchange/test_gunpowder_node.py",
    "chain/test_new_project.py",
    "training/test_launch.py",
    "blockwise/test_overlap.py",
    "training/test_loop.py",
    "chain/test_setups.py",
    "agglomeration/test_stage.py",
    "chain/test_selecting.py",
    "benchmarks/test_harness.py",
    "chain/test_weights.py",
    "blockwise/test_run.py",
    "models/test_shipped_weights.py",
    "chain/test_resampling.py",
    "volume/checking/test_check.py",
    "chain/test_scoring.py",
    "prediction/test_foreign.py",
]
"""Files that compute for half a minute or more, about the longest first."""
_LONG_WAITS = [f"system/test_{name}.py" for name in ("soak", "slurm_training", "troubles", "slurm")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, and those that mostly wait, those of `system/`, among those that compute.

    Processes that run tests side by side then always have something to compute, and none has a long file at the end.
    """
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.nodeid.partition("::")[0].removeprefix("tests/"), []).append(item)

    def in_order(names: list[str], long: list[str]) -> list[str]:
        return sorted(names, key=lambda name: long.index(name) if name in long else len(long))

    waiting = in_order([name for name in files if name.startswith("system/")], _LONG_WAITS)
    others = in_order([name for name in files if name not in waiting], _LONG)
    order = []
    for place, name in enumerate(others):
        if waiting and place % 2 == 0:
            order.append(waiting.pop(0))
        order.append(name)
    items[:] = [item for name in [*order, *waiting] for item in files[name]]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests share the machine: keep torch from starting a thread per core, unless a test asks for it."""
    import torch

    torch.set_num_threads(1)
