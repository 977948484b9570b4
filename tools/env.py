"""Sets up `.venv`: Python packages, and the PyTorch build that fits this machine. Standard library only.

    python3 tools/env.py [EXTRA ...]        extras of pyproject.toml, such as dev

- A torch that is already there (in `.venv`, or in the Python that runs this) is kept.
- Without an NVIDIA GPU the CPU build is taken, with one the CUDA build.
- Nothing is done when pyproject.toml has not changed since the last time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
TORCH = "torch==2.13.0"
TORCH_RANGE = "torch>=2.8"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def main(extras: list[str]) -> None:
    if sys.version_info < (3, 11):  # noqa: UP036  this file runs before anything is installed
        sys.exit(f"neuroloom needs Python 3.11 or newer; this is {sys.version.split()[0]}. Run: make PYTHON=python3.11")
    stamp = VENV / f".ready-{'-'.join(extras) or 'plain'}"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + Path(__file__).read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted and PYTHON.exists():
        return
    make_venv()
    say("Installing PyTorch")
    install_torch()
    say("Installing neuroloom and what it needs")
    pip("install", "--quiet", "--editable", f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT))
    stamp.write_text(wanted)
    say(f"Ready: {VENV}")


def say(text: str) -> None:
    print(f"[env] {text}", flush=True)


def make_venv() -> None:
    if PYTHON.exists() and subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return
    say(f"Making {VENV} with Python {sys.version.split()[0]}")
    shutil.rmtree(VENV, ignore_errors=True)
    command = [sys.executable, "-m", "venv", str(VENV)]
    if has_torch(sys.executable):
        command.append("--system-site-packages")
    if subprocess.run(command, capture_output=True).returncode == 0:
        return
    # Debian and Ubuntu keep the venv module's pip in a package of its own.
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    if os.geteuid() == 0 and shutil.which("apt-get"):
        say(f"Installing the system package {package}")
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        subprocess.run(["apt-get", "install", "-y", "-qq", package], check=False, stdout=subprocess.DEVNULL)
        shutil.rmtree(VENV, ignore_errors=True)
        if subprocess.run(command).returncode == 0:
            return
    shutil.rmtree(VENV, ignore_errors=True)
    sys.exit(f"Python's venv module is incomplete. Run: sudo apt-get install {package}\nthen the same command again.")


def has_torch(python: str | Path) -> bool:
    """Whether a Python has a torch that the package's range takes."""
    check = "import torch; v = torch.__version__.split('.'); raise SystemExit((int(v[0]), int(v[1])) < (2, 8))"
    return subprocess.run([str(python), "-c", check], capture_output=True).returncode == 0


def install_torch() -> None:
    if has_torch(PYTHON):
        return
    if has_nvidia_gpu():
        pip("install", "--quiet", TORCH_RANGE)
        return
    # Where plain pip finds a CPU build, take it; elsewhere it would bring gigabytes of CUDA.
    report = subprocess.run(
        [PYTHON, "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-", TORCH], capture_output=True, text=True
    )
    names = (
        [item["metadata"]["name"] for item in json.loads(report.stdout)["install"]] if report.returncode == 0 else []
    )
    brings_cuda = not names or any(name.startswith(("nvidia", "cuda", "triton")) for name in names)
    pip("install", "--quiet", TORCH, *(["--index-url", CPU_INDEX] if brings_cuda else []))


def has_nvidia_gpu() -> bool:
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    except OSError:
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


def pip(command: str, *arguments: str) -> None:
    # Python compiles what is imported when it is; all of PyTorch and the others together would take a minute
    if subprocess.run([PYTHON, "-m", "pip", command, "--no-compile", *arguments]).returncode != 0:
        sys.exit(
            f"pip {command} {' '.join(arguments)} failed; the reason is above. Mend it and run the same command again."
        )


if __name__ == "__main__":
    main(sys.argv[1:])
