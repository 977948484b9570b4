"""A folder behind a URL, from an HTTP server on loopback."""

from __future__ import annotations

import functools
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

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path, fetched: list[str] | None = None) -> Iterator[str]:
    """Serve a folder; gives its URL.

    Args:
        folder: The folder.
        fetched: The path of each GET request is added to it.
    """
    handler = functools.partial(_Handler, directory=str(folder), fetched=[] if fetched is None else fetched)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
