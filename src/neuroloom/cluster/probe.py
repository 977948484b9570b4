"""What the doctor has each node find out about itself; see `doctor`.

The job's script carries this file to a node's Python, which may be an old one, without neuroloom, and may not see the
project's disk. So it imports the standard library alone, and nothing newer than Python 3.6. What it finds out goes back
both ways: over the network to the doctor, and as a file into the project's folder.
"""

import hashlib
import importlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import threading
import time
from typing import Any

PATIENCE = 60.0
"""Seconds for any one thing; a disk that hangs must not hide the rest."""

IMPORT_SECONDS = 110.0
"""For a Python of its own to load packages from a slow disk."""

CONNECT_SECONDS = 10.0
WRITE_MEGABYTES = 64
_METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs", "attributes.json", "info")
_IMPORT = "import sys, neuroloom, neuroloom.blockwise.worker; sys.stdout.write(neuroloom.__version__)"
_CUDA = """
import json, torch
said = {"torch": torch.__version__, "cuda": torch.version.cuda, "count": torch.cuda.device_count()}
try:
    said["names"] = [torch.cuda.get_device_name(number) for number in range(said["count"])]
    said["computes"] = float(torch.ones(8, device="cuda").sum()) == 8
except Exception as error:
    said["error"] = str(error).strip().splitlines()[0]
print(json.dumps(said))
"""


def content_of(path: str) -> "str | None":
    """What tells a file or a volume from another one of the same path: its size and beginning, or its metadata.

    Args:
        path: Its path.

    Returns:
        A hash; None where there is nothing.
    """
    if not os.path.exists(path):
        return None
    files = [path] if os.path.isfile(path) else [os.path.join(path, name) for name in _METADATA]
    found = hashlib.sha256()
    for file in files:
        if os.path.isfile(file):
            found.update(str(os.path.getsize(file)).encode())
            with open(file, "rb") as opened:
                found.update(opened.read(65536))
    return found.hexdigest()


def code_of(package: str) -> str:
    """A hash of all Python files of a package.

    Args:
        package: Its folder.
    """
    found = hashlib.sha256()
    for folder, inner, names in os.walk(package):
        inner.sort()
        for name in sorted(names):
            if name.endswith(".py"):
                file = os.path.join(folder, name)
                found.update(os.path.relpath(file, package).encode())
                with open(file, "rb") as opened:
                    found.update(opened.read())
    return found.hexdigest()


def versions(packages: "list[str]") -> "dict[str, str | None]":
    """Versions of packages as their metadata say; None of those that are not there.

    Args:
        packages: Their names.
    """
    try:
        metadata = importlib.import_module("importlib.metadata")
    except ImportError:  # before Python 3.8
        return {}
    found: dict[str, str | None] = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def write_speed(folder: str) -> "dict[str, float]":
    """How fast a file is written, until the disk has it, and how much room is left.

    Args:
        folder: Where.

    Returns:
        megabytes_per_second, free_gb.
    """
    file = os.path.join(folder, f"speed-{socket.gethostname()}-{os.getpid()}")
    piece = os.urandom(2**20)
    began = time.time()
    try:
        with open(file, "wb") as opened:
            for _ in range(WRITE_MEGABYTES):
                opened.write(piece)
            opened.flush()
            os.fsync(opened.fileno())
        seconds = time.time() - began
    finally:
        if os.path.exists(file):
            os.unlink(file)
    free = shutil.disk_usage(folder).free
    return {"megabytes_per_second": WRITE_MEGABYTES / max(seconds, 1e-6), "free_gb": free / 1e9}


def ahead_of_disk(folder: str) -> "dict[str, float]":
    """How far this clock is ahead of the disk's.

    Args:
        folder: On that disk.

    Returns:
        ahead, in seconds.
    """
    file = os.path.join(folder, f"clock-{socket.gethostname()}-{os.getpid()}")
    _write(file, "tick")
    ahead = time.time() - os.path.getmtime(file)
    os.unlink(file)
    return {"ahead": ahead}


def memory_limits() -> "dict[str, float]":
    """GB that this process may take: by the control group, by `ulimit -v`, as SLURM says, and what the machine has."""
    limits = {"machine": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2.0**30}
    if "SLURM_MEM_PER_NODE" in os.environ:
        limits["slurm"] = float(os.environ["SLURM_MEM_PER_NODE"]) / 1024
    group = group_limit()
    if group is not None:
        limits["cgroup"] = group / 2.0**30
    resource = importlib.import_module("resource")
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if soft != resource.RLIM_INFINITY:
        limits["ulimit"] = soft / 2.0**30
    return limits


def group_limit(groups: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> "int | None":
    """The lowest memory limit of the control groups that a process is in, in bytes; None without one.

    Args:
        groups: The file that lists them.
        root: Where they lie.
    """
    limits = []
    with open(groups) as opened:
        lines = opened.read().splitlines()
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        # version 1 has a tree for memory alone, version 2 one for all
        tree, name = (root + "/memory", "memory.limit_in_bytes") if kinds else (root, "memory.max")
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts) + 1):
            file = "/".join([tree, *parts[:depth], name])
            if os.path.exists(file):
                with open(file) as opened:
                    text = opened.read().strip()
                if text.isdigit() and int(text) < 2**60:
                    limits.append(int(text))
    return min(limits) if limits else None


