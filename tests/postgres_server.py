"""A real PostgreSQL for tests, installed where root may."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.postgres import find_programs
from system_parts import do_without, install


def require_postgres() -> Path:
    """The folder of its programs, installed first where root may; without them tests are skipped, and fail in CI."""
    if find_programs() is None:
        configuration = Path("/etc/postgresql-common/createcluster.conf")
        if os.geteuid() == 0 and not configuration.exists():  # Debian would start a server that nobody wants
            configuration.parent.mkdir(exist_ok=True)
            configuration.write_text("create_main_cluster = false\n")
        install("postgresql")
    return find_programs() or do_without("no PostgreSQL (install the package `postgresql`)")
