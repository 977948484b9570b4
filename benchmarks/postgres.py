"""A PostgreSQL of its own on loopback, thrown away at the end."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

PASSWORD = "never-to-be-seen"


def find_programs() -> Path | None:
    """The folder of PostgreSQL's programs, the newest where Debian has several; None without any."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: float(path.split("/")[4]))
    if found:
        return Path(found[-1]).parent
    initdb = shutil.which("initdb")
    return None if initdb is None else Path(initdb).resolve().parent


class PostgresServer:
    """A running server.

    Args:
        programs: The folder of PostgreSQL's programs.
        settings: As in `postgresql.conf`, "fsync=off".

    Attributes:
        credentials: What `NEUROLOOM_POSTGRES` is to be.
    """

    def __init__(self, programs: Path, settings: Sequence[str] = ()) -> None:
        self.programs, self.settings = programs, settings
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
        import psycopg

        with psycopg.connect(f"{self.credentials}/postgres", autocommit=True) as connection:
            if not connection.execute("SELECT FROM pg_database WHERE datname = %s", (database,)).fetchone():
                connection.execute(f'CREATE DATABASE "{database}"')
        return f"postgresql://127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        settings = ["listen_addresses=127.0.0.1", f"unix_socket_directories={self.folder}", *self.settings]
        options = " ".join([f"-p {self.port}", *(f"-c {setting}" for setting in settings)])
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", "-w", "-o", options, "start")

    def stop(self, check: bool = True) -> None:
        """Stop the server at once, as if its machine had gone."""
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "-w", "stop", check=check)

    def remove(self) -> None:
        """Stop the server, and delete what it kept."""
        self.stop(check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str, check: bool = True) -> None:
        command = [str(self.programs / program), *arguments]
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=check, timeout=60, cwd="/")
