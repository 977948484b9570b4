"""Files that are whole or absent: written beside their final place and moved there in one step."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from neuroloom.errors import UserError


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that a reader, at any moment, finds the old content, the new content or nothing.

    Args:
        path: Where the file shall lie; its folder is made.
        write: Called with a binary file open for writing.

    Raises:
        UserError: The disk is full or the folder cannot be written.
    """
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically; see `write_atomic`."""
    write_atomic(path, lambda file: file.write(content))


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text atomically; see `write_atomic`."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, indented, keys in the order given; see `write_atomic`."""
    write_text(path, json.dumps(content, indent=2) + "\n")


@contextlib.contextmanager
def explain_os_errors(path: Path | str) -> Iterator[None]:
    """Turn a full disk or a read-only folder into a `UserError` that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"No room left on the disk while writing {path}. Free some space and run the same command again: "
                "what was finished is kept."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(
                f"{path} cannot be written ({error.strerror}). Choose a folder you may write to, or change its "
                "permissions, and run the same command again."
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EISDIR):
            raise UserError(
                f"{path} cannot be made ({error.strerror}): a file lies where a folder is needed, or the other way "
                "round. Choose another place."
            ) from error
        raise


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where they are not there yet.

    Raises:
        UserError: It cannot be made: no permission, no room, a file of that name, or a place that cannot hold it.
    """
    try:
        with explain_os_errors(path):
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be made ({error.strerror}). Choose another place.") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read an object that `write_json` wrote.

    Raises:
        UserError: The file is damaged.
    """
    try:
        return dict(json.loads(path.read_text()))
    except ValueError as error:
        raise UserError(f"{path} is damaged. Delete {path.parent} to do that step again.") from error


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file with one object per line, such as a training's curve.

    Raises:
        UserError: The file is damaged.
    """
    try:
        return [dict(json.loads(line)) for line in path.read_text().splitlines()]
    except ValueError as error:
        raise UserError(f"{path} is damaged. Delete {path.parent} to do that step again.") from error


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal text."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_json(content: Any) -> str:
    """SHA-256 of a JSON-able value, the same for equal values whatever the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@contextlib.contextmanager
def lock(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file while writing an output, so that two runs never write the same one.

    The file holds host and process id of its owner; a lock whose process on this host has ended is taken over.

    Args:
        path: The lock file.
        what: What it protects, for the message ("training of the LSD network").

    Raises:
        UserError: Another live run holds the lock.
    """
    make_folder(path.parent)
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": time.strftime("%Y-%m-%d %H:%M:%S")}
    for _ in range(2):
        try:
            with explain_os_errors(path):
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            if not _is_stale(path):
                raise UserError(
                    f"Another run is writing {path.parent} ({what}; {_describe(path)}). Wait for it or stop it; if it "
                    f"is certainly gone, delete {path} and try again."
                ) from None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            continue
        with os.fdopen(descriptor, "w") as file:
            json.dump(owner, file)
        break
    else:
        raise UserError(f"Another run has just started to write {path.parent} ({what}). Wait for it or stop it.")
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _read_owner(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _describe(path: Path) -> str:
    owner = _read_owner(path)
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')} since {owner.get('started', '?')}"


def _is_stale(path: Path) -> bool:
    owner = _read_owner(path)
    if owner.get("host") != socket.gethostname():
        # An unreadable lock is one whose owner was killed between making and filling it.
        try:
            return not owner and time.time() - path.stat().st_mtime > 10
        except FileNotFoundError:
            return True
    try:
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
