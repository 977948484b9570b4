"""What the doctor's jobs tell, over the network and by files.

    TOKEN JOB KIND      first line; who does not know the token is not heard
    ...                 the rest, to the end

KIND is "clock" (the answer is the time here), "probe" (what `probe` found out, JSON), or "setup" and "python": what
went wrong there, as `trial`'s script tells it.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import socket
import socketserver
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

_LONGEST = 2**20
_SECONDS = 30.0
KINDS = ("setup", "python", "probe")


@dataclass(frozen=True)
class Failed:
    """What a job's script tells of a step that failed.

    Attributes:
        code: Exit code of what failed.
        line: Of the script; 0 where it is not known.
        ended: Whether the script ended there.
        node: Where.
        log: The end of what was written.
    """

    code: int
    line: int
    ended: bool
    node: str
    log: str


class Answers:
    """Listens to jobs on a port of this machine, as long as it is open.

    Attributes:
        token: What jobs must say first.
        heard: By job and kind, what was told over the network.
    """

    def __init__(self) -> None:
        self.token = secrets.token_hex(16)
        self.heard: dict[tuple[str, str], str] = {}
        self._server = socketserver.ThreadingTCPServer(("", 0), self._handler())
        self._server.daemon_threads = True

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        """Where nodes reach this machine, found as daisy finds it: its name's address, or that of the way out of it."""
        if os.environ.get("DAISY_HOST"):
            return os.environ["DAISY_HOST"]
        for find in (_by_name, _way_out):
            with contextlib.suppress(OSError):
                address = find()
                if not address.startswith("127."):
                    socket.create_connection((address, self.port), timeout=5).close()
                    return address
        return "127.0.0.1"

    def _handler(self) -> type[socketserver.StreamRequestHandler]:
        answers = self

        class Handler(socketserver.StreamRequestHandler):
            timeout = _SECONDS

            def handle(self) -> None:
                words = self.rfile.readline(200).decode(errors="replace").split()
                if len(words) != 3 or not hmac.compare_digest(words[0].encode(), answers.token.encode()):
                    return
                if words[2] == "clock":
                    self.wfile.write(f"{time.time()!r}\n".encode())
                text = "" if words[2] == "clock" else self.rfile.read(_LONGEST).decode(errors="replace")
                answers.heard[words[1], words[2]] = text

        return Handler


def _by_name() -> str:
    return socket.gethostbyname(socket.gethostname())


def _way_out() -> str:
    """The address of this machine that packets to others bear; none is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.connect(("192.0.2.1", 9))
        return str(out.getsockname()[0])


def read_answers(folder: Path, job: str) -> dict[str, str]:
    """What a job told by files, by kind.

    Args:
        folder: Where it wrote.
        job: Its name.
    """
    told = {}
    present = {file.name for file in folder.iterdir()}  # asks the disk, where a file alone may be remembered as missing
    for kind in KINDS:
        if f"{job}.{kind}" in present:
            text = (folder / f"{job}.{kind}").read_text(errors="replace")
            told[kind] = text if kind == "probe" else text.partition("\n")[2]
    return told


def parse_failed(text: str) -> Failed:
    """What a script told of a step that failed.

    Args:
        text: "CODE LINE on|ended NODE", then the log.
    """
    first, _, log = text.partition("\n")
    code, line, how, node = (*first.split(), "", "", "", "")[:4]
    return Failed(_number(code), _number(line), how == "ended", node, log.strip())


def parse_probe(text: str) -> dict[str, Any]:
    """What a probe found out; empty where it did not come whole."""
    try:
        return dict(json.loads(text))
    except ValueError:
        return {}


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
