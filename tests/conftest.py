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


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests share the machine: keep torch from starting a thread per core, unless a test asks for it."""
    import torch

    torch.set_num_threads(1)
