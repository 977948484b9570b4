"""Files that are whole or absent: written beside their final place and moved there in one step."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import secrets
import signal
import socket
import tempfile
import threading
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
        if is_full_disk(error):
            raise UserError(no_room(path)) from error
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


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error came of a disk, or a share of one, that is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


def no_room(path: Path | str) -> str:
    """What the user is told of a full disk."""
    return (
        f"No room left on the disk while writing {path}. Free some space and run the same command again: what was "
        "finished is kept."
    )


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


def open_lines(file: Path) -> int:
    """Open a file to append lines to; what a full disk has left of a line before is ended first.

    Args:
        file: Its folder is made.

    Returns:
        The descriptor.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        os.write(descriptor, b"\n")
    return descriptor


def append_line(file: Path, content: dict[str, Any]) -> None:
    """Append one line of JSON to a file, in one write.

    Args:
        file: Its folder is made.
        content: The line.
    """
    descriptor = open_lines(file)
    try:
        os.write(descriptor, (json.dumps(content) + "\n").encode())
    finally:
        os.close(descriptor)


def tell(path: Path, content: dict[str, Any]) -> None:
    """Write what is told of this moment: moved into place, but worth nothing after a loss of power."""
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_text(json.dumps(content))
    partial.replace(path)


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


BEAT_SECONDS = 5.0
"""Between two signs of life in a lock."""

SILENT_SECONDS = 20.0
"""Without one after which a lock counts as left behind; four times as long as they take to come."""


@contextlib.contextmanager
def lock(path: Path, what: str, take_over: bool = False) -> Iterator[str]:
    """Hold a lock file while writing an output, so that two runs never write the same one.

    The file holds host, process id and name of its owner, and a number that goes up every `BEAT_SECONDS`. A lock whose
    process on this host has ended is taken over, and so is that of the same SLURM job before it went back to the queue;
    one of another host only if asked for and if its number stands still. An owner whose lock was taken over or away is
    interrupted.

    Args:
        path: The lock file.
        what: What it protects, for the message ("training of the LSD network").
        take_over: Whether the lock of a run on another host that gives no sign of life is taken over.

    Yields:
        The owner's name, another one each time.

    Raises:
        UserError: Another live run holds the lock.
    """
    make_folder(path.parent)
    owner = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "run": secrets.token_hex(8),
        "beat": 0,
        **_own_job(),
    }
    for _ in range(2):
        try:
            with explain_os_errors(path):
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            _check_stale(path, what, take_over)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            continue
        with os.fdopen(descriptor, "w") as file:
            json.dump(owner, file)
        break
    else:
        raise UserError(f"Another run has just started to write {path.parent} ({what}). Wait for it or stop it.")
    released = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, owner, released), daemon=True)
    beating.start()
    try:
        yield str(owner["run"])
    finally:
        released.set()
        beating.join()
        if read_owner(path).get("run") == owner["run"]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _beat(path: Path, owner: dict[str, Any], released: threading.Event) -> None:
    """Give signs of life until the lock is released, or interrupt this process where another run has taken it."""
    for beat in itertools.count(1):
        if released.wait(BEAT_SECONDS):
            return
        if not holds(path, owner["run"]):
            os.kill(os.getpid(), signal.SIGINT)
            return
        with contextlib.suppress(OSError, UserError):  # a disk that is full for now
            write_text(path, json.dumps({**owner, "beat": beat}))


def holds(lock_file: Path, run: str) -> bool:
    """Whether a run holds a lock still; where the file cannot be read for now, it does.

    Args:
        lock_file: The lock.
        run: What `lock` gave.
    """
    try:
        return bool(json.loads(lock_file.read_text())["run"] == run)
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True


def take_away(lock_file: Path, job: str) -> None:
    """Take a lock away from a SLURM job that has ended; should it live on unknown to SLURM, it is interrupted.

    Args:
        lock_file: The lock.
        job: The job's number.
    """
    if read_owner(lock_file).get("job") == job:
        lock_file.unlink(missing_ok=True)


def _own_job() -> dict[str, Any]:
    """Which SLURM job this process is part of, and how often it went back to the queue; empty where there is none."""
    job = os.environ.get("SLURM_JOB_ID")
    return {"job": job, "restart": int(os.environ.get("SLURM_RESTART_COUNT", "0"))} if job else {}


def read_owner(lock_file: Path) -> dict[str, Any]:
    """Who holds a lock: host, pid, started, run, beat; of a SLURM job, job and restart. Empty where nobody does, or it
    is just being written."""
    try:
        content = json.loads(lock_file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def seems_alive(lock_file: Path) -> bool:
    """Whether whoever holds a lock seems to live, told at once: on this host its process, elsewhere its last sign."""
    owner = read_owner(lock_file)
    if owner.get("host") == socket.gethostname():
        return _is_running(owner.get("pid"))
    try:
        return time.time() - lock_file.stat().st_mtime < 60
    except FileNotFoundError:
        return False


def _check_stale(path: Path, what: str, take_over: bool) -> None:
    """Return where a lock may be taken over.

    Raises:
        UserError: It may not.
    """
    owner, own = read_owner(path), _own_job()
    if own and owner.get("job") == own["job"] and owner["restart"] < own["restart"]:
        return  # SLURM starts a job again when its nodes have gone
    job = f", SLURM job {owner['job']}," if "job" in owner else ""
    who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}{job} since {owner.get('started', '?')}"
    if owner.get("host") == socket.gethostname():
        stale = not _is_running(owner.get("pid"))
    elif not owner:
        # one that cannot be read is one whose owner was killed between making and filling it
        try:
            stale = time.time() - path.stat().st_mtime > 10
        except FileNotFoundError:
            return
    elif "beat" in owner and _is_silent(path, owner["beat"]):
        if take_over:
            return
        raise UserError(
            f"A run on another machine was writing {path.parent} ({what}; {who}) and gives no sign of life. If it is "
            "certainly gone, run the same command again with --take-over."
        )
    else:
        stale = False
    if not stale:
        raise UserError(
            f"Another run is writing {path.parent} ({what}; {who}). Wait for it or stop it; if it is certainly gone, "
            f"delete {path} and try again."
        )


def _is_silent(path: Path, beat: int) -> bool:
    """Whether a lock's number stands still. The clocks of two machines may differ, so that it is watched, not read."""
    end = time.monotonic() + SILENT_SECONDS
    while time.monotonic() < end:
        time.sleep(BEAT_SECONDS / 10)
        if read_owner(path).get("beat") != beat:
            return False
    return True


def _is_running(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:  # somebody else wrote that
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
