"""A small HTTP server that hands the chunks of a few zarr arrays to the browser, and nothing else.

    http://127.0.0.1:PORT/<token>/<number of the array>/c/0/3/1
    http://127.0.0.1:PORT/<token>/<number of the array>/s2/c/0/3/1      of a smaller copy, where a folder holds some

Only these forms are answered: the token must be right, the number one of the arrays given, and the rest must look like
zarr metadata or a chunk's key, after a plain name perhaps. Every other path is 404, so no file outside of the arrays
can be named. Arrays behind URLs are fetched and passed on: the browser need not reach them, and no credential leaves
this process. Pages of any origin may read (the viewer's page has another port), because none can guess the token.
"""

from __future__ import annotations

import hmac
import io
import re
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

from neuroloom.errors import UserError

# zarr v3 metadata, v2 metadata, and chunk keys of either: c/0/1/2, c.0.1.2, 0/1/2, 0.1.2
_KEY = re.compile(r"(?:[A-Za-z][A-Za-z0-9_]*/)?(?:zarr\.json|\.zarray|\.zattrs|c|(?:c[/.])?[0-9]+(?:[/.][0-9]+)*)")
_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")
_PIECE = 1 << 20


ArrayFiles = Path | Callable[[str], bytes | None]
"""An array's own folder, or that of its copies, or a function that gives the file of a name, None where there is none,
OSError if it fails."""


def serve_arrays(
    arrays: Sequence[ArrayFiles], token: str, port: int = 0, bind: str = "127.0.0.1"
) -> ThreadingHTTPServer:
    """Start to serve zarr arrays in the background.

    Args:
        arrays: Where their files are read; the first is number 0.
        token: The secret part of the path.
        port: 0 for any free one.
        bind: Address to listen on.

    Returns:
        The running server: `server_port` tells the port, `shutdown` and `server_close` end it.

    Raises:
        UserError: The port is taken or not allowed.
    """
    roots = [files.resolve() if isinstance(files, Path) else files for files in arrays]

    class Handler(_ArrayHandler):
        def open(self) -> BinaryIO | None:
            return open_file(self.path, roots, token)

    try:
        server = ThreadingHTTPServer((bind, port), Handler)
    except OSError as error:
        raise UserError(f"Port {port} of {bind} cannot be used ({error.strerror}). Choose another --port.") from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.1,), name="zarr server", daemon=True).start()
    return server


def open_file(path: str, arrays: Sequence[ArrayFiles], token: str) -> BinaryIO | None:
    """Open the file that a request names, or None where it names nothing that may be read.

    Args:
        path: The request's path, `/<token>/<number>/<key>`.
        arrays: Where the arrays' files are read; folders are resolved.
        token: The secret part of the path.

    Raises:
        OSError: The file, or the server it lies on, cannot be read.
    """
    parts = path.partition("?")[0].split("/", 3)
    if len(parts) != 4 or parts[0] or not hmac.compare_digest(parts[1].encode(), token.encode()):
        return None
    number, key = parts[2], parts[3]
    if not re.fullmatch("[0-9]{1,6}", number) or int(number) >= len(arrays) or not _KEY.fullmatch(key):
        return None
    files = arrays[int(number)]
    if not isinstance(files, Path):
        content = files(key)
        return None if content is None else io.BytesIO(content)
    file = (files / key).resolve()
    # a link inside the array must not lead out of it
    return file.open("rb") if file.is_relative_to(files) and file.is_file() else None


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and length that a Range header asks for.

    Args:
        header: Such as "bytes=0-99", "bytes=100-" or "bytes=-20"; anything else, or None, means the whole file.
        size: Of the file, in bytes.

    Returns:
        None where the range lies beyond the file.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match.groups() == ("", ""):
        return 0, size
    first, last = match.groups()
    if not first:
        length = min(int(last), size)
        return (size - length, length) if length else None
    begin, end = int(first), min(int(last), size - 1) if last else size - 1
    return (begin, end - begin + 1) if begin <= end else None


class _ArrayHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # header and body go out at once; otherwise each small chunk would wait 40 ms for the network's acknowledgement
    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    timeout = 60

    def open(self) -> BinaryIO | None:
        """Open the file that the request names."""
        raise NotImplementedError

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_OPTIONS(self) -> None:
        self._start(HTTPStatus.NO_CONTENT, None)

    def _answer(self, with_body: bool) -> None:
        try:
            file = self.open()
        except (FileNotFoundError, PermissionError):
            # replaced this moment by a stage, or not for this user to read
            file = None
        except OSError:
            self._start(HTTPStatus.BAD_GATEWAY, 0)
            return
        if file is None:
            self._start(HTTPStatus.NOT_FOUND, 0)
            return
        with file:
            self._answer_from(file, with_body)

    def _answer_from(self, file: BinaryIO, with_body: bool) -> None:
        size = file.seek(0, 2)
        found = byte_range(self.headers.get("Range"), size)
        if found is None:
            self._start(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, f"bytes */{size}")
            return
        begin, length = found
        partial = found != (0, size)
        status = HTTPStatus.PARTIAL_CONTENT if partial else HTTPStatus.OK
        self._start(status, length, f"bytes {begin}-{begin + length - 1}/{size}" if partial else None)
        if with_body:
            self._send(file, begin, length)

    def _start(self, status: HTTPStatus, length: int | None, content_range: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
        self.send_header("Access-Control-Allow-Headers", "Range")
        self.send_header("Access-Control-Expose-Headers", "Content-Length, Content-Range")
        self.send_header("Accept-Ranges", "bytes")
        # a stage that runs again replaces chunks under the same name
        self.send_header("Cache-Control", "no-store")
        if length is not None:
            self.send_header("Content-Length", str(length))
        if content_range is not None:
            self.send_header("Content-Range", content_range)
        self.end_headers()

    def _send(self, file: BinaryIO, begin: int, length: int) -> None:
        file.seek(begin)
        while length:
            piece = file.read(min(length, _PIECE))
            if not piece:
                # the file shrank: end the connection, so that the browser does not take half a chunk for a whole
                self.close_connection = True
                return
            self.wfile.write(piece)
            length -= len(piece)

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            # the browser went away or no longer wants the chunk
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the command line belongs to the person."""
