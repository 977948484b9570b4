"""Only chunks and metadata of the named arrays leave the machine, and only for who knows the token."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloom.errors import UserError
from neuroloom.viewing.server import byte_range, open_file, serve_arrays
from neuroloom.volume import create_volume

TOKEN = "a0b1c2d3"
SECRET = "what nobody may read"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    volume = create_volume(tmp_path / "a.zarr", "volumes/raw", (8, 8, 8), "uint8", (8, 8, 8), chunks=(4, 4, 4))
    volume.write((0, 0, 0), np.arange(512, dtype=np.uint16).astype(np.uint8).reshape(8, 8, 8))
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "a.zarr/volumes/zarr.json").write_text(SECRET)
    (tmp_path / "a.zarr/volumes/raw/notes.txt").write_text(SECRET)
    os.symlink(tmp_path / "secret", tmp_path / "a.zarr/volumes/raw/c/7")
    return tmp_path / "a.zarr/volumes/raw"


@pytest.fixture
def server(folder: Path) -> Iterator[ThreadingHTTPServer]:
    running = serve_arrays([folder], TOKEN)
    yield running
    running.shutdown()
    running.server_close()


def ask(
    server: ThreadingHTTPServer, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers=headers or {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, dict(answer.getheaders())


def test_chunks_and_metadata_are_served_to_any_origin(server: ThreadingHTTPServer, folder: Path) -> None:
    for key in ("zarr.json", "c/0/0/0", "c/1/0/1"):
        status, body, headers = ask(server, f"/{TOKEN}/0/{key}")
        assert (status, body) == (200, (folder / key).read_bytes())
        assert headers["Access-Control-Allow-Origin"] == "*"
    status, body, headers = ask(server, f"/{TOKEN}/0/zarr.json", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) == (folder / "zarr.json").stat().st_size


def test_smaller_copies_lie_in_folders_of_a_name(tmp_path: Path) -> None:
    for name in ("labels", "s1"):
        create_volume(tmp_path / "a.zarr", name, (8, 8, 8), "uint64", (8, 8, 8)).write((0, 0, 0), np.ones((8, 8, 8)))
    root = tmp_path / "a.zarr"
    for key in ("zarr.json", "labels/zarr.json", "s1/zarr.json", "s1/c/0/0/0"):
        found = open_file(f"/{TOKEN}/0/{key}", [root.resolve()], TOKEN)
        assert found is not None
        with found:
            assert found.read() == (root / key).read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/0/zarr.json",
        "/wrong/0/zarr.json",
        f"/{TOKEN}",
        f"/{TOKEN}/",
        f"/{TOKEN}/0/",
        f"/{TOKEN}/1/zarr.json",
        f"/{TOKEN}/-1/zarr.json",
        f"/{TOKEN}/00x/zarr.json",
        f"/{TOKEN}/0/../zarr.json",
        f"/{TOKEN}/0/%2e%2e/zarr.json",
        f"/{TOKEN}/0/c/../../zarr.json",
        f"/{TOKEN}/0//etc/passwd",
        f"/{TOKEN}/0/notes.txt",
        f"/{TOKEN}/0/c/7",
        f"/{TOKEN}/0/s1/notes.txt",
        f"/{TOKEN}/0/s1/s2/zarr.json",
        f"/{TOKEN}/0/.s1/zarr.json",
        f"/{TOKEN}/0/../raw/zarr.json",
        f"/{TOKEN}/0/c/0",
        f"/{TOKEN}/0/c/9/9/9",
        f"/{TOKEN}/0/zarr.json%00",
        f"/{TOKEN}%C3%A9/0/zarr.json",
    ],
)
def test_everything_else_is_not_found(server: ThreadingHTTPServer, path: str) -> None:
    status, body, _ = ask(server, path)
    assert (status, body) == (404, b"")


def test_nothing_can_be_written(server: ThreadingHTTPServer) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert ask(server, f"/{TOKEN}/0/zarr.json", method)[0] == 501


@settings(deadline=None)
@given(st.text(alphabet="c.0123456789/zarjson%-\\\x00é~", max_size=30))
def test_no_path_leads_out_of_the_arrays(key: str) -> None:
    root = Path(__file__).parents[1].resolve()
    found = open_file(f"/{TOKEN}/0/{key}", [root], TOKEN)
    if found is not None:
        found.close()
        assert Path(found.name).is_relative_to(root)


@pytest.mark.parametrize(
    ("header", "begin", "length"), [("bytes=10-19", 10, 10), ("bytes=200-", 200, None), ("bytes=-36", -36, 36)]
)
def test_ranges_of_a_file(
    server: ThreadingHTTPServer, folder: Path, header: str, begin: int, length: int | None
) -> None:
    whole = (folder / "zarr.json").read_bytes()
    first = begin % len(whole)
    wanted = whole[first:] if length is None else whole[first : first + length]
    status, body, headers = ask(server, f"/{TOKEN}/0/zarr.json", headers={"Range": header})
    assert (status, body) == (206, wanted)
    assert headers["Content-Range"] == f"bytes {first}-{first + len(wanted) - 1}/{len(whole)}"


def test_a_range_beyond_the_end_is_refused(server: ThreadingHTTPServer) -> None:
    assert ask(server, f"/{TOKEN}/0/zarr.json", headers={"Range": "bytes=1000000-"})[0] == 416


def test_the_browser_may_ask_for_ranges(server: ThreadingHTTPServer) -> None:
    status, _, headers = ask(server, f"/{TOKEN}/0/zarr.json", "OPTIONS")
    assert status == 204
    assert "Range" in headers["Access-Control-Allow-Headers"]


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(0, 60) | st.none(), st.integers(0, 60) | st.none())
def test_byte_ranges_are_those_of_a_slice(size: int, first: int | None, last: int | None) -> None:
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    if first is None and last is None:
        assert byte_range(header, size) == (0, size)
        return
    content = bytes(range(size))
    # the last bytes, or those from the first to the last one, inclusive
    begin, end = (max(0, size - last), size) if first is None else (first, size if last is None else last + 1)
    wanted = content[begin:end]
    found = byte_range(header, size)
    assert (b"" if found is None else content[found[0] : found[0] + found[1]]) == wanted


def test_a_taken_port_is_named(server: ThreadingHTTPServer, folder: Path) -> None:
    with pytest.raises(UserError, match=str(server.server_port)):
        serve_arrays([folder], TOKEN, server.server_port)


def test_files_behind_a_url_are_passed_on(server: ThreadingHTTPServer, folder: Path) -> None:
    asked: list[str] = []

    def fetch(key: str) -> bytes | None:
        asked.append(key)
        if key == "c/0/0/1":
            raise OSError("the other server does not answer")
        return b"0123456789" if key == "c/0/0/0" else None

    both = serve_arrays([folder, fetch], TOKEN)
    try:
        assert ask(both, f"/{TOKEN}/0/zarr.json")[1] == (folder / "zarr.json").read_bytes()
        assert ask(both, f"/{TOKEN}/1/c/0/0/0")[:2] == (200, b"0123456789")
        assert ask(both, f"/{TOKEN}/1/c/0/0/0", headers={"Range": "bytes=2-4"})[:2] == (206, b"234")
        assert ask(both, f"/{TOKEN}/1/c/0/0/1")[0] == 502
        assert ask(both, f"/{TOKEN}/1/c/5/5/5")[0] == 404
        assert ask(both, f"/{TOKEN}/1/notes.txt")[0] == 404
        assert ask(both, "/wrong/1/c/0/0/0")[0] == 404
    finally:
        both.shutdown()
        both.server_close()
    assert asked == ["c/0/0/0", "c/0/0/0", "c/0/0/1", "c/5/5/5"]
