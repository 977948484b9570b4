"""Processes forked from one that has loaded what they need, so that starting one takes milliseconds.

    this process  --starts-->  fork server  --forks-->  worker, worker, ...
         |                        ^                        |
         +--(daisy) starts-->  stand-in  <---exit code-----+

Loading Python's packages takes a worker one to three seconds of a core, longer than many a block. daisy, which holds
threads, cannot fork; it starts a process for each worker. Such a process is a `StandIn`, which loads next to nothing:
it asks the fork server for a worker that has its output, environment and folder, and ends as the worker ends. A worker
ends with its stand-in, with the fork server, and with the process that started that.

Where there is no fork server (it was killed, or this is no Linux: elsewhere libraries do not bear being forked), the
stand-in is the worker itself.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

_READ_WHEN_LOADED = (
    "OMP_",
    "GOMP_",
    "KMP_",
    "MKL_",
    "OPENBLAS_",
    "NUMBA_",
    "CUDA_",
    "TORCH",
    "PYTORCH_",
    "PYTHON",
    "LD_",
)
"""Beginnings of the names of what libraries look for in the environment when they are loaded."""

_SECONDS = 10.0
"""A stand-in may take to say what it wants."""

_GRACE = 1.0
"""Seconds the server has to end what it has forked."""

_PARENT_DIES = 1  # number of Linux' prctl
_LOST = 70
"""Exit code of a stand-in that the fork server gave no worker, or was lost with."""


@dataclass(frozen=True)
class StandIn:
    """What daisy starts for each worker; called, it does not return before the worker has ended.

    Attributes:
        address: Of the fork server; None where there is none.
        module: Where the worker's function is.
        function: Its name.
        arguments: What it is called with.
        loads: Modules that the fork server loads before it forks, if it has not yet.
    """

    address: str | None
    module: str
    function: str
    arguments: tuple[str, ...]
    loads: tuple[str, ...] = ()

    def __call__(self) -> None:
        """Be the worker, or have it forked.

        Raises:
            SystemExit: The worker has ended with another exit code than 0.
        """
        connection = _connect(self.address)
        if connection is None:
            self.work()
            return
        with connection:
            message = json.dumps(
                {"stand_in": asdict(self), "path": sys.path, "environment": dict(os.environ), "folder": os.getcwd()}
            ).encode()
            sys.stdout.flush()
            sys.stderr.flush()
            answer = b""
            with contextlib.suppress(ConnectionError):
                socket.send_fds(connection, [len(message).to_bytes(8)], [sys.stdout.fileno(), sys.stderr.fileno()])
                connection.sendall(message)
                answer = connection.recv(8)
        code = int.from_bytes(answer, signed=True) if answer else _LOST
        if code < 0:
            os.kill(os.getpid(), -code)
        if code:
            raise SystemExit(code)

    def work(self) -> None:
        """Be the worker."""
        getattr(importlib.import_module(self.module), self.function)(*self.arguments)


def _connect(address: str | None) -> socket.socket | None:
    if address is None:
        return None
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        return None
    return connection


def fork_server() -> str | None:
    """The address of the fork server of this process, which is started if there is none; None where nothing forks."""
    if sys.platform != "linux":
        return None
    key = frozenset((k, v) for k, v in os.environ.items() if k.startswith(_READ_WHEN_LOADED))
    server = _SERVERS.get(key)
    if server is None or not server.runs:
        try:
            server = _SERVERS[key] = _ForkServer()
        except OSError:  # no process or file can be had, or the path of the temporary folder is too long for a socket
            return None
    return server.address


class _ForkServer:
    """The fork server, seen from the process that starts it.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self.folder = Path(tempfile.mkdtemp(prefix="neuroloom-"))  # that nobody else may look into
        self.address = str(self.folder / "socket")
        try:
            self.server = self._start()
        except OSError:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        atexit.register(self.close)

    def _start(self) -> subprocess.Popen[bytes]:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.address)
            listener.listen(128)
            # its end of the pipe tells it that this process has ended, however that comes
            return subprocess.Popen(
                [sys.executable, "-m", "neuroloom.forking", str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )

    @property
    def runs(self) -> bool:
        """Whether it is this process's, and there."""
        return self.process == os.getpid() and self.server.poll() is None

    def close(self) -> None:
        """End it, and all that it has forked."""
        if self.process != os.getpid():
            return
        assert self.server.stdin is not None
        self.server.stdin.close()
        try:
            self.server.wait(_GRACE)
        except subprocess.TimeoutExpired:  # it is loading
            self.server.kill()
            self.server.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


_SERVERS: dict[frozenset[tuple[str, str]], _ForkServer] = {}


class _Forker:
    """The fork server's own side: one thread, which waits for stand-ins and workers, and forks."""

    def __init__(self, listener: socket.socket) -> None:
        self.process = os.getpid()
        self.listener = listener
        self.workers: dict[int, socket.socket] = {}
        self.selector = selectors.DefaultSelector()
        self.woken, waker = socket.socketpair()
        for end in (self.woken, waker):
            end.setblocking(False)
        self.waker = waker
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches everybody; what follows is the master's
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno())

    def serve(self) -> None:
        """Fork for whoever asks, until the process that started this one has ended."""
        for file in (sys.stdin, self.listener, self.woken):
            self.selector.register(file, selectors.EVENT_READ)
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is sys.stdin:
                    self._end_all()
                    # here, too: a process that was killed has removed nothing
                    shutil.rmtree(Path(self.listener.getsockname()).parent, ignore_errors=True)
                    return
                if key.fileobj is self.listener:
                    self._accept()
                elif key.fileobj is self.woken:
                    self._reap()
                else:  # a stand-in says nothing more: it was killed
                    self._end(key.data)

    def _accept(self) -> None:
        try:
            connection, _ = self.listener.accept()
        except OSError:  # whoever asked is gone
            return
        connection.settimeout(_SECONDS)
        output: list[int] = []
        try:
            size, output, _, _ = socket.recv_fds(connection, 8, 2)
            request = json.loads(_receive(connection, int.from_bytes(size)))
        except (OSError, ValueError):
            connection.close()
            return
        else:
            self._fork(connection, request, output)
        finally:
            for descriptor in output:
                os.close(descriptor)

    def _fork(self, connection: socket.socket, request: Mapping[str, Any], output: list[int]) -> None:
        _load(request["path"], request["stand_in"]["loads"])
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            worker = os.fork()
        except OSError:  # no process or memory can be had now
            connection.close()
            return
        if worker == 0:
            connection.close()
            self._become(request, output)
        self.workers[worker] = connection
        self.selector.register(connection, selectors.EVENT_READ, worker)

    def _become(self, request: Mapping[str, Any], output: list[int]) -> NoReturn:
        """Be the worker, in the forked process."""
        code = 1
        try:
            ctypes.CDLL(None).prctl(_PARENT_DIES, signal.SIGKILL)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.selector.close()
            for end in (self.listener, self.woken, self.waker, *self.workers.values()):
                end.close()
            nothing = os.open(os.devnull, os.O_RDONLY)
            for ours, standard in zip((nothing, *output), (0, 1, 2), strict=True):
                os.dup2(ours, standard)
                os.close(ours)
            os.environ.clear()
            os.environ.update(request["environment"])
            os.chdir(request["folder"])
            sys.path[:] = request["path"]
            if os.getppid() == self.process:
                StandIn(**request["stand_in"]).work()
                code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
            if isinstance(error.code, str):
                print(error.code, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.woken.recv(4096):
                pass
        for worker in list(self.workers):
            ended, status = os.waitpid(worker, os.WNOHANG)
            if ended:
                self._tell(worker, os.waitstatus_to_exitcode(status))

    def _tell(self, worker: int, code: int) -> None:
        connection = self.workers.pop(worker)
        self.selector.unregister(connection)
        with contextlib.suppress(OSError):
            connection.sendall(code.to_bytes(8, signed=True))
        connection.close()

    def _end(self, worker: int) -> None:
        if worker in self.workers:
            os.kill(worker, signal.SIGKILL)
            _, status = os.waitpid(worker, 0)
            self._tell(worker, os.waitstatus_to_exitcode(status))

    def _end_all(self) -> None:
        for worker in list(self.workers):
            self._end(worker)


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        piece = connection.recv(size - len(received))
        if not piece:
            raise OSError("a stand-in ended in the middle of its request")
        received += piece
    return received


def _load(path: list[str], modules: list[str]) -> None:
    """Load what is missing; what cannot be is left to the worker, which can say so."""
    missing = [module for module in modules if module not in sys.modules]
    if not missing:
        return
    sys.path[:] = path
    for module in missing:
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    gc.freeze()  # so that a worker's garbage collector does not touch, and so copy, what it shares


if __name__ == "__main__":
    # under its own name, as workers that are not forked know it
    from neuroloom import forking

    forking._Forker(socket.socket(fileno=int(sys.argv[1]))).serve()
