"""A folder behind a URL, from an HTTP server on loopback."""

from __future__ import annotations

import functools
import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class _Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, fetched: list[str], **kwargs: Any) -> None:
        self._fetched = fetched
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        self._fetched.append(self.path)
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        file = Path(self.translate_path(self.path))
        if match is None or not file.is_file():
            super().do_GET()
            return
        content = file.read_bytes()
        first, last = match.groups()
        begin = int(first) if first else len(content) - int(last)
        part = content[begin : int(last) + 1 if first and last else None]
        self.send_response(http.HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Range", f"bytes {begin}-{begin + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Last-Modified", self.date_time_string(int(file.stat().st_mtime)))
        self.end_headers()
        self.wfile.write(part)

    def end_headers(self) -> None:
        # clouds send one with every file, and S3's clients insist
        self.send_header("ETag", f'"{hashlib.sha256(self.path.encode()).hexdigest()}"')
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    # connections that wait to be taken: with the default of 5, clients of many threads try again after a second
    request_queue_size = 64


@contextmanager
def served(folder: Path, fetched: list[str] | None = None) -> Iterator[str]:
    """Serve a folder; gives its URL.

    Args:
        folder: The folder.
        fetched: The path of each GET request is added to it.
    """
    handler = functools.partial(_Handler, directory=str(folder), fetched=[] if fetched is None else fetched)
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
