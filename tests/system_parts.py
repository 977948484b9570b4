"""Programs that tests drive and the package does not bring: installed where root may, else done without."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest


def find_program(*names: str) -> str | None:
    """The path of the first program that is there, daemons included."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def missing(programs: tuple[str, ...]) -> list[str]:
    """Programs that are not there."""
    return [program for program in programs if find_program(program) is None]


def install(*packages: str) -> None:
    """Install packages of Debian, where root may and there are any; whether that worked is for the caller to see."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    patient = ["apt-get", "-o", "DPkg::Lock::Timeout=300"]
    with (Path(tempfile.gettempdir()) / "neuroloom-tests-install.lock").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
            subprocess.run([*patient, *command], env=environment, stdout=subprocess.DEVNULL, check=False, timeout=500)


def require(programs: tuple[str, ...], *packages: str) -> None:
    """Programs, installed first where root may; without them tests are skipped, and fail in CI."""
    if missing(programs):
        install(*packages)
    if missing(programs):
        names = " and ".join(f"`{package}`" for package in packages)
        do_without(f"no {', '.join(missing(programs))} (install {names})")


def do_without(reason: str) -> NoReturn:
    """Skip the test; in CI, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
