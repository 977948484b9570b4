"""A real SLURM that keeps accounts, as clusters with `sacct` do: with a database of its own, in the same folder."""

from __future__ import annotations

import contextlib
import subprocess

from tests.system.slurm import Slurm, free_ports

PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db", "sacct")

_CONFIGURATION = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
DbdHost=localhost
DbdPort={port}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=slurm
StoragePass=slurm
StorageLoc=accounts
"""

_GRANT = (
    "create database accounts; create user slurm@'127.0.0.1' identified by 'slurm'; "
    "grant all on accounts.* to slurm@'127.0.0.1';"
)


class AccountedSlurm(Slurm):
    """The running daemons, with those of accounts."""

    database: subprocess.Popen[bytes] | None = None

    def before_controller(self) -> None:
        """Start the database and what SLURM talks to it with, and have the controller use it."""
        port, database = free_ports(2)
        data, socket = self.folder / "database", self.folder / "database.socket"
        self.call("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db")
        with (self.folder / "database.log").open("wb") as log:
            options = [f"--datadir={data}", f"--socket={socket}", f"--port={database}", "--bind-address=127.0.0.1"]
            command = ["mariadbd", "--no-defaults", "--user=root", "--innodb-buffer-pool-size=64M", *options]
            self.database = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)
        self.wait_for(socket.exists, 30)
        self.call("mariadb", "--no-defaults", f"--socket={socket}", "--execute", _GRANT)
        file = self.folder / "slurmdbd.conf"
        file.write_text(_CONFIGURATION.format(folder=self.folder, port=port, database=database))
        file.chmod(0o600)
        slurm_file = self.folder / "slurm.conf"
        slurm_file.write_text(
            slurm_file.read_text().replace(
                "AccountingStorageType=accounting_storage/none",
                "AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
                f"AccountingStoragePort={port}\nAccountingStoragePass={self.folder}/munge/socket\n"
                "AccountingStorageTRES=gres/gpu",
            )
        )
        self.call("slurmdbd")
        self.wait_for(lambda: self.call("sacctmgr", "-i", "add", "cluster", "test") or True, 30)

    def stop(self) -> None:
        """As all of SLURM's, and the database."""
        super().stop()
        if self.database is not None:
            self.database.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.database.wait(10)
            self.database.kill()
            self.database.wait()