def gpus(with_torch: bool) -> "dict[str, Any]":
    """GPUs that `nvidia-smi` and PyTorch see.

    Args:
        with_torch: Whether PyTorch is asked, which takes a while.

    Returns:
        gpus, a list of name, driver, memory_gb; and torch, or why it could not be asked.
    """
    found: dict[str, Any] = {"gpus": []}
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.check_output(query, stderr=subprocess.STDOUT, timeout=30).decode().splitlines()
        rows = [[cell.strip() for cell in line.split(",")] for line in lines if line.count(",") == 2]
        found["gpus"] = [{"name": row[0], "driver": row[1], "memory_gb": float(row[2]) / 1024} for row in rows]
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        found["nvidia_smi"] = "nvidia-smi: " + _say(error)
    if with_torch:
        try:
            said = subprocess.check_output(
                [sys.executable, "-c", _CUDA], stderr=subprocess.STDOUT, timeout=IMPORT_SECONDS
            )
            found["torch"] = json.loads(said.decode().splitlines()[-1])
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            found["torch"] = {"error": _say(error)}
    return found


def _neuroloom() -> "dict[str, str]":
    """Whether a worker's modules can be imported, and which ones these are."""
    try:
        command = [sys.executable, "-c", _IMPORT]
        said = subprocess.check_output(command, stderr=subprocess.STDOUT, timeout=IMPORT_SECONDS).decode()
    except (OSError, subprocess.SubprocessError) as error:
        return {"error": _say(error)}
    spec = importlib.import_module("importlib.util").find_spec("neuroloom")
    folder = os.path.dirname(spec.origin)
    return {"version": said.split()[-1], "folder": folder, "code": code_of(folder)}


def _say(error: Exception) -> str:
    """An error in one line; of a program, the last that it wrote."""
    if isinstance(error, subprocess.CalledProcessError) and error.output.strip():
        return str(error.output.decode(errors="replace").strip().splitlines()[-1])
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer in {error.timeout:.0f} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"


def _look(place: "dict[str, str]", mark: str, job: str) -> "dict[str, Any]":
    """What a place looks like from here.

    Args:
        place: path; and content, or nothing where the doctor has left a token in the folder `mark`.
        mark: The folder's name.
        job: The name of this job.

    Returns:
        exists; content, or token; written, what was written for the doctor to read; error, why it was not.
    """
    found: dict[str, Any] = {"exists": os.path.exists(place["path"])}
    if "content" in place:
        found["content"] = content_of(place["path"])
        return found
    folder = os.path.join(place["path"], mark)
    try:
        with open(os.path.join(folder, "token")) as opened:
            found["token"] = opened.read()
        written = hashlib.sha256(os.urandom(32)).hexdigest()
        _write(os.path.join(folder, job), written)
        found["written"] = written
    except OSError as error:
        found["error"] = _say(error)
    return found


def _write(file: str, text: str) -> None:
    with open(file, "w") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())


def _connect(asked: "dict[str, Any]", kind: str) -> socket.socket:
    connection = socket.create_connection((asked["host"], asked["port"]), timeout=CONNECT_SECONDS)
    connection.sendall(f"{asked['token']} {asked['job']} {kind}\n".encode())
    return connection


def _ask_time(asked: "dict[str, Any]") -> "dict[str, float]":
    """How far this clock is ahead of the doctor's, in seconds, and how long it took to hear."""
    began = time.time()
    with _connect(asked, "clock") as connection:
        theirs = float(connection.makefile().readline())
    ended = time.time()
    return {"ahead": (began + ended) / 2 - theirs, "seconds": ended - began}


def _tell_file(asked: "dict[str, Any]", text: str) -> "dict[str, Any]":
    file = os.path.join(asked["folder"], asked["job"] + ".probe")
    _write(file + ".part", text)
    os.rename(file + ".part", file)
    return {}


def _tell_network(asked: "dict[str, Any]", text: str) -> "dict[str, Any]":
    with _connect(asked, "probe") as connection:
        connection.sendall(text.encode())
    return {}


def _within(seconds: float, *tasks: "tuple[Any, ...]") -> "list[dict[str, Any]]":
    """What functions find, all at once; an error for each that fails or takes too long.

    Args:
        seconds: For all of them.
        tasks: Each a function and its arguments.
    """
    found: list[dict[str, Any]] = [{"error": f"no answer in {seconds:.0f} s"} for _ in tasks]

    def run(number: int) -> None:
        function, *arguments = tasks[number]
        try:
            found[number] = function(*arguments)
        except Exception as error:
            found[number] = {"error": _say(error)}

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(tasks))]
    end = time.time() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.time()))
    return list(found)


def main() -> None:
    """Find out everything, and tell it both ways. The argument says what is asked, as `trial` writes it."""
    asked = json.loads(sys.argv[1])
    places = asked["places"]
    # not together with the rest: what is timed is done alone
    (network,) = _within(2 * CONNECT_SECONDS, (_ask_time, asked))
    seen = _within(PATIENCE, *((_look, place, asked["mark"], asked["job"]) for place in places))
    (disk,) = _within(PATIENCE, (write_speed, asked["folder"]))
    clock, packages, neuroloom, memory, devices = _within(
        2 * PATIENCE,
        (ahead_of_disk, asked["folder"]),
        (versions, asked["packages"]),
        (_neuroloom,),
        (memory_limits,),
        (gpus, asked["gpus"] > 0),
    )
    told = {
        "node": os.environ.get("SLURMD_NODENAME", socket.gethostname()),
        "network": network,
        "places": [dict(found, path=place["path"]) for place, found in zip(places, seen)],  # noqa: B905
        "disk": disk,
        "clock": clock,
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "packages": packages,
        "neuroloom": neuroloom,
        "memory_gb": memory,
        "cores": len(os.sched_getaffinity(0)),
        "devices": devices,
    }
    text = json.dumps(told)
    _within(2 * CONNECT_SECONDS, (_tell_file, asked, text), (_tell_network, asked, text))
    sys.stdout.flush()
    os._exit(0)  # a thread that waits for a disk would never end


if __name__ == "__main__":
    main()
