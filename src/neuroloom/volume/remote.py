"""Volumes behind URLs: on HTTP servers and in S3, Azure and Google buckets, read only.

Credentials come from the environment, as the cloud's own tools read them. Public buckets need AWS_SKIP_SIGNATURE=true
or GOOGLE_SKIP_SIGNATURE=true there.

What was read stays in memory up to a bound, since neighbouring blocks read each other's surroundings again:

    block 1 reads |-----------|            the shared chunks are fetched once
    block 2 reads         |-----------|
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import obstore
import zarr
from zarr.storage import ObjectStore

from neuroloom.errors import UserError

CACHE_BYTES = 1 << 30
"""Bound of what a process keeps in memory of zarr behind URLs (files as they are stored), and once more of N5 and
precomputed (decoded chunks)."""

_METADATA = ("zarr.json", ".zarray", ".zattrs")
_AT_ONCE = 16
"""Requests that ask at the same time whether files exist."""


class RecentFiles:
    """Contents of files, or parts of them, up to a number of bytes; the one not used for longest goes first.

    Args:
        limit: Bytes in all.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._content: OrderedDict[Any, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any) -> bytes | None:
        """What was kept under a key, None where nothing is."""
        with self._lock:
            if key in self._content:
                self._content.move_to_end(key)
            return self._content.get(key)

    def keep(self, key: Any, content: bytes) -> None:
        """Keep a content, unless it is larger than the bound."""
        if len(content) > self.limit:
            return
        with self._lock:
            self.nbytes += len(content) - len(self._content.pop(key, b""))
            self._content[key] = content
            while self.nbytes > self.limit:
                self.nbytes -= len(self._content.popitem(last=False)[1])


recent = RecentFiles(CACHE_BYTES)
"""Chunks of this process's zarr volumes behind URLs."""


class RemoteStore(ObjectStore):
    """A zarr container behind a URL whose chunks are kept in `recent`; metadata are asked for each time.

    Args:
        url: The container.
    """

    def __init__(self, url: str) -> None:
        super().__init__(open_store(url), read_only=True)
        self.url = url

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """As `ObjectStore.get`."""
        if key.rpartition("/")[2] in (*_METADATA, ".zgroup", ".zmetadata"):
            return await super().get(key, prototype, byte_range)
        place = (self.url, key, byte_range)
        content = recent.get(place)
        if content is not None:
            return prototype.buffer.from_bytes(content)
        value = await super().get(key, prototype, byte_range)
        if value is not None:
            recent.keep(place, value.to_bytes())
        return value


def is_url(path: str | Path) -> bool:
    """Whether a path is a URL ("https://…", "s3://…", "az://…", "gs://…")."""
    return "://" in str(path)


def open_remote(url: str, dataset: str) -> zarr.Array:
    """Open a zarr array behind a URL.

    Args:
        url: The zarr container.
        dataset: The array's name in it; it was found to be there.

    Raises:
        UserError: The URL cannot be reached, or the metadata are damaged.
    """
    try:
        return zarr.open_array(RemoteStore(url), path=dataset.strip("/"), mode="r")
    except Exception as error:  # the stores of the clouds have errors of their own
        raise _unreadable(url, error) from error


def are_remote_files(url: str, names: Sequence[str]) -> list[bool]:
    """Which of some files there are behind a URL.

    Args:
        url: Of a folder.
        names: The files in it.

    Raises:
        UserError: The URL cannot be reached.
    """
    store = open_store(url)
    try:
        if len(names) == 1:
            return [_is_there(store, names[0])]
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            return list(threads.map(functools.partial(_is_there, store), names))
    except obstore.exceptions.BaseError as error:
        raise _unreadable(url, error) from error


def read_remote_file(url: str, name: str) -> bytes | None:
    """A small file behind a URL; None where there is none.

    Raises:
        UserError: The URL cannot be reached.
    """
    try:
        return bytes(obstore.get(open_store(url), name).bytes())
    except _ABSENT:
        return None
    except obstore.exceptions.BaseError as error:
        raise _unreadable(url, error) from error


def remote_file(array: zarr.Array, name: str) -> bytes | None:
    """One file of an array that `open_remote` opened.

    Args:
        array: The array.
        name: Of its metadata or of a chunk, such as "c/0/3/1".

    Returns:
        The file's content; None where there is none, as for a chunk of zeros.

    Raises:
        OSError: The server does not answer.
    """
    try:
        return bytes(obstore.get(array.store_path.store.store, f"{array.path}/{name}").bytes())
    except FileNotFoundError:
        return None
    except obstore.exceptions.BaseError as error:
        raise OSError(str(error)) from error


def remote_fingerprint(url: str, dataset: str, metadata: Sequence[str] = ()) -> str:
    """Hash of the URL and the array's metadata; changed chunks under unchanged metadata are not noticed.

    Args:
        url: The container.
        dataset: The array's name in it.
        metadata: Files of the container with the array's metadata; those of zarr by default.

    Raises:
        UserError: The URL cannot be reached.
    """
    digest = hashlib.sha256(f"{url} {dataset}".encode())
    for name in metadata or [f"{dataset.strip('/')}/{name}".lstrip("/") for name in _METADATA]:
        digest.update(read_remote_file(url, name) or b"")
    return digest.hexdigest()


def _is_there(store: obstore.store.ObjectStore, name: str) -> bool:
    try:
        obstore.head(store, name)
    except _ABSENT:
        return False
    return True


# a bucket whose files may be read but not listed says "forbidden" for a file that is not there
_ABSENT = (FileNotFoundError, obstore.exceptions.PermissionDeniedError)


def _unreadable(url: str, error: Exception) -> UserError:
    return UserError(
        f"{url} cannot be read ({type(error).__name__}: {str(error).splitlines()[0][:300]}). Check the URL, the "
        "network and your credentials."
    )


@functools.lru_cache(maxsize=64)
def open_store(url: str) -> obstore.store.ObjectStore:
    """The store of a container, with its connections; one for all who ask.

    Raises:
        UserError: No URL, or one of a kind that is not known.
    """
    try:
        return obstore.store.from_url(url, client_options={"allow_http": True}, retry_config={"max_retries": 3})
    except Exception as error:  # an unknown scheme, a malformed URL
        raise UserError(
            f"{url} is no URL that can be read ({str(error).splitlines()[0][:200]}); expected http(s), s3, az or gs."
        ) from error
