"""Peers live in environments of their own, `.peers/<name>/` here, and are asked in processes of their own.

files in a folder (.npy, JSON)  ->  the peer's Python runs a script  ->  files, and one line of JSON at the end
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / ".peers"
GUNPOWDER = ("gunpowder==1.4.4", "lsds==0.1.3")
"""The reference's pipeline and what it makes targets with."""


def environment(name: str, requirements: Sequence[str]) -> Path:
    """The Python of a peer's environment, made by plain pip the first time and when the requirements change.

    Args:
        name: Of the environment.
        requirements: For pip, with versions.

    Raises:
        subprocess.CalledProcessError: pip could not install them; its words are printed.
    """
    folder = FOLDER / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    installed = folder / "installed.txt"
    wanted = "\n".join([sys.version, *requirements])
    if not installed.exists() or installed.read_text() != wanted:
        print(f"Installing {', '.join(requirements)} into {folder} ...", file=sys.stderr, flush=True)
        venv.create(folder, clear=True, with_pip=True)
        # what pip says goes where messages go: the last line on the output is for results
        subprocess.run(
            [
                str(python),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-compile",
                "--disable-pip-version-check",
                *requirements,
            ],
            check=True,
            stdout=sys.stderr,
        )
        installed.write_text(wanted)
    return python


def ask(python: Path, script: Path, folder: Path, **parameters: Any) -> dict[str, Any]:
    """Run a peer's script once.

    Args:
        python: From `environment`.
        script: Gets the folder as its only argument.
        folder: Where its files are; the parameters are put beside them as `parameters.json`.
        parameters: Anything JSON can hold.

    Returns:
        The last line it printed, from JSON.

    Raises:
        RuntimeError: It failed; the end of what it said is in the message.
    """
    (folder / "parameters.json").write_text(json.dumps(parameters))
    # neither our package nor our settings of the threads
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [str(python), str(script), str(folder)], capture_output=True, text=True, env=environment, check=False
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        raise RuntimeError(f"{script.name} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer
