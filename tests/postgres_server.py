"""A real PostgreSQL for tests: on loopback, with a password, thrown away at the end."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest

PASSWORD = "never-to-be-seen"


def require_postgres() -> Path:
    """The folder of PostgreSQL's programs, installed where root may; without them tests are skipped, and fail in CI."""
    for _ in range(2):
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: float(path.split("/")[4]))
        if found:
            return Path(found[-1]).parent
        if initdb := shutil.which("initdb"):
            return Path(initdb).resolve().parent
        if os.geteuid() == 0 and shutil.which("apt-get"):
            configuration = Path("/etc/postgresql-common/createcluster.conf")
            if not configuration.exists():  # the system's own server is not wanted
                configuration.parent.mkdir(exist_ok=True)
                configuration.write_text("create_main_cluster = false\n")
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            for command in (
                ["apt-get", "update", "-qq"],
                ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "postgresql"],
            ):
                subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False, timeout=500)
    reason = "no PostgreSQL (install the package `postgresql`)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class PostgresServer:
    """A server of its own; made by the fixture `postgres`.

    Attributes:
        credentials: What `NEUROLOOM_POSTGRES` is to be.
    """

    def __init__(self) -> None:
        self.programs = require_postgres()
        self.folder = Path(tempfile.mkdtemp(prefix="neuroloom-postgres-"))
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.credentials = f"postgresql://tester:{PASSWORD}@127.0.0.1:{self.port}"
        (self.folder / "password").write_text(PASSWORD)
        (self.folder / "password").chmod(0o644)
        options = ["-A", "scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C", f"--pwfile={self.folder}/password"]
        self._run("initdb", "-D", f"{self.folder}/data", "-U", "tester", *options)
        self.start()

    def address(self, database: str) -> str:
        """The address of a database, as it stands in a project file; it is made where it is not there."""
        with psycopg.connect(f"{self.credentials}/postgres", autocommit=True) as connection:
            if not connection.execute("SELECT FROM pg_database WHERE datname = %s", (database,)).fetchone():
                connection.execute(f'CREATE DATABASE "{database}"')
        return f"postgresql://127.0.0.1:{self.port}/{database}"

    def start(self, settings: Sequence[str] = ()) -> None:
        """Start the server, and wait until it answers."""
        options = [
            f"-p {self.port}",
            *(f"-c {name}" for name in ("listen_addresses=127.0.0.1", "fsync=off", "max_connections=50", *settings)),
            f"-c unix_socket_directories={self.folder}",
        ]
        self._run(
            "pg_ctl", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", "-w", "-o", " ".join(options), "start"
        )

    def stop(self) -> None:
        """Stop the server at once, as if its machine had gone."""
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "-w", "stop")

    def remove(self) -> None:
        """Stop the server, and delete what it kept."""
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "-w", "stop", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str, check: bool = True) -> None:
        command = [str(self.programs / program), *arguments]
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=check, timeout=60, cwd="/")
