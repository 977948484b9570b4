"""A real PostgreSQL for tests, installed where root may."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.postgres import find_programs


def require_postgres() -> Path:
    """The folder of its programs, installed first where root may; without them tests are skipped, and fail in CI."""
    found = find_programs()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        configuration = Path("/etc/postgresql-common/createcluster.conf")
        if not configuration.exists():  # Debian would start a server that nobody wants
            configuration.parent.mkdir(exist_ok=True)
            configuration.write_text("create_main_cluster = false\n")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "postgresql"]
        for command in (["apt-get", "update", "-qq"], install):
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False, timeout=500)
        found = find_programs()
    if found is not None:
        return found
    reason = "no PostgreSQL (install the package `postgresql`)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
