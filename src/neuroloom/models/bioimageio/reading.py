"""Taking our checkpoint out of a bioimage.io package that `export_package` wrote."""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from pathlib import Path

from neuroloom.errors import UserError
from neuroloom.files import write_bytes
from neuroloom.models.bioimageio.package import CHECKPOINT, IDENTITY
from neuroloom.networks.checkpoint import load_checkpoint


def import_package(path: Path, to: Path) -> None:
    """Write the checkpoint that a package holds; nothing else of the package is used, and none of its code runs.

    Args:
        path: The zip file.
        to: The checkpoint; must not exist.

    Raises:
        UserError: The file is no package, of somebody else, or damaged.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist. Name the .zip file of a model.")
    if to.exists():
        raise UserError(f"{to} exists already. Name another file to write.")
    try:
        with zipfile.ZipFile(path) as package:
            names = set(package.namelist())
            damaged = package.testzip()
            content = package.read(CHECKPOINT) if CHECKPOINT in names else b""
            identity = package.read(IDENTITY) if IDENTITY in names else b"{}"
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} is no zip file, or damaged. Copy it again.") from error
    if not names & {"rdf.yaml", "bioimageio.yaml"}:
        raise UserError(f"{path} is no package of bioimage.io: it holds no rdf.yaml. Name a model's .zip file.")
    if CHECKPOINT not in names:
        raise UserError(
            f"{path} is a model that neuroloom did not write: it holds no {CHECKPOINT}. Such a network can predict, "
            "if it gives affinities: name the package in `prediction.model`."
        )
    if damaged is not None or _stated(identity) != hashlib.sha256(content).hexdigest():
        raise UserError(f"{path} is damaged: {CHECKPOINT} in it is not what was exported. Copy it again.")
    with tempfile.TemporaryDirectory(prefix="neuroloom-import-") as folder:
        checked = Path(folder) / CHECKPOINT
        checked.write_bytes(content)
        load_checkpoint(checked)
    write_bytes(to, content)


def _stated(identity: bytes) -> str | None:
    """The SHA-256 that the package states, or None where that cannot be read."""
    try:
        return str(json.loads(identity)["sha256"])
    except (ValueError, KeyError, TypeError):
        return None
