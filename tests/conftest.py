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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the files that mostly wait, those of `system/`, among the others, the longest first.

    Processes that run tests side by side then always have something to compute, and none has a long file at the end.
    """
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.nodeid.partition("::")[0], []).append(item)
    waiting = [name for name in files if "/system/" in name]
    waiting.sort(key=lambda name: not name.endswith(("test_soak.py", "test_slurm_training.py")))
    others = [name for name in files if name not in waiting]
    step = len(others) // (len(waiting) + 1) + 1
    order = []
    for place, name in enumerate(waiting):
        order += [name, *others[place * step : (place + 1) * step]]
    order += others[len(waiting) * step :]
    items[:] = [item for name in order for item in files[name]]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests share the machine: keep torch from starting a thread per core, unless a test asks for it."""
    import torch

    torch.set_num_threads(1)
